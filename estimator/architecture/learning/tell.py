"""Finds the condition that tells observations apart, among the comparisons that the class was seen to make."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from estimator.architecture.conditions import Place, written
from estimator.architecture.formula import Unfit, met
from estimator.architecture.learning.remembering import How
from estimator.architecture.learning.written import from_the_last, general
from estimator.architecture.surveying.discover import text_of

_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_SINGLES, _ALTERNATIVES, _PLACES = 160, 3, 3
_PAIRS, _TRIPLES, _MOST_VALUES, _MOST_ATOMS, _MOST_LAYERS = 80, 24, 6, 400, 100


class Observation(NamedTuple):
    """A place in a model that was built from one config."""

    number: int  # of the config: what tells it from others
    values: Mapping[str, Any]  # the config's scalars and lists by dotted path, as its class has filled it in
    place: Place = Place()
    mixed: bool = False  # several numbers were changed at once

    def lookup(self, path: str) -> Any:
        """The field's value; None where there is none."""
        return self.values.get(path)

    @property
    def key(self) -> Any:
        return self.number, self.place


class Teller:
    """Tells apart by what varies in the configs."""

    def __init__(self, configs: Sequence[Observation], comparisons: Iterable[How], lists: Iterable[str]) -> None:
        self.values: dict[int, dict[str, str]] = {}
        for one in configs:
            self.add(one)
        held = {p for one in configs for p, value in one.values.items() if isinstance(value, list)}
        paths = {path for one in configs for path in one.values} - held
        self.varying = sorted(
            (p for p in paths if len({texts.get(p, "null") for texts in self.values.values()}) > 1 and is_told(p)),
            key=lambda path: (path.count("."), len(path), path),
        )
        self.lists = sorted(held & set(lists))
        self.elements = {
            path: sorted({e for one in configs for e in one.values.get(path) or () if isinstance(e, str)})
            for path in self.lists
        }
        self.atoms: dict[str, None] = {}
        self._learnt: dict[How, None] = {}
        self.learn(comparisons)
        self._known: dict[Any, bool | None] = {}

    def add(self, config: Observation) -> None:
        """One more config, whose observations may be told apart."""
        self.values[config.number] = {path: text_of(value) for path, value in config.values.items()}

    def learn(self, comparisons: Iterable[How]) -> None:
        """More comparisons that conditions may be made of."""
        new = [one for one in dict.fromkeys(comparisons) if one not in self._learnt]
        self._learnt.update(dict.fromkeys(new))
        for text in _compared(new):
            if len(self.atoms) < _MOST_ATOMS:
                self.atoms.setdefault(text)

    def options(self, groups: Mapping[str, Sequence[Observation]]) -> list[list[str]] | None:
        """[[condition, key], ...] that tells the groups apart, the last one without; None where there is none."""
        options, left = [], sorted(groups, key=lambda key: len(groups[key]))
        while len(left) > 1:
            for key in left:
                others = [one for other in left if other != key for one in groups[other]]
                if (condition := self.condition(groups[key], others)) is not None:
                    options.append([condition, key])
                    left.remove(key)
                    break
            else:
                return None
        return [*options, ["", left[0]]]

    def condition(self, yes: Sequence[Observation], no: Sequence[Observation], more: Iterable[str] = ()) -> str | None:
        """One that holds for all of `yes` and for none of `no`, the simplest; None where there is none.

        `more` are conditions to try beside the ones that are known.
        """
        if not no:
            return ""
        yes, no = ({one.key: one for one in each} for each in (yes, no))
        if yes.keys() & no.keys():
            return None
        yes, no = list(yes.values()), list(no.values())
        full, clean = [], []
        for text in itertools.chain(self._candidates(yes, no), more):
            all_yes = all(self._holds(text, one) for one in yes)
            none_no = all(self._holds(text, one) is False for one in no)
            if all_yes and none_no:
                return text
            if all_yes and any(self._holds(text, one) is False for one in no):
                full.append(text)
            elif not all_yes and none_no and any(self._holds(text, one) for one in yes):
                clean.append(text)
        return (
            self._cover(full, no, " & ", wanted=False)
            or self._cover(clean, yes, " / ", wanted=True)
            or self._alternatives(yes, no)
            or self._within(full, yes, no)
        )

    def _within(self, full: Sequence[str], yes: Sequence[Observation], no: Sequence[Observation]) -> str | None:
        """A place at which all of `yes` are, as the first block of a stage, and what tells them apart there."""
        for place in [text for text in full if text.lstrip("^").startswith("#")][:_PLACES]:
            inner = self._alternatives(yes, [one for one in no if self._holds(place, one)], everywhere=False)
            if inner is not None:
                return " / ".join(f"{place} & {text}" for text in inner.split(" / "))
        return None

    def _alternatives(
        self, yes: Sequence[Observation], no: Sequence[Observation], everywhere: bool = True
    ) -> str | None:
        """Up to three pairs of conditions, one of which holds for each of `yes`, and none for any of `no`.

        Each can be asked of all of `yes`, unless not `everywhere`: then beside one that does not hold where it can't.
        """
        masks: dict[tuple[int, int], str] = {}
        for text in self._candidates(yes, no):
            ours = sum(1 << at for at, one in enumerate(yes) if self._holds(text, one))
            theirs = sum(1 << at for at, one in enumerate(no) if self._holds(text, one) is not False)
            if ours and not (everywhere and any(self._holds(text, one) is None for one in yes)):
                masks.setdefault((ours, theirs), text)
        several = list(masks.items())[:_SINGLES]
        clean: dict[int, str] = {}
        for ((one, wrong), text), ((other, wrong_too), more) in itertools.combinations(several, 2):
            if not wrong & wrong_too and one & other:
                clean.setdefault(one & other, f"{text} & {more}")
        for (one, wrong), text in several:
            if not wrong:
                clean[one] = text
        left, chosen = (1 << len(yes)) - 1, []
        while left and len(chosen) < _ALTERNATIVES and clean:
            best = max(clean, key=lambda mask: (mask & left).bit_count())
            if not best & left:
                break
            chosen.append(clean[best])
            left &= ~best
        return None if left else " / ".join(chosen)

    def _cover(self, texts: Sequence[str], observed: Sequence[Observation], sign: str, wanted: bool) -> str | None:
        """Two or three of the texts that say, together, what is wanted of every observation."""
        masks: dict[int, str] = {}
        for text in texts:
            mask = sum(1 << at for at, one in enumerate(observed) if self._holds(text, one) is wanted)
            masks.setdefault(mask, text)
        whole, known = (1 << len(observed)) - 1, list(masks.items())
        for at, (mask, text) in enumerate(known[:_PAIRS]):
            for other, more in known[at + 1 :]:
                if mask | other == whole:
                    return sign.join((text, more))
        most = sorted(known, key=lambda one: ("#" in one[1], -one[0].bit_count()))
        for some in itertools.combinations(most[:_TRIPLES], 3):
            if some[0][0] | some[1][0] | some[2][0] == whole:
                return sign.join(text for _, text in some)
        return None

    def _holds(self, text: str, one: Observation) -> bool | None:
        """None where a field is missing: the condition may not be asked there."""
        key = (text, *one.key)
        if key not in self._known:
            try:
                self._known[key] = met(text, one.lookup, one.place)
            except (Unfit, TypeError, AttributeError, ValueError):
                self._known[key] = None
        return self._known[key]

    def _candidates(self, yes: Sequence[Observation], no: Sequence[Observation]) -> Iterator[str]:
        yield from self._of_fields(yes, no)
        yield from self.atoms
        for up in ("", "^"):
            if up and not all(one.place.outer and one.place.outer.outer for one in (*yes, *no)):
                break
            yield from self._of_lists(yes, no, up)
            yield from self._of_places(yes, no, up)
        for path in self.lists:
            yield from (f"has {path} {element}" for element in self.elements[path])
            yield from (f"in {path}", f"out {path}")
        yield from _periods()
        yield from self._of_limits()

    def _of_fields(self, yes: Sequence[Observation], no: Sequence[Observation]) -> Iterator[str]:
        for path in self.varying:
            ours = {self.values[number].get(path, "null") for number in {one.number for one in yes}}
            theirs = {self.values[number].get(path, "null") for number in {one.number for one in no}}
            if len(ours | theirs) == 1:
                continue
            yield f"?{path}"
            yield f"!{path}"
            if not any(_is_number(value) for value in ours) and len(ours) <= _MOST_VALUES:
                yield f"{path}={'|'.join(sorted(ours))}"
            if not any(_is_number(value) for value in theirs) and len(theirs) <= _MOST_VALUES:
                yield f"{path}~{'|'.join(sorted(theirs))}"
            only = {value for value in ours - theirs if not _is_number(value)}
            if only and only != ours and len(only) <= _MOST_VALUES:
                yield f"{path}={'|'.join(sorted(only))}"

    def _of_lists(self, yes: Sequence[Observation], no: Sequence[Observation], up: str) -> Iterator[str]:
        for path in self.lists:
            ours, theirs = ({_element(one, path, up) for one in each} - {None} for each in (yes, no))
            words = not any(_is_number(value) and value not in ("0", "1") for value in ours | theirs)
            if not words or not ours or not theirs:
                continue
            if ours & theirs:  # one of several conditions
                some = (ours - theirs, ours if theirs - ours else set())
                yield from (f"{up}{path}@{'|'.join(sorted(only))}" for only in some if only)
                continue
            if len(ours) <= _MOST_VALUES:
                yield f"{up}{path}@{'|'.join(sorted(ours))}"
            if len(theirs) <= _MOST_VALUES:
                yield f"not {up}{path}@{'|'.join(sorted(theirs))}"

    def _of_places(self, yes: Sequence[Observation], no: Sequence[Observation], up: str) -> Iterator[str]:
        yield from (f"{up}#first", f"{up}#!first", f"{up}#last", f"{up}#!last", f"{up}#=0", f"{up}#~0")
        ours, theirs = ({(one.place.outer if up else one.place).index for one in each} for each in (yes, no))
        counts = {(one.place.outer if up else one.place).count for one in (*yes, *no)}
        if not ours & theirs and len(counts) == 1 and len(ours) <= _MOST_VALUES:
            yield f"{up}#={'|'.join(map(str, sorted(ours)))}"

    def _of_limits(self) -> Iterator[str]:
        for path in self.varying:
            if all(_is_small(one.get(path, "null")) for one in self.values.values()):
                yield f"(#<{path})"
                yield f"(#>={path})"


def _is_small(text: str) -> bool:
    return text.isdigit() and int(text) < _MOST_LAYERS


def _compared(comparisons: Iterable[How]) -> Iterator[str]:
    found: dict[str, None] = {}
    comparisons = list(comparisons)
    for meaning in (general, from_the_last):
        for sign, one, other in comparisons:
            for turned in (sign, _OPPOSITE[sign]):
                found.update(dict.fromkeys(f"({text})" for text in meaning((turned, one, other))))
    yield from found


def _periods() -> Iterator[str]:
    for limit in range(1, 7):
        yield f"(#<{limit})"
        yield f"(#>={limit})"
    for period in range(2, 7):
        for rest in range(period):
            yield f"(#%{period}=={rest})"
            yield f"(#%{period}!={rest})"


def _element(one: Observation, path: str, up: str) -> str | None:
    values = one.values.get(path)
    index = (one.place.outer if up else one.place).index
    return written(values[index]) if isinstance(values, list) and index < len(values) else None


def is_told(path: str) -> bool:
    """Whether a field may tell builds apart."""
    skipped = ("transformers_version", "id2label", "label2id", "dtype")
    return path.rpartition(".")[2] not in skipped


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "").replace("e", "").replace("+", "").replace("-", "").isdigit()
