"""What a trainer freezes by name, or casts, once the adapter is made.

axolotl 0.18.0: train.py, utils/freeze.py; NeMo Automodel of August 2026: components/utils/model_utils.py,
apply_parameter_freezing; AutoTrain 0.8.37.dev0: trainers/vlm/utils.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from estimator.errors import InvalidLoraError
from estimator.lora.outcome import BASE, Outcome
from estimator.lora.runtime import Leaf, Node, named_modules
from estimator.notes import Note
from estimator.request.patterns import Pattern, matching
from estimator.request.training_config import Freezing

Rows = tuple[int, int | None]  # from the first to behind the last; None: all that follow

WHERE = "unfrozen_parameters"
_OF_LORA = ("lora", "dora")  # their dtype is the adapter's
_RANGE = re.compile(r"(.+)\[([0-9]*)(?::([0-9]*))?\]")
_ALL_FROZEN = "The trainer freezes by name all that is adapted, once the adapter is made. Nothing trains."
_NONE_UNFROZEN = (
    "All is frozen by name once the adapter is made, LoRA included: by then all names begin with base_model.model, and "
    "no pattern of unfrozen_parameters matches one. Nothing trains. Leave it out."
)


def freeze(model: Node, freezing: Freezing) -> int:
    """Axolotl's freeze_layers_except first, then what freezes parts, on the names of PeftModel.named_parameters(); at
    last what still trains is cast.

    The parameters that trained before and are frozen now.

    Raises InvalidLoraError for a pattern that is faulty, for rows that a weight has not, and for a packed weight, which
    can't train.
    """
    leaves = _named_parameters(model)
    trained = [leaf for leaf in leaves.values() if leaf.trainable]
    if freezing.unfrozen is not None:
        wanted = _wanted(freezing.unfrozen, leaves)
        for name, leaf in leaves.items():
            _set(leaf, name, name in wanted)
    for name, leaf in leaves.items():
        module = name.rpartition(".")[0].lower()
        if not set(freezing.parts).isdisjoint(name.split(".")) or any(part in module for part in freezing.within):
            leaf.trainable = False
    for leaf in leaves.values():
        if freezing.dtype is not None and leaf.trainable and leaf.part not in _OF_LORA:
            leaf.dtype = freezing.dtype
    return sum(leaf.elements for leaf in trained if not leaf.trainable)


def notes_on(freezing: Freezing, done: Outcome) -> Iterator[Note]:
    """What the reader must know of what is left."""
    if not sum(done.trained.values()):
        yield Note("nothing_trains", _ALL_FROZEN if freezing.unfrozen is None else _NONE_UNFROZEN)
        return
    if base := done.trained.get(BASE, 0):
        message = f"{base:,} parameters of the base train as well: save_pretrained writes none of them."
        yield Note("base_trains", message)
    if done.frozen:
        message = f"{done.frozen:,} parameters of the adapter are frozen and saved all the same."
        yield Note("frozen_saved", message)


def _named_parameters(model: Node) -> dict[str, Leaf]:
    """Each once, under its first name."""
    seen: set[int] = set()
    found = {}
    for module, node in named_modules(model):
        for own, leaf in node.leaves.items():
            if leaf.parameter and id(leaf) not in seen:
                seen.add(id(leaf))
                found[f"{module}.{own}"] = leaf
    return found


def _set(leaf: Leaf, name: str, trainable: bool) -> None:
    if trainable and not leaf.dtype.startswith(("F", "BF")):
        what = f"{WHERE} matches {name}, which is packed: only floating-point weights can train."
        raise InvalidLoraError(what, where=WHERE, way_out="match names of LoRA alone, such as .+lora_")
    if trainable and leaf.part == "bias":  # how base_model() marks all of the base's own
        leaf.part = BASE
    leaf.trainable = trainable


def _wanted(unfrozen: Sequence[str], leaves: Mapping[str, Leaf]) -> set[str]:
    """The names that a pattern matches, each with the rows that it asks for."""
    patterns, rows = zip(*map(_pattern, unfrozen), strict=True)
    wanted: set[str] = set()
    for given, asked, taken in zip(unfrozen, rows, matching(patterns, [*leaves], where=WHERE), strict=True):
        for name in taken if asked is not None else ():
            _refuse_missing_rows(given, asked, name, leaves[name].shape)
        wanted.update(taken)
    return wanted


def _pattern(given: str) -> tuple[Pattern, Rows | None]:
    """LayerNamePattern: `[3]`, `[:8]`, `[4:8]`, `[4:]` at the end are rows (all of the weight trains all the same);
    every dot but `.+` is put behind a backslash."""
    match = _RANGE.fullmatch(given)
    pattern = Pattern(re.sub(r"\.(?!\+)", r"\\.", match[1] if match else given), given)
    if match is None:
        return pattern, None
    start = int(match[2] or 0)
    if match[2] and match[3] is None:
        return pattern, (start, start + 1)
    end = int(match[3]) if match[3] else None
    if end is not None and start >= end:
        what = f"{given[:200]!r} is an empty range."
        raise InvalidLoraError(what, where=WHERE, way_out="let it end behind its start")
    return pattern, (start, end)


def _refuse_missing_rows(given: str, rows: Rows, name: str, shape: Sequence[int]) -> None:
    """Raises InvalidLoraError where _merge_ranges does: for no rows, and for rows behind the weight's last."""
    held = shape[0] if shape else 0
    start, end = rows[0], held if rows[1] is None else rows[1]
    if start >= end or end > held:
        what = f"{given[:200]!r} asks for rows {start} to {end} of {name}, which has {held:,}."
        raise InvalidLoraError(what, where=WHERE, way_out="give a range within it, or leave it out")
