"""One model class, seen under many configs, into nodes with formulas."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from estimator.architecture.conditions import Place
from estimator.architecture.formula import Unfit, evaluate
from estimator.architecture.learning.fit import Fitter
from estimator.architecture.learning.remembering import Sized
from estimator.architecture.learning.tell import Teller
from estimator.architecture.learning.truths import Observation
from estimator.architecture.structure import ACTIVATION
from estimator.architecture.surveying.merge import in_order
from estimator.architecture.surveying.observe import Seen, SeenTensor

UNKNOWN = "?"  # no field has this name: whoever asks for such a size is refused
_ENOUGH = 2


class Unresolved(Exception):
    """What no formula or condition explains."""


class Glimpse(NamedTuple):
    seen: Seen
    at: Observation


class Learner:
    """Learns nodes from observations."""

    def __init__(self, teller: Teller, lengths: Sequence[str], activations: Mapping[str, str]) -> None:
        self.teller, self.lengths, self.activations = teller, tuple(lengths), activations
        self.fitter = Fitter(teller)
        self.nodes: list[str] = []
        self.lost: list[str] = []  # sizes of parameters that nothing explains

    def node(self, glimpses: Sequence[Glimpse], where: str) -> int:
        """The number of the node that says all that was seen here. Raises Unresolved."""
        first = glimpses[0].seen
        if any(one.seen.is_open for one in glimpses):
            raise Unresolved(f"{where}: of another package")
        parameters = self._slots([(one.at, one.seen.parameters) for one in glimpses], where)
        groups: Any = 1
        if any(one.seen.groups != 1 for one in glimpses):
            each = [one.seen.parameters and one.seen.parameters[0].shape[:1] == (one.seen.groups,) for one in glimpses]
            observed = [(one.at, one.seen.groups) for one in glimpses]
            groups = parameters[0][2][0] if all(each) else self._size(observed, f"{where} groups")  # one for a channel
        lost = list(self.lost)
        buffers = self._slots([(one.at, one.seen.buffers) for one in glimpses], where)
        self.lost = lost  # buffers may be of unknown size
        children = self._children(glimpses, where)
        parameters = [slot[:4] for slot in parameters]
        return self._number([first.cls, first.kind, parameters, buffers, groups, int(first.transposed), children])

    def _number(self, node: list[Any]) -> int:
        text = json.dumps(node, separators=(",", ":"))
        if text not in self.nodes:
            self.nodes.append(text)
        return self.nodes.index(text)

    def _size(self, pairs: Sequence[tuple[Observation, int]], where: str, extra: Sequence[str] = ()) -> Any:
        """A formula; UNKNOWN, which refuses, where too few random configs tell or none fits."""
        traced = any(isinstance(value, Sized) for _, value in pairs)
        enough = traced or len({one.number for one, _ in pairs if one.mixed}) >= _ENOUGH
        size = self.fitter.fit([one for one, _ in pairs], [value for _, value in pairs], extra) if enough else None
        if size is None and enough:
            self.lost.append(f"{where}: {sorted({int(value) for _, value in pairs})[:6]}")
        return UNKNOWN if size is None else size

    def _counting(self, name: str) -> list[str]:
        """Conditions for the tensor or child that bears a number, by how many there are."""
        found = _NUMBERED.fullmatch(name)
        layers = [path for path in self.teller.varying if path.endswith("layers")]
        return (
            [f"({text}{sign}{found[2]})" for text in (*self.lengths, *layers) for sign in (">=", ">")] if found else []
        )

    def _when(self, yes: Sequence[Observation], no: Sequence[Observation], where: str, more: Sequence[str] = ()) -> str:
        if not no:
            return ""
        condition = self.teller.condition(yes, no, more)
        if condition is None:
            raise Unresolved(f"{where}: there or not")
        return condition

    def _slots(self, seen: Sequence[tuple[Observation, tuple[SeenTensor, ...]]], where: str) -> list[list[Any]]:
        slots = []
        for name in in_order([[tensor.name for tensor in tensors] for _, tensors in seen]):
            there = [(at, tensor) for at, tensors in seen for tensor in tensors if tensor.name == name]
            absent = [at for at, tensors in seen if all(tensor.name != name for tensor in tensors)]
            here = f"{where}.{name}"
            if len({(len(t.shape), t.dtype, t.persistent) for _, t in there}) > 1:
                raise Unresolved(f"{here}: of several forms")
            tensor = there[0][1]
            when = self._when([at for at, _ in there], absent, here, self._counting(name))
            shape = [
                self._size([(at, t.shape[axis]) for at, t in there], f"{here}[{axis}]")
                for axis in range(len(tensor.shape))
            ]
            slots.append([name, when, shape, tensor.dtype, tensor.persistent])
        return slots

    def _children(self, glimpses: Sequence[Glimpse], where: str) -> list[list[Any]]:
        stems, children = _stems(glimpses), []
        for name in in_order([[name for name, _ in one.seen.children] for one in glimpses]):
            stem = _stem(name)
            if stem in stems:
                if name == f"{stem}0":
                    children.append(self._repeated(stem, glimpses, where))
                continue
            there = [Glimpse(child, one.at) for one in glimpses for key, child in one.seen.children if key == name]
            absent = [one.at for one in glimpses if all(key != name for key, _ in one.seen.children)]
            listing = _listing(glimpses)
            when = (
                f"has {listing} {name}"
                if listing
                else self._when([one.at for one in there], absent, f"{where}.{name}", self._counting(name))
            )
            children.append([name, when, self._options(there, f"{where}.{name}")])
        return children

    def _repeated(self, stem: str, glimpses: Sequence[Glimpse], where: str) -> list[Any]:
        here, lost, known = f"{where}.{stem}*", list(self.lost), list(self.nodes)
        lists = [(one.at, [child for name, child in one.seen.children if _stem(name) == stem]) for one in glimpses]
        try:
            child = [f"{stem}*", *self._one_list(lists, here)]
            unresolved = Unresolved(self.lost[-1]) if len(self.lost) > len(lost) else None
        except Unresolved as error:
            unresolved = error
        if unresolved is None:
            return child
        for stages, each in _staged(lists, self.teller.lists):
            self.lost, self.nodes = list(lost), list(known)
            try:
                child = [f"{stem}*", {"stages": stages, "each": each}, self._in_stages(lists, stages, each, here)]
            except Unresolved:
                continue
            if len(self.lost) == len(lost):
                return child
        raise unresolved

    def _one_list(self, lists: Sequence[tuple[Observation, Sequence[Seen]]], where: str) -> tuple[Any, list[Any]]:
        """How many there are, and what each is by its index."""
        lengths = [(at, len(alike)) for at, alike in lists]
        extra = [*self.lengths, *self.fitter.multiples(lengths, self.lengths)]
        count = self._only(lengths) or self._size(lengths, f"{where} how many", extra)
        there = [
            Glimpse(child, one._replace(place=one.place.inner(at, len(alike))))
            for one, alike in lists
            for at, child in enumerate(alike)
        ]
        return count, self._options(there, where)

    def _in_stages(
        self, lists: Sequence[tuple[Observation, Sequence[Seen]]], stages: str, each: str, where: str
    ) -> list[Any]:
        """What each is by its index in its stage, and the stage's."""
        there = []
        for one, alike in lists:
            places = _places(one, stages, each)
            there += [Glimpse(child, one._replace(place=at)) for child, at in zip(alike, places, strict=True)]
        return self._options(there, where)

    def _only(self, lengths: Sequence[tuple[Observation, int]]) -> str | None:
        """The one loop that ran as often everywhere, where no random config tells."""
        if len({one.number for one, _ in lengths if one.mixed}) >= _ENOUGH:
            return None
        fits = [text for text in self.lengths if all(self.fitter.right(text, one, size) for one, size in lengths)]
        return fits[0] if len(fits) == 1 else None

    def _options(self, glimpses: Sequence[Glimpse], where: str) -> list[list[Any]]:
        groups: dict[str, list[Glimpse]] = {}
        for one in glimpses:
            groups.setdefault(f"{one.seen.cls} {one.seen.kind} {_form(one.seen)}", []).append(one)
        if len({one.seen.cls for one in glimpses}) > 1 and (path := self._activation(glimpses)):
            return [["", self._number([ACTIVATION + path, "other", [], [], 1, 0, []])]]
        if len(groups) > 1:
            coarse: dict[str, list[Glimpse]] = {}
            for one in glimpses:
                coarse.setdefault(one.seen.cls, []).append(one)
            options = self.teller.options(_observed(coarse))
            if options is not None:
                try:
                    return [[condition, self.node(coarse[key], where)] for condition, key in options]
                except Unresolved:
                    pass
        options = self.teller.options(_observed(groups))
        if options is None:
            groups = {}  # by the names that count nothing
            for one in glimpses:
                groups.setdefault(f"{one.seen.cls} {one.seen.kind} {_form(one.seen, _NUMBERED)}", []).append(one)
            options = self.teller.options(_observed(groups))
        if options is None:
            raise Unresolved(f"{where}: which of {list(groups)}"[:200])
        return [[condition, self.node(groups[key], where)] for condition, key in options]

    def _activation(self, glimpses: Sequence[Glimpse]) -> str | None:
        """The field that names the activation."""
        if any(one.seen.parameters or one.seen.children for one in glimpses):
            return None
        for path in self.teller.varying:
            if all(self.activations.get(str(one.at.values.get(path, ""))) == one.seen.cls for one in glimpses):
                return path
        return None


