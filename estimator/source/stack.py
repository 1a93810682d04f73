"""Tensors that are alike, kept as one: the experts of a layer, the layers of a model.

A large model has a hundred thousand tensors of a few kinds, whose names differ by an index alone. What holds for one of
a stack holds for all, so that nobody has to go through them one by one.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple, Self

# A name's parts: what is before its last index, the index, what is after it; without an index, all is after it.
_NAME = re.compile(r"(?:(.*\.)([0-9]{1,9})(?=\.))?(.*)", re.DOTALL)
_BEFORE = itemgetter(0)


class Kind(NamedTuple):
    """What tensors of one kind have in common."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int


class Stack(NamedTuple):
    """Tensors of one kind in one file, in the order of their data; one that is like no other is a stack of its own."""

    before: str  # each name is before + index + after
    after: str
    indices: tuple[str, ...]
    kind: Kind
    begins: Sequence[int]  # bytes within the file's data, one for each index
    file: str = ""

    def names(self) -> list[str]:
        """The full names, in the order of the indices."""
        before, after = self.before, self.after
        return [f"{before}{index}{after}" for index in self.indices]

    @property
    def first(self) -> str:
        """The first name."""
        return f"{self.before}{self.indices[0]}{self.after}"

    @property
    def last(self) -> str:
        """The last name."""
        return f"{self.before}{self.indices[-1]}{self.after}"

    def part(self, chosen: Iterable[int]) -> Self:
        """The tensors at these places of the stack."""
        places = list(chosen)
        indices, begins = self.indices, self.begins
        return self._replace(indices=tuple([indices[at] for at in places]), begins=tuple([begins[at] for at in places]))


class Compact(NamedTuple):
    """What a whole header declares; no name is there twice."""

    stacks: tuple[Stack, ...]
    data_bytes: int  # where the last tensor ends
    metadata: Mapping[str, str]


Row = tuple[str, str, str, int]  # what is before the index, the index, the rest in the caller's words, the beginning


def gathered(rows: Iterable[Row], rests: Mapping[str, tuple[str, Kind]], file: str = "") -> tuple[Stack, ...]:
    """Stacks of tensors that are given one by one, each where its first one is.

    `rests` says what is after the index, and the kind, for each of the caller's words.
    """
    groups: dict[str, dict[str, list[Row]]] = {}
    for before, run in groupby(rows, _BEFORE):
        alike = groups.setdefault(before, {})
        for row in run:
            alike.setdefault(row[2], []).append(row)
    stacks = []
    for before, alike in groups.items():
        for rest, members in alike.items():
            _, indices, _, begins = zip(*members, strict=True)
            stacks.append(Stack(before, rests[rest][0], indices, rests[rest][1], begins, file))
    return tuple(stacks)


def parts_of(name: str) -> tuple[str, str, str]:
    """Any name as what is before its last index, the index and what is after it."""
    return _NAME.fullmatch(name).groups("")  # type: ignore[union-attr, return-value]


def same_name(stacks: Iterable[Stack]) -> tuple[str, list[Stack]] | None:
    """A name that is in these stacks twice, and the stacks that have it; None where each is there once."""
    alike: dict[tuple[str, str], list[Stack]] = {}
    for stack in stacks:
        alike.setdefault((stack.before, stack.after), []).append(stack)
    for (before, after), group in alike.items():
        if len(group) == len(group[0].indices) == 1:
            continue
        indices = [index for stack in group for index in stack.indices]
        if len(set(indices)) < len(indices):
            index = next(index for index, times in Counter(indices).items() if times > 1)
            return f"{before}{index}{after}", [stack for stack in group if index in stack.indices]
    return None
