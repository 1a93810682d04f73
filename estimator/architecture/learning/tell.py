"""Finds the condition that tells observations apart, among the comparisons that the class was seen to make."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from estimator.architecture.conditions import written
from estimator.architecture.learning.remembering import How
from estimator.architecture.learning.truths import Observation, Truths
from estimator.architecture.learning.written import from_the_last, general
from estimator.architecture.surveying.discover import text_of

_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_SINGLES, _ALTERNATIVES, _PLACES = 160, 3, 3
_PAIRS, _TRIPLES, _MOST_VALUES, _MOST_ATOMS, _MOST_LAYERS = 80, 24, 6, 400, 100


class Teller:
    """Tells apart by what varies in the configs."""

    def __init__(self, configs: Sequence[Observation], comparisons: Iterable[How], lists: Iterable[str]) -> None:
        self.values: dict[int, dict[str, str]] = {}
        self._elements: dict[tuple[int, str], list[str]] = {}
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
        self._truths = Truths()

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
        yes, no = (list({one.key: one for one in each}.values()) for each in (yes, no))
        truths, ours, theirs = self._truths, self._truths.bits(yes), self._truths.bits(no)
        if ours & theirs:
            return None
        full, clean = [], []
        for text in itertools.chain(self._candidates(yes, no), more):
            all_yes, none_no = truths.all_hold(text, ours), truths.all_fail(text, theirs)
            if all_yes and none_no:
                return text
            if all_yes and truths.fails(text, theirs):
                full.append(text)
            elif not all_yes and none_no and truths.holds(text, ours):
                clean.append(text)
        return (
            _cover({text: truths.fails(text, theirs) for text in full}, theirs, " & ")
            or _cover({text: truths.holds(text, ours) for text in clean}, ours, " / ")
            or self._alternatives(yes, no)
            or self._within(full, yes, no)
        )

    def _within(self, full: Sequence[str], yes: Sequence[Observation], no: Sequence[Observation]) -> str | None:
        """A place at which all of `yes` are, as the first block of a stage, and what tells them apart there."""
        for place in [text for text in full if text.lstrip("^").startswith("#")][:_PLACES]:
            there = [one for one in no if self._truths.holds(place, self._truths.bits([one]))]
            inner = self._alternatives(yes, there, everywhere=False)
            if inner is not None:
                return " / ".join(f"{place} & {text}" for text in inner.split(" / "))
        return None

    def _alternatives(
        self, yes: Sequence[Observation], no: Sequence[Observation], everywhere: bool = True
    ) -> str | None:
        """Up to three pairs of conditions, one of which holds for each of `yes`, and none for any of `no`.

        Each can be asked of all of `yes`, unless not `everywhere`: then beside one that does not hold where it can't.
        """
        truths, ours, theirs = self._truths, self._truths.bits(yes), self._truths.bits(no)
        masks: dict[tuple[int, int], str] = {}
        for text in self._candidates(yes, no):
            right, wrong = truths.holds(text, ours), theirs & ~truths.fails(text, theirs)
            if right and not (everywhere and ours & ~right & ~truths.fails(text, ours)):
                masks.setdefault((right, wrong), text)
        several = list(masks.items())[:_SINGLES]
        clean: dict[int, str] = {}
        for ((one, wrong), text), ((other, wrong_too), more) in itertools.combinations(several, 2):
            if not wrong & wrong_too and one & other:
                clean.setdefault(one & other, f"{text} & {more}")
        for (one, wrong), text in several:
            if not wrong:
                clean[one] = text
        left, chosen = ours, []
        while left and len(chosen) < _ALTERNATIVES and clean:
            best = max(clean, key=lambda mask: (mask & left).bit_count())
            if not best & left:
                break
            chosen.append(clean[best])
            left &= ~best
        return None if left else " / ".join(chosen)

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
        sides = [{(one.number, _index(one, up)): one.values for one in each} for each in (yes, no)]
        for path in self.lists:
            for mark in ("@", "@@"):
                ours, theirs = (
                    {text for at, values in each.items() for text in self._element(*at, values.get(path), path, mark)}
                    for each in sides
                )
                yield from self._of_elements(ours, theirs, f"{up}{path}{mark}")

    def _of_elements(self, ours: set[str], theirs: set[str], said: str) -> Iterator[str]:
        words = not any(_is_number(value) and value not in ("0", "1") for value in ours | theirs)
        if not words or not ours or not theirs:
            return
        if ours & theirs:  # one of several conditions
            some = (ours - theirs, ours if theirs - ours else set())
            yield from (f"{said}{'|'.join(sorted(only))}" for only in some if only)
            return
        if len(ours) <= _MOST_VALUES:
            yield f"{said}{'|'.join(sorted(ours))}"
        if len(theirs) <= _MOST_VALUES:
            yield f"not {said}{'|'.join(sorted(theirs))}"

    def _element(self, number: int, index: int, values: Any, path: str, mark: str) -> Sequence[str]:
        """The list's element for the index, where it has one, or comes to it when it is said over and over ("@@")."""
        if (key := (number, path)) not in self._elements:
            self._elements[key] = [written(value) for value in values] if isinstance(values, list) else []
        elements = self._elements[key]
        index = index % len(elements) if mark == "@@" and elements else index
        return elements[index : index + 1]

    def _of_places(self, yes: Sequence[Observation], no: Sequence[Observation], up: str) -> Iterator[str]:
        yield from (f"{up}#first", f"{up}#!first", f"{up}#last", f"{up}#!last", f"{up}#=0", f"{up}#~0")
        ours, theirs = ({_index(one, up) for one in each} for each in (yes, no))
        counts = {(one.place.outer if up else one.place).count for one in (*yes, *no)}
        if not ours & theirs and len(counts) == 1 and len(ours) <= _MOST_VALUES:
            yield f"{up}#={'|'.join(map(str, sorted(ours)))}"

    def _of_limits(self) -> Iterator[str]:
        for path in self.varying:
            if all(_is_small(one.get(path, "null")) for one in self.values.values()):
                yield f"(#<{path})"
                yield f"(#>={path})"


def _cover(said: Mapping[str, int], whole: int, sign: str) -> str | None:
    """Two or three of the texts, of those beside what each says, that say the whole together."""
    masks: dict[int, str] = {}
    for text, mask in said.items():
        masks.setdefault(mask, text)
    known = list(masks.items())
    for at, (mask, text) in enumerate(known[:_PAIRS]):
        for other, more in known[at + 1 :]:
            if mask | other == whole:
                return sign.join((text, more))
    most = sorted(known, key=lambda one: ("#" in one[1], -one[0].bit_count()))
    for some in itertools.combinations(most[:_TRIPLES], 3):
        if some[0][0] | some[1][0] | some[2][0] == whole:
            return sign.join(text for _, text in some)
    return None


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


def _index(one: Observation, up: str) -> int:
    return (one.place.outer if up else one.place).index


def is_told(path: str) -> bool:
    """Whether a field may tell builds apart."""
    skipped = ("transformers_version", "id2label", "label2id", "dtype")
    return path.rpartition(".")[2] not in skipped


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "").replace("e", "").replace("+", "").replace("-", "").isdigit()
