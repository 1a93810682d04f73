"""Sizes as formulas of config fields, found from observations. Only generators import this file; it needs numpy."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from estimator.architecture.candidates import candidates
from estimator.architecture.conditions import Place
from estimator.architecture.discover import Setting, find_condition
from estimator.architecture.formula import Unfit, by_default, evaluate, met


class Observation:
    """One config (a Setting's place included), its numbers by feature and its raw values."""

    __slots__ = ("features", "mixed", "setting", "values")

    def __init__(self, values: Mapping[str, Any], setting: Setting, mixed: bool = False) -> None:
        self.values, self.setting, self.mixed = values, setting, mixed  # mixed: several numbers changed at once
        self.features = _features(values, setting.place)

    def lookup(self, path: str) -> Any:
        """The field's value; Unfit where there is none."""
        if path not in self.values:
            raise Unfit(path)
        return self.values[path]


def values_of(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Scalars and lists by dotted path."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= values_of(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return found


def _features(values: Mapping[str, Any], place: Place) -> dict[str, float]:
    found: dict[str, float] = {}
    for path, value in values.items():
        if type(value) in (int, float):
            found[path] = value
        elif isinstance(value, list) and value:
            found[f"{path}[]"] = len(value)
            if all(type(one) in (int, float) for one in value):
                found |= _elements(path, value, place)
    found["#"] = place.index
    return found


def _elements(path: str, value: Sequence[float], place: Place) -> dict[str, float]:
    at = {"0": 0, "-1": -1, "1": 1, "#": place.index, "#+1": place.index + 1, "#-1": place.index - 1}
    at["^"] = (place.outer or place).index
    return {f"{path}[{mark}]": value[index] for mark, index in at.items() if -1 <= index < len(value)}


class Fitter:
    """Fits with a memory: the same sizes under the same configs are asked for again and again."""

    def __init__(self, varying: Sequence[str]) -> None:
        self.varying = tuple(varying)
        self._known: dict[Any, Any] = {}

    def fit(self, observed: Sequence[Observation], sizes: Sequence[int], hint: str = "") -> Any:
        """A formula, or [[condition, formula], ...]; None where none fits every observation."""
        if len(set(sizes)) == 1:
            return sizes[0]
        key = (tuple(id(one.values) for one in observed), tuple(one.setting.place for one in observed), tuple(sizes))
        if key not in self._known:
            kept = {}
            for one, size in zip(observed, sizes, strict=True):
                kept.setdefault((id(one.values), one.setting.place, size), (one, size))
            pairs = list(kept.values())
            self._known[key] = self._fit([one for one, _ in pairs], [size for _, size in pairs])
        return self._known[key]

    def _fit(self, observed: Sequence[Observation], sizes: Sequence[int]) -> Any:
        if (plain := self._plain(observed, sizes)) is not None:
            return plain
        for path in self._splitters(observed):
            if (options := self._split(path, observed, sizes)) is not None:
                return options
        return None

    def _splitters(self, observed: Sequence[Observation]) -> list[str]:
        found = []
        for path in self.varying:
            values = {one.setting.fields.get(path, "null") for one in observed}
            numeric = [value for value in values if value.lstrip("-").replace(".", "").isdigit()]
            kinds = len(values) - len(numeric) + bool(numeric)
            if 1 < kinds <= 6:
                found.append(path)
        return found[:40]

    def _split(self, path: str, observed: Sequence[Observation], sizes: Sequence[int]) -> Any:
        groups: dict[str, list[int]] = {}
        for at, one in enumerate(observed):
            value = one.setting.fields.get(path, "null")
            groups.setdefault("#number" if value.lstrip("-").replace(".", "").isdigit() else value, []).append(at)
        options = []
        for places in groups.values():
            part = [observed[at] for at in places]
            formula = self._plain(part, [sizes[at] for at in places])
            others = [one.setting for at, one in enumerate(observed) if at not in set(places)]
            condition = find_condition([one.setting for one in part], others, [path])
            if formula is None or condition is None:
                return None
            options.append([condition, formula])
        return options

    def _plain(self, observed: Sequence[Observation], sizes: Sequence[int]) -> Any:
        if len(set(sizes)) == 1:
            return sizes[0]
        shared = set.intersection(*(set(one.features) for one in observed))
        target = np.array(sizes, dtype=float)
        columns = {}
        for name in sorted(shared, key=lambda name: (name.count("."), name.count("["), len(name), name)):
            column = np.array([one.features[name] for one in observed], dtype=float)
            if np.ptp(column) and np.abs(column).max() < 1e9:
                columns[name] = column
        for text in candidates(columns, target):
            if _confirmed(text, observed, sizes):
                return text
        return None


def _confirmed(text: str, observed: Sequence[Observation], sizes: Sequence[int]) -> bool:
    try:
        return all(
            evaluate(text, one.lookup, one.setting.place) == size for one, size in zip(observed, sizes, strict=True)
        )
    except (Unfit, TypeError, ValueError):
        return False


def default_rule(fitter: Fitter, observed: Sequence[Observation], values: Sequence[Any]) -> dict[str, Any] | None:
    """How a field that is left out is set; None where that can't be told."""
    if all(value == values[0] and type(value) is type(values[0]) for value in values):
        return {"is": values[0]}
    if all(type(value) is int for value in values):
        size = fitter.fit(observed, values)
        return None if size is None else {"size": size if isinstance(size, list) else [["", size]]}
    if all(isinstance(value, list) and value and all(isinstance(one, str) for one in value) for value in values):
        return _list_rule(fitter, observed, values)
    return _choice_rule(fitter, observed, values)


def _choice_rule(fitter: Fitter, observed: Sequence[Observation], values: Sequence[Any]) -> dict[str, Any] | None:
    groups: dict[str, list[Setting]] = {}
    for one, value in zip(observed, values, strict=True):
        groups.setdefault(json.dumps(value), []).append(one.setting)
    options = conditions_of(groups, fitter.varying) if len(groups) < 5 else None
    return None if options is None else {"choice": [[condition, json.loads(value)] for condition, value in options]}


def _list_rule(fitter: Fitter, observed: Sequence[Observation], values: Sequence[list[Any]]) -> dict[str, Any] | None:
    length = fitter.fit(observed, [len(value) for value in values])
    if length is None or isinstance(length, list):
        return None
    groups: dict[str, list[Setting]] = {}
    for one, value in zip(observed, values, strict=True):
        for index, element in enumerate(value):
            groups.setdefault(element, []).append(one.setting._replace(place=Place(index, len(value))))
    options = conditions_of(groups, fitter.varying)
    rule = {"length": length, "items": options}
    if options is None:
        return None
    try:
        right = all(by_default(rule, one.lookup) == value for one, value in zip(observed, values, strict=True))
    except Unfit:
        return None
    return rule if right else None


def conditions_of(groups: Mapping[str, list[Setting]], varying: Sequence[str]) -> list[list[str]] | None:
    """[[condition, key], ...] that tells the groups apart, the last one without; None where there is none."""
    options, left = [], sorted(groups, key=lambda key: len(groups[key]))
    while len(left) > 1:
        for key in left:
            others = [setting for other in left if other != key for setting in groups[other]]
            condition = condition_for(groups[key], others, varying)
            if condition is not None:
                options.append([condition, key])
                left.remove(key)
                break
        else:
            return None
    return [*options, ["", left[0]]]


def condition_for(yes: Sequence[Setting], no: Sequence[Setting], varying: Sequence[str]) -> str | None:
    """find_condition's, else a period and an offset, else two fields that differ."""
    found = find_condition(yes, no, varying)
    if found is None or "#=" in found or "#~" in found:
        kept = []
        for text in _extended([*yes, *no], varying):
            if _tells(text, yes, no):
                return text
            if _tells(text, yes, ()):
                kept.append(text)
        for one, other in itertools.combinations(kept[:50], 2):
            if _tells(f"{one} & {other}", yes, no):
                return f"{one} & {other}"
    return found


def _tells(text: str, yes: Sequence[Setting], no: Sequence[Setting]) -> bool:
    try:
        return all(met(text, _reader(s), s.place) for s in yes) and not any(met(text, _reader(s), s.place) for s in no)
    except Unfit:
        return False


def _reader(setting: Setting) -> Any:
    def lookup(path: str) -> Any:
        if path in setting.lists:
            return setting.lists[path]
        text = setting.fields.get(path, "null")
        return int(text) if text.lstrip("-").isdigit() else {"true": True, "false": False, "null": None}.get(text, text)

    return lookup


def _extended(settings: Sequence[Setting], varying: Sequence[str]) -> Iterator[str]:
    for path in sorted({path for s in settings for path in s.lists}):
        for value in sorted({one for s in settings for one in s.lists.get(path, ()) if one[:1].isalpha()}):
            yield f"has {path} {value}"
    for path in sorted({path for s in settings for path in s.lists}):
        if all(one.isdigit() for s in settings for one in s.lists.get(path, ())):
            yield f"in {path}"
            yield f"out {path}"
    numbers = [p for p in varying if all(s.fields.get(p, "").isdigit() and int(s.fields[p]) < 100 for s in settings)]
    steps = [
        p
        for p in numbers
        if any(mark in p for mark in ("period", "step", "freq", "interval", "pattern", "every", "offset"))
    ]
    for period in (*steps, *map(str, range(2, 9))):
        for offset in ("0", "-1", *steps, *(str(n) for n in range(1, 6))):
            yield f"%{period}:{offset}"
    for path in varying:
        if {s.fields.get(path, "null") for s in settings} <= {"true", "false", "null"}:
            yield f"?{path}"
            yield f"!{path}"
    sizes = [p for p in varying if all(s.fields.get(p, "").isdigit() for s in settings)][:40]
    for one, other in itertools.combinations(sizes, 2):
        yield f"{one}!={other}"
        yield f"{one}=={other}"
