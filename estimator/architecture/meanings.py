"""What a module's name means in most model families: the kind behind it. Only generators import this file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from estimator.architecture.structure import Structure

_FAMILIES = 3  # a name that fewer have says nothing
_SHARE = 0.75


def meanings(structures: Mapping[str, Sequence[Structure]]) -> dict[str, str]:
    """ "q_proj:2" (a name, or its parent's and its own, and the weight's dimensions) -> kind, by vote of model types.

    Names whose kind is what the dimensions alone suggest are left out.
    """
    votes: dict[str, Counter[str]] = {}
    for roots in structures.values():
        mine: dict[str, Counter[str]] = {}
        for root in roots:
            for parent, name, dimensions, kind in _weights(root, ""):
                for key in (f"{name}:{dimensions}", f"{parent}.{name}:{dimensions}"):
                    mine.setdefault(key, Counter())[kind] += 1
        for key, counts in mine.items():
            votes.setdefault(key, Counter())[counts.most_common(1)[0][0]] += 1
    decided = {key: _decided(counts) for key, counts in votes.items()}
    said = {key: kind for key, kind in sorted(decided.items()) if kind and not _follows(key, kind, decided)}
    return {**said, "buffers": _buffers(structures)}


def _buffers(structures: Mapping[str, Sequence[Structure]]) -> list[str]:
    """Names of saved tensors that are buffers, not parameters, wherever they stand."""
    votes: dict[bool, set[str]] = {True: set(), False: set()}
    for roots in structures.values():
        for root in roots:
            for structure in _below(root):
                votes[True].update(slot.name for slot in structure.buffers if slot.saved)
                votes[False].update(slot.name for slot in structure.parameters)
    return sorted(name for name in votes[True] - votes[False] if not name.isdigit())


def _below(structure: Structure) -> Iterator[Structure]:
    yield structure
    for child in structure.children:
        for _, option in child.options:
            yield from _below(option)


def _decided(counts: Counter[str]) -> str | None:
    kind, number = counts.most_common(1)[0]
    total = counts.total()
    return kind if total >= _FAMILIES and number / total >= _SHARE else None


def _follows(key: str, kind: str, decided: Mapping[str, str | None]) -> bool:
    """Whether a longer name says only what the short one says."""
    parent, dot, short = key.rpartition(".")
    return bool(dot and parent) and decided.get(short) == kind


def _weights(structure: Structure, name: str) -> Iterator[tuple[str, str, int, str]]:
    for child in structure.children:
        for _, option in child.options:
            weight = next((slot for slot in option.parameters if slot.name == "weight" and slot.dimensions), None)
            if weight is not None and not child.name.isdigit() and child.name != "*":
                yield name, child.name, weight.dimensions, option.kind
            yield from _weights(option, child.name)
