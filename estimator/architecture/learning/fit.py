"""Sizes as formulas of config fields, from how they were seen to come about."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from estimator.architecture.conditions import Place
from estimator.architecture.formula import Unfit, by_default, choose, evaluate
from estimator.architecture.learning.candidates import candidates
from estimator.architecture.learning.remembering import Sized
from estimator.architecture.learning.tell import Teller
from estimator.architecture.learning.truths import Observation
from estimator.architecture.learning.written import texts

_MOST_FORMULAS, _ENOUGH, _MOST_LAYERS, _RANKED = 6, 2, 100, 150


_NO_FIELDS = {"id2label", "label2id", "per_layer_config", "rope_parameters", "rope_scaling"}  # size no parameter


class Fitter:
    """Fits with a memory: the same sizes under the same configs are asked for again and again."""

    def __init__(self, teller: Teller) -> None:
        self.teller = teller
        self._known: dict[Any, Any] = {}
        self._right: dict[Any, bool] = {}

    def fit(self, observed: Sequence[Observation], sizes: Sequence[int], extra: Iterable[str] = ()) -> Any:
        """A formula, or [[condition, formula], ...]; None where none fits every observation."""
        pairs = {}
        for one, size in zip(observed, sizes, strict=True):
            pairs.setdefault((one.key, int(size)), (one, size))
        key = (tuple(pairs), tuple(getattr(size, "how", None) for _, size in pairs.values()), tuple(extra))
        if key not in self._known:
            self._known[key] = self._fit(list(pairs.values()), extra)
        return self._known[key]

    def _fit(self, pairs: Sequence[tuple[Observation, int]], extra: Iterable[str]) -> Any:
        meant = [_meant(one, size) for one, size in pairs]
        counts = Counter(text for found in meant for text in found)
        ranked = sorted(counts, key=lambda text: (-counts[text], text.isdigit(), len(text), text))
        for text in [*extra, *ranked[:40]]:
            if all(self.right(text, one, size) for one, size in pairs):
                return _short(text)
        if len({int(size) for _, size in pairs}) == 1 and sum(one.mixed for one, _ in pairs) >= _ENOUGH:
            return int(pairs[0][1])  # a field that the class has set itself
        ways = [lambda: self._options(pairs, meant, ranked), lambda: self._searched(pairs)]
        if not any(isinstance(size, Sized) for _, size in pairs):
            ways.reverse()
        return ways[0]() or ways[1]() or self._none_or_some(pairs, extra)

    def _options(
        self, pairs: Sequence[tuple[Observation, int]], meant: Sequence[Sequence[str]], ranked: Sequence[str]
    ) -> Any:
        """Several formulas, each under the condition that leads to it."""
        groups: dict[str, list[Observation]] = {}
        left = list(range(len(pairs)))
        meant, ranked = self._with_lost(pairs, meant, ranked)
        good = {text: {at for at in left if self.right(text, *pairs[at])} for text in ranked[:_RANKED]}
        while left and good and len(groups) < _MOST_FORMULAS:
            own = {text: [at for at in left if text in meant[at] and at in good[text]] for text in good}
            best = max(good, key=lambda text: (len(own[text]), len(good[text]), -len(text)))
            if not own[best]:
                return None
            groups[best] = [pairs[at][0] for at in own[best]]
            left = [at for at in left if at not in set(own[best])]
        if left or len(groups) < 2:
            return None
        found = [one for one in (self.teller.options(groups), self._either(pairs, list(groups))) if one is not None]
        options = min(found, key=lambda one: sum(len(condition) for condition, _ in one), default=None)
        return None if options is None else [[condition, _short(text)] for condition, text in options]

    def _none_or_some(self, pairs: Sequence[tuple[Observation, int]], extra: Iterable[str]) -> Any:
        """Zero unless a condition holds, under which a formula says how many."""
        some = [(one, size) for one, size in pairs if size]
        if not some or len(some) == len(pairs):
            return None
        condition = self.teller.condition([one for one, _ in some], [one for one, size in pairs if not size])
        size = self._fit(some, extra) if condition is not None else None
        return None if size is None or isinstance(size, list) else [[condition, size], ["", 0]]

    def _with_lost(
        self, pairs: Sequence[tuple[Observation, int]], meant: Sequence[Sequence[str]], ranked: Sequence[str]
    ) -> tuple[Sequence[Sequence[str]], Sequence[str]]:
        """One formula searched for all sizes of which it was lost how they came about, where others are known."""
        lost = [at for at, (_, size) in enumerate(pairs) if not isinstance(size, Sized)]
        if not lost or len(lost) == len(pairs) or len({int(pairs[at][1]) for at in lost}) == 1:
            return meant, ranked
        text = self._searched([pairs[at] for at in lost])
        if text is None:
            return meant, ranked
        return [[str(text)] if at in set(lost) else found for at, found in enumerate(meant)], [str(text), *ranked]

    def _either(self, pairs: Sequence[tuple[Observation, int]], texts: Sequence[str]) -> list[list[str]] | None:
        """Formulas whose conditions need not say which holds where several give the same."""
        only: dict[str, list[Observation]] = {text: [] for text in texts}
        for one, size in pairs:
            right = [text for text in texts if self.right(text, one, size)]
            if len(right) == 1:
                only[right[0]].append(one)
        options = self.teller.options(only) if all(only.values()) else None
        return options if options and all(self._leads(options, one, size) for one, size in pairs) else None

    def _leads(self, options: Sequence[Sequence[str]], one: Observation, size: int) -> bool:
        """Whether the first option that holds gives the size."""
        try:
            return self.right(choose(options, one.lookup, one.place), one, size)
        except (Unfit, TypeError, ValueError, AttributeError):
            return False

    def _searched(self, pairs: Sequence[tuple[Observation, int]]) -> Any:
        """A formula of one or two fields, where how a size came about was lost."""
        for text in candidates([one for one, _ in pairs], [int(size) for _, size in pairs]):
            if all(self.right(text, one, size) for one, size in pairs):
                return _short(text)
        return None

    def multiples(self, pairs: Sequence[tuple[Observation, int]], texts: Iterable[str]) -> list[str]:
        """What each turn of a loop adds several to: a multiple of one of the texts, and so many more."""
        found = []
        for text in texts:
            seen: dict[int, int] = {}
            for one, size in pairs:
                try:
                    seen.setdefault(evaluate(text, one.lookup, one.place), int(size))
                except (Unfit, TypeError, ValueError, AttributeError):
                    break
            turns = sorted(seen)[:2]
            if len(turns) == 2 and (step := (seen[turns[1]] - seen[turns[0]]) // (turns[1] - turns[0])) > 1:
                more = seen[turns[0]] - step * turns[0]
                found.append(f"{step}*({text}){more:+d}" if more else f"{step}*({text})")
        return found

    def right(self, text: str, one: Observation, size: int) -> bool:
        """Whether the formula gives the size there."""
        key = (text, one.key, int(size))
        if key not in self._right:
            try:
                self._right[key] = evaluate(text, one.lookup, one.place) == int(size)
            except (Unfit, TypeError, ValueError, AttributeError):
                self._right[key] = False
        return self._right[key]


def _meant(one: Observation, size: int) -> Sequence[str]:
    return list(dict.fromkeys(texts(size.how, one.place))) if isinstance(size, Sized) else [str(int(size))]


def _short(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def default_rule(fitter: Fitter, observed: Sequence[Observation], values: Sequence[Any]) -> dict[str, Any] | None:
    """How a field that is left out is set; None where that can't be told."""
    if all(value == values[0] and type(value) is type(values[0]) for value in values):
        return {"is": values[0]}
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        size = fitter.fit(observed, values)
        if size is not None:
            return {"size": size if isinstance(size, list) else [["", size]]}
    if all(isinstance(value, list) for value in values):
        rules = (_list_rule, _indices_rule, _letters_rule)
        return next((rule for one in rules if (rule := one(fitter, observed, values)) is not None), None)
    return _choice_rule(fitter, observed, values)


