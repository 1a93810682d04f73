"""Which parameters share their values once transformers has loaded the checkpoint.

Rule's source: transformers 5.23.0, `PreTrainedModel.tie_weights`: where both are stored, only equal values are tied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import prod

from estimator.architecture.conditions import Lookup, Place, holds
from estimator.architecture.facts import ClassFacts
from estimator.architecture.fresh import matched
from estimator.architecture.grow import Grown
from estimator.architecture.load import Load, Loaded
from estimator.checkpoint.checkpoint import CheckedFile, Checkpoint, Tensor
from estimator.notes import Note

_BLOCK = 1 << 20


def resolve_ties(
    facts: ClassFacts, loaded: Load, grown: Grown, lookup: Lookup, checkpoint: Checkpoint
) -> tuple[dict[str, str], list[Note]]:
    """Full parameter name -> the one that it shares, and a note where equality had to be assumed."""
    shapes = {f"{m.name}.{p.name}".lstrip("."): p.shape for m in grown.modules for p in m.parameters}
    tied, assumed = {}, []
    for target, source in _pairs(facts, lookup, shapes, loaded.parameters):
        both = loaded.parameters.get(target), loaded.parameters.get(source)
        equal = _equal(*both, checkpoint) if None not in both else True
        if equal is None:
            assumed.append(target)
        if equal is not False:
            tied[target] = source
    return tied, _note(assumed, shapes)


def _pairs(
    facts: ClassFacts, lookup: Lookup, shapes: dict[str, tuple[int, ...]], stored: Mapping[str, Loaded]
) -> Iterator[tuple[str, str]]:
    for target, source, condition in facts.ties:
        if not holds(condition, lookup, Place()):
            continue
        if "%" in source:
            yield from _in_turn(target, shapes, stored)
            continue
        names = [target] if "*" not in target else shapes
        for name in names:
            partner = matched(name, target, source)
            if partner in shapes and name in shapes and partner != name:
                yield name, partner


def _in_turn(
    target: str, shapes: dict[str, tuple[int, ...]], stored: Mapping[str, Loaded]
) -> Iterator[tuple[str, str]]:
    """Layers that share weights in turn: those that the file lacks with those that it holds, a, b, a, b, ..."""
    groups: dict[str, list[str]] = {}
    for name in shapes:
        if matched(name, target, target) is not None:
            inner = re.sub(r"\.\d+\.", ".*.", name, count=1)
            groups.setdefault(inner, []).append(name)
    for names in groups.values():
        held = [name for name in names if name in stored]
        for at, name in enumerate(names):
            if name not in stored and held:
                yield name, held[at % len(held)]


def _equal(one: Loaded, other: Loaded, checkpoint: Checkpoint) -> bool | None:
    """Whether the values are the same; None where the files are not at hand."""
    if one.tensors == other.tensors:
        return True
    if one.shape != other.shape or one.dtype != other.dtype or len(one.tensors) != 1 or len(other.tensors) != 1:
        return False
    places = [_place(checkpoint.tensors[loaded.tensors[0]], checkpoint) for loaded in (one, other)]
    if None in places:
        return None
    return _same_bytes(*places)


def _place(tensor: Tensor, checkpoint: Checkpoint) -> tuple[str, int, int] | None:
    file: CheckedFile | None = next((file for file in checkpoint.files if file.path == tensor.file), None)
    if file is None or file.local_path is None or file.data_start is None:
        return None
    begin, end = tensor.offsets
    return file.local_path, file.data_start + begin, end - begin


def _same_bytes(one: tuple[str, int, int], other: tuple[str, int, int]) -> bool | None:
    try:
        with open(one[0], "rb") as first, open(other[0], "rb") as second:
            first.seek(one[1])
            second.seek(other[1])
            for done in range(0, one[2], _BLOCK):
                size = min(_BLOCK, one[2] - done)
                if first.read(size) != second.read(size):
                    return False
    except OSError:
        return None
    return True


def _note(assumed: list[str], shapes: dict[str, tuple[int, ...]]) -> list[Note]:
    if not assumed:
        return []
    extra = sum(prod(shapes[name]) for name in assumed)
    message = (
        f"{', '.join(assumed)} is stored and tied by the class: taken as tied, since the values could not be compared. "
        f"If they differ, the base has {extra:,} parameters more."
    )
    return [Note("ties_assumed", message)]
