"""What a module's name means in most model families: the kind behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from estimator.architecture.structure import Structure

_FAMILIES = 3  # a name that fewer have says nothing
_SHARE = 0.75
Votes = dict[str, str]  # of one model type: "q_proj:2" (a name and the weight's dimensions) -> kind


def meanings(structures: Mapping[str, Sequence[Structure]]) -> dict[str, str | list[str]]:
    """ "q_proj:2" (a name, or its parent's and its own, and the weight's dimensions) -> kind, by vote of model types.

    Names whose kind is what another entry says are left out. "buffers": names of saved tensors that are no parameters.
    """
    return decided([votes(roots) for roots in structures.values()])


def votes(roots: Sequence[Structure]) -> tuple[Votes, Votes]:
    """What one model type's names mean to it: kinds of modules; "buffer" or "parameter" of saved tensors."""
    kinds: dict[str, Counter[str]] = {}
    tensors: dict[str, Counter[str]] = {}
    for root in roots:
        for parent, name, structure in _below(root, "", ""):
            weight = next((slot for slot in structure.parameters if slot.name == "weight" and slot.dimensions), None)
            if weight is not None and name and not name.isdigit() and name != "*":
                for key in (f"{name}:{weight.dimensions}", f"{parent}.{name}:{weight.dimensions}"):
                    kinds.setdefault(key, Counter())[structure.kind] += 1
            for what, slots in (("parameter", structure.parameters), ("buffer", structure.buffers)):
                for slot in slots:
                    if slot.saved and not slot.name.isdigit():
                        for key in (slot.name, f"{name}.{slot.name}"):
                            tensors.setdefault(key, Counter())[what] += 1
    return _commonest(kinds), _commonest(tensors)


def decided(ballots: Sequence[tuple[Votes, Votes]]) -> dict[str, str | list[str]]:
    """What most model types say."""
    kinds = _elected([ballot for ballot, _ in ballots], _FAMILIES)
    said = {key: kind for key, kind in sorted(kinds.items()) if not _follows(key, kind, kinds)}
    tensors = _elected([ballot for _, ballot in ballots], 1)
    buffers = [key for key, what in sorted(tensors.items()) if what == "buffer" and not _follows(key, what, tensors)]
    return {**said, "buffers": buffers}


def _commonest(counts: Mapping[str, Counter[str]]) -> Votes:
    return {key: count.most_common(1)[0][0] for key, count in counts.items()}


def _elected(ballots: Sequence[Votes], least: int) -> Votes:
    """What a large majority says, where at least so many say anything."""
    counts: dict[str, Counter[str]] = {}
    for ballot in ballots:
        for key, value in ballot.items():
            counts.setdefault(key, Counter())[value] += 1
    return {
        key: value
        for key, count in counts.items()
        for value, number in count.most_common(1)
        if count.total() >= least and number / count.total() >= _SHARE
    }


def _follows(key: str, value: str, elected: Votes) -> bool:
    """Whether a longer name says only what the short one says."""
    _, dot, short = key.rpartition(".")
    return bool(dot) and elected.get(short) == value


def _below(structure: Structure, parent: str, name: str) -> Iterator[tuple[str, str, Structure]]:
    """(parent's name, own name, structure) of all that stands below, itself included."""
    yield parent, name, structure
    for child in structure.children:
        for _, option in child.options:
            yield from _below(option, name, child.name)