def _choice_rule(fitter: Fitter, observed: Sequence[Observation], values: Sequence[Any]) -> dict[str, Any] | None:
    groups: dict[str, list[Observation]] = {}
    for one, value in zip(observed, values, strict=True):
        groups.setdefault(json.dumps(value), []).append(one)
    options = fitter.teller.options(groups) if len(groups) < 5 else None
    return None if options is None else {"choice": [[condition, json.loads(value)] for condition, value in options]}


def _list_rule(fitter: Fitter, observed: Sequence[Observation], values: Sequence[list[Any]]) -> dict[str, Any] | None:
    length = fitter.fit(observed, [len(value) for value in values], layer_counts(observed))
    if length is None or isinstance(length, list):
        return None
    groups: dict[str, list[Observation]] = {}
    for one, value in zip(observed, values, strict=True):
        for index, element in enumerate(value):
            groups.setdefault(json.dumps(element), []).append(one._replace(place=Place(index, len(value))))
    options = fitter.teller.options(groups) if len(groups) < 5 else None
    if options is None:
        return None
    rule = {"length": length, "items": [[condition, json.loads(element)] for condition, element in options]}
    return rule if _gives(rule, observed, values) else None


def _letters_rule(
    fitter: Fitter, observed: Sequence[Observation], values: Sequence[list[Any]]
) -> dict[str, Any] | None:
    """A list that a text or another list spells, a letter for each element; what it is where there is none."""
    for path in sorted({path for one in observed for path in one.values}):
        spelt = [(one.lookup(path), value) for one, value in zip(observed, values, strict=True) if one.lookup(path)]
        if len(spelt) < _ENOUGH or not all(isinstance(text, (str, list)) and text != value for text, value in spelt):
            continue
        if not all(len(text) >= len(value) for text, value in spelt):
            continue
        letters = {str(letter): element for text, value in spelt for letter, element in zip(text, value, strict=False)}
        if len(set(map(str, letters.values()))) == 1:
            continue  # it spells nothing: another list of as many
        rule: dict[str, Any] = {"letters": path, "map": dict(sorted(letters.items()))}
        at = [one for one in observed if one.lookup(path)]
        if any(len(text) > len(value) for text, value in spelt):
            rule["most"] = fitter.fit(at, [len(value) for _, value in spelt], layer_counts(observed))
        if isinstance(rule.get("most", ""), (int, str)) and _gives(rule, at, [value for _, value in spelt]):
            plain = [pair for pair in zip(observed, values, strict=True) if not pair[0].lookup(path)]
            other = default_rule(fitter, [one for one, _ in plain], [value for _, value in plain]) if plain else None
            return rule if not plain else other and {"either": [[f"?{path}", rule], ["", other]]}
    return None


