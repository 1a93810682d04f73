"""Which parameters share their values once transformers has loaded the checkpoint.

Rule's source: transformers 5.23.0, `PreTrainedModel.tie_weights`: where both are stored, only equal values are tied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import prod

from estimator.architecture.conditions import Lookup, Place, holds
from estimator.architecture.facts import ClassFacts
from estimator.architecture.grow import Grown
from estimator.architecture.load import Load, Loaded
from estimator.architecture.module import parameter_shapes
from estimator.architecture.tie_names import matched
from estimator.checkpoint.checkpoint import CheckedFile, Checkpoint, Tensor
from estimator.notes import Note

_BLOCK = 1 << 20


def resolve_ties(
    facts: ClassFacts, loaded: Load, grown: Grown, lookup: Lookup, checkpoint: Checkpoint
) -> tuple[dict[str, str], list[Note]]:
    """Full parameter name -> the one that it shares, and a note where equality had to be assumed."""
    shapes = parameter_shapes(grown.modules)
    tied, assumed = {}, []
    for target, source in _pairs(facts, lookup, shapes, grown.in_turn):
        one, other = loaded.parameters.get(target), loaded.parameters.get(source)
        equal = _equal(one, other, checkpoint) if one is not None and other is not None else True
        if equal is None:
            assumed.append(target)
        if equal is not False:
            tied[target] = source
    return tied, _note(assumed, shapes)


def filled_by_ties(tied: Mapping[str, str], held: Collection[str]) -> set[str]:
    """The parameters that take another's values, of any that is stored: a head's, where the embedding is not."""
    return {*tied, *(source for target, source in tied.items() if target in held)}


def _pairs(
    facts: ClassFacts, lookup: Lookup, shapes: dict[str, tuple[int, ...]], in_turn: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    said = [tie[:2] for tie in facts.ties if "%" not in tie[1] and holds(tie[2], lookup, Place())]
    for target, source in (*said, *in_turn):
        for name in [target] if target in shapes else shapes:
            partner = matched(name, target, source)
            if partner is not None and partner in shapes and name in shapes and partner != name:
                yield name, partner


def _equal(one: Loaded, other: Loaded, checkpoint: Checkpoint) -> bool | None:
    """Whether the values are the same; None where the files are not at hand."""
    if one.tensors == other.tensors:
        return True
    if one.shape != other.shape or one.dtype != other.dtype or len(one.tensors) != 1 or len(other.tensors) != 1:
        return False
    here, there = (_place(checkpoint.tensors[loaded.tensors[0]], checkpoint) for loaded in (one, other))
    return None if here is None or there is None else _same_bytes(here, there)


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