def _places(one: Observation, stages: str, each: str) -> list[Place]:
    """The places of all blocks of all stages, in order. Raises Unfit."""
    count = evaluate(stages, one.lookup, one.place)
    outer = [one.place.inner(at, count) for at in range(count)]
    blocks = [evaluate(each, one.lookup, stage) for stage in outer]
    return [stage.inner(at, held) for stage, held in zip(outer, blocks, strict=True) for at in range(held)]


def _staged(lists: Sequence[tuple[Observation, Sequence[Seen]]], fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(how many stages, how many blocks each) that come to as many as there are: as a list says, or as many in each."""
    ways = [(f"{path}[]", f"{path}[#]") for path in fields]
    ways += [(f"{one}[]", f"{other}[]") for one, other in itertools.permutations(fields, 2)]
    for stages, each in ways:
        try:
            if all(len(_places(one, stages, each)) == len(alike) for one, alike in lists):
                yield stages, each
        except (Unfit, TypeError, ValueError, AttributeError):
            continue


def _listing(glimpses: Sequence[Glimpse]) -> str | None:
    """The list field whose elements the modules of a dictionary are called after."""
    if any(one.seen.cls != "ModuleDict" or not one.seen.children for one in glimpses):
        return None
    for path, value in glimpses[0].at.values.items():
        if isinstance(value, list) and all(
            sorted(name for name, _ in one.seen.children) == sorted(map(str, one.at.values.get(path) or ()))
            for one in glimpses
        ):
            return path
    return None


def _observed(groups: Mapping[str, list[Glimpse]]) -> dict[str, list[Observation]]:
    return {key: [one.at for one in group] for key, group in groups.items()}


_INDEX, _NUMBERED = re.compile(r"\d+"), re.compile(r"(.*?)(\d+)")


def _form(seen: Seen, counting: re.Pattern[str] = _INDEX) -> str:
    """What a node of its own is worth: names and dimensions of tensors, and names of children that count nothing."""
    tensors = [t for t in (*seen.parameters, *seen.buffers) if not counting.fullmatch(t.name)]
    names = [f"{t.name}{len(t.shape)}" for t in tensors]
    children = [f"{name}:{child.cls}" for name, child in seen.children if not counting.fullmatch(name)]
    return " ".join(names + children)


def _stem(name: str) -> str | None:
    found = _NUMBERED.fullmatch(name)
    return found and found[1]


def _stems(glimpses: Sequence[Glimpse]) -> set[str]:
    """The stems of names like "0" or "stage2" that count children of which there are not always as many."""
    counts: dict[str, set[int]] = {}
    broken = set()
    for one in glimpses:
        names: dict[str, list[str]] = {}
        for name, _ in one.seen.children:
            if (stem := _stem(name)) is not None:
                names.setdefault(stem, []).append(name)
        for stem in {*names, *counts}:
            counts.setdefault(stem, set()).add(len(names.get(stem, ())))
            if names.get(stem, []) != [f"{stem}{at}" for at in range(len(names.get(stem, ())))]:
                broken.add(stem)
    is_list = all(one.seen.cls in ("ModuleList", "ModuleDict") for one in glimpses)
    return {s for s, n in counts.items() if s not in broken and (len(n) > 1 or (is_list and not s and max(n) > 1))}