def _indices_rule(
    fitter: Fitter, observed: Sequence[Observation], values: Sequence[list[Any]]
) -> dict[str, Any] | None:
    """A list of the layers that a condition picks."""
    if not all(type(index) is int and index >= 0 for value in values for index in value):
        return None
    for path in layer_counts(observed):
        yes, no = [], []
        for one, value in zip(observed, values, strict=True):
            count = one.values[path]
            for index in range(count if type(count) is int and count < _MOST_LAYERS else 0):
                (yes if index in value else no).append(one._replace(place=Place(index, count)))
        condition = fitter.teller.condition(yes, no) if yes else None
        rule = {"length": path, "where": condition}
        if condition is not None and _gives(rule, observed, values):
            return rule
    return None


def _gives(rule: Mapping[str, Any], observed: Sequence[Observation], values: Sequence[Any]) -> bool:
    try:
        return all(by_default(rule, one.lookup) == value for one, value in zip(observed, values, strict=True))
    except Unfit:
        return False


def layer_counts(observed: Sequence[Observation]) -> list[str]:
    """The fields of all configs that count layers, by their names."""
    shared = set.intersection(*(set(one.values) for one in observed))
    return sorted(p for p in shared if p.endswith(("layers", "blocks", "depth", "layer")))


def values_of(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Scalars and lists by dotted path; True for what is nested, so that a tower can be there or not."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        key = str(key)  # Aria's tables begin with numbers, which JSON has as texts
        if key in _NO_FIELDS or (key.startswith("_") and type(value) is not bool):
            continue
        if isinstance(value, dict):
            found |= {f"{prefix}{key}": True} | values_of(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return found
