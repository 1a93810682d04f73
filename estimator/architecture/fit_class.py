"""One model class, seen under many configs, into nodes with formulas. Only generators import this file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from estimator.architecture.discover import Setting
from estimator.architecture.fit import Fitter, Observation, condition_for, conditions_of
from estimator.architecture.from_config import ACTIVATION
from estimator.architecture.merge import in_order
from estimator.architecture.observe import Seen, SeenTensor

UNKNOWN = "?"  # no field has this name: whoever asks for such a size is refused
_ENOUGH = 4


class Unresolved(Exception):
    """What no formula or condition explains."""


class Glimpse(NamedTuple):
    seen: Seen
    at: Observation


class Learner:
    """Learns nodes under one set of varying fields."""

    def __init__(self, varying: Sequence[str], activations: Mapping[str, str]) -> None:
        self.varying, self.activations = tuple(varying), activations
        self.fitter = Fitter(varying)
        self.nodes: list[str] = []
        self.unresolved: list[str] = []
        self.numeric: list[str] = []
        self._telling: dict[frozenset[int], bool] = {}

    def root(self, glimpses: Sequence[Glimpse]) -> None:
        """Learns the model. Raises Unresolved."""
        values = {path: {_integer(one.at.values.get(path)) for one in glimpses} - {None} for path in self.varying}
        self.numeric = [path for path, found in values.items() if len(found) > 3]
        self.node(glimpses, "")

    def node(self, glimpses: Sequence[Glimpse], where: str) -> int:
        """The number of the node that says all that was seen here. Raises Unresolved."""
        first = glimpses[0].seen
        if any(one.seen.is_open for one in glimpses):
            raise Unresolved(f"{where}: of another package")
        groups: Any = 1
        if any(one.seen.groups != 1 for one in glimpses):
            groups = self._size([(one.at, one.seen.groups) for one in glimpses], f"{where} groups")
        parameters = self._slots([(one.at, one.seen.parameters) for one in glimpses], where)
        buffers = self._slots([(one.at, one.seen.buffers) for one in glimpses], where)
        children = self._children(glimpses, where)
        parameters = [slot[:4] for slot in parameters]
        return self._number([first.cls, first.kind, parameters, buffers, groups, int(first.transposed), children])

    def _number(self, node: list[Any]) -> int:
        text = json.dumps(node, separators=(",", ":"))
        if text not in self.nodes:
            self.nodes.append(text)
        return self.nodes.index(text)

    def _size(self, pairs: Sequence[tuple[Observation, int]], where: str) -> Any:
        """A formula; UNKNOWN, which refuses, where too few random configs tell or none fits."""
        if not self._tells([one for one, _ in pairs]):
            return UNKNOWN
        size = self.fitter.fit([one for one, _ in pairs], [value for _, value in pairs])
        if size is None:
            self.unresolved.append(f"{where}: {sorted({value for _, value in pairs})[:6]}")
        return UNKNOWN if size is None else size

    def _tells(self, observed: Sequence[Observation]) -> bool:
        """Whether enough configs say it, and no number that varies elsewhere stands still in all of them."""
        configs = {id(one.values): one for one in observed}
        key = frozenset(configs)
        if key not in self._telling:
            mixed = sum(one.mixed for one in configs.values())
            values = {path: {_integer(one.values.get(path)) for one in configs.values()} for path in self._moving()}
            still = [path for path, found in values.items() if len(found) == 1 and None not in found]
            self._telling[key] = mixed >= _ENOUGH and not still
        return self._telling[key]

    def _moving(self) -> list[str]:
        return [path for path in self.numeric if not _STEPS.search(path)]

    def _when(self, yes: Sequence[Observation], no: Sequence[Observation], where: str) -> str:
        if not no:
            return ""
        condition = condition_for([one.setting for one in yes], [one.setting for one in no], self.varying)
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
            when = self._when([at for at, _ in there], absent, here)
            shape = [
                self._size([(at, t.shape[axis]) for at, t in there], f"{here}[{axis}]")
                for axis in range(len(tensor.shape))
            ]
            slots.append([name, when, shape, tensor.dtype, tensor.persistent])
        return slots

    def _children(self, glimpses: Sequence[Glimpse], where: str) -> list[list[Any]]:
        stem = _numbered(glimpses)
        if stem is not None:
            return [self._repeated(stem, glimpses, where)]
        children = []
        for name in in_order([[name for name, _ in one.seen.children] for one in glimpses]):
            there = [Glimpse(child, one.at) for one in glimpses for key, child in one.seen.children if key == name]
            absent = [one.at for one in glimpses if all(key != name for key, _ in one.seen.children)]
            when = self._when([one.at for one in there], absent, f"{where}.{name}")
            children.append([name, when, self._options(there, f"{where}.{name}")])
        return children

    def _repeated(self, stem: str, glimpses: Sequence[Glimpse], where: str) -> list[Any]:
        count = self._size([(one.at, len(one.seen.children)) for one in glimpses], f"{where}.* how many")
        there = []
        for one in glimpses:
            total = len(one.seen.children)
            for at, (name, child) in enumerate(one.seen.children):
                if name != f"{stem}{at}":
                    raise Unresolved(f"{where}.{name}: not in order")
                setting = one.at.setting
                place = setting.place.inner(at, total)
                at_place = Observation(one.at.values, setting._replace(place=place), one.at.mixed)
                there.append(Glimpse(child, at_place))
        return [f"{stem}*", count, self._options(there, f"{where}.*")]

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
            options = conditions_of(_settings(coarse), self.varying)
            if options is not None:
                try:
                    return [[condition, self.node(coarse[key], where)] for condition, key in options]
                except Unresolved:
                    pass
        options = conditions_of(_settings(groups), self.varying)
        if options is None:
            raise Unresolved(f"{where}: which of {list(groups)}"[:200])
        return [[condition, self.node(groups[key], where)] for condition, key in options]

    def _activation(self, glimpses: Sequence[Glimpse]) -> str | None:
        if any(one.seen.parameters or one.seen.children for one in glimpses):
            return None
        for path in sorted(self.varying, key=lambda path: (path.count("."), len(path))):
            if all(self.activations.get(one.at.setting.fields.get(path, "")) == one.seen.cls for one in glimpses):
                return path
        return None


_STEPS = re.compile(r"step|period|offset|freq|interval|pattern|every|token|first_k")


def _integer(value: Any) -> int | None:
    return value if type(value) is int else None


def _settings(groups: Mapping[str, list[Glimpse]]) -> dict[str, list[Setting]]:
    return {key: [one.at.setting for one in group] for key, group in groups.items()}


def _form(seen: Seen) -> str:
    """What a node of its own is worth: names and dimensions of tensors, and names of children that are no indices."""
    names = [f"{t.name}{len(t.shape)}" for t in (*seen.parameters, *seen.buffers)]
    return " ".join(names + [f"{name}:{child.cls}" for name, child in seen.children if not name.isdigit()])


_NUMBERED = re.compile(r"(.*?)(\d+)")


def _numbered(glimpses: Sequence[Glimpse]) -> str | None:
    """The stem of names like "0" or "stage2" where children are a list of alike ones; None else."""
    every = [[name for name, _ in one.seen.children] for one in glimpses]
    names = {name for names in every for name in names}
    found = {match[1] for name in names if (match := _NUMBERED.fullmatch(name))}
    if len(found) != 1 or not all(_NUMBERED.fullmatch(name) for name in names):
        return None
    stem = found.pop()
    counts = {len(names) for names in every}
    if any(names != [f"{stem}{at}" for at in range(len(names))] for names in every):
        return None
    is_list = all(one.seen.cls in ("ModuleList", "ModuleDict") for one in glimpses)
    if not stem and (len(counts) > 1 or (is_list and len(names) > 1)):
        return stem
    return stem if stem and is_list and len(counts) > 1 else None
