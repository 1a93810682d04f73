"""What a trainer freezes by name once the adapter is made.

axolotl 0.18.0: train.py, utils/freeze.py; NeMo Automodel of August 2026: components/utils/model_utils.py,
apply_parameter_freezing; AutoTrain 0.8.37.dev0: trainers/vlm/utils.py.
"""

from __future__ import annotations

import re

from estimator.errors import InvalidLoraError
from estimator.lora.runtime import Leaf, Node, named_modules
from estimator.notes import Note
from estimator.request.patterns import Pattern, matching
from estimator.request.training_config import Freezing

WHERE = "unfrozen_parameters"
_RANGE = re.compile(r"(.+)\[([0-9]*)(?::([0-9]*))?\]")
_NOTHING_TRAINS = (
    "All is frozen by name once the adapter is made, LoRA included: by then all names begin with base_model.model, and "
    "no pattern of unfrozen_parameters matches one. Nothing trains. Leave it out."
)


def freeze(model: Node, freezing: Freezing) -> None:
    """Axolotl's freeze_layers_except first, then what freezes parts, on the names of PeftModel.named_parameters().

    Raises InvalidLoraError for a pattern that is faulty and for a packed weight, which can't train.
    """
    leaves = _named_parameters(model)
    if freezing.unfrozen is not None:
        wanted = _matched([*map(_pattern, freezing.unfrozen)], list(leaves))
        for name, leaf in leaves.items():
            _set(leaf, name, name in wanted)
    for name, leaf in leaves.items():
        module = name.rpartition(".")[0].lower()
        if not set(freezing.parts).isdisjoint(name.split(".")) or any(part in module for part in freezing.within):
            leaf.trainable = False


def notes_on(trained: dict[str, int]) -> tuple[Note, ...]:
    """What the reader must know of what is left. trained: parameters by the part of the file."""
    if not sum(trained.values()):
        return (Note("nothing_trains", _NOTHING_TRAINS),)
    if base := trained.get("base", 0):
        message = f"{base:,} parameters of the base train as well: save_pretrained writes none of them."
        return (Note("base_trains", message),)
    return ()


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
        leaf.part = "base"
    leaf.trainable = trainable


def _pattern(given: str) -> Pattern:
    """LayerNamePattern: `[3]`, `[:8]`, `[4:8]` at the end are rows (all of the weight trains all the same); every dot
    but `.+` is put behind a backslash."""
    match = _RANGE.fullmatch(given)
    if match is not None and match[3] and int(match[2] or 0) >= int(match[3]):
        raise InvalidLoraError(
            f"{given[:200]!r} is an empty range.", where=WHERE, way_out="let it end behind its start"
        )
    return Pattern(re.sub(r"\.(?!\+)", r"\\.", match[1] if match else given), given)


def _matched(patterns: list[Pattern], names: list[str]) -> set[str]:
    return {name for taken in matching(patterns, names, where=WHERE) for name in taken}
