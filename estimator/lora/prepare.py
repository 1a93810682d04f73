"""What get_peft_model makes of a config before it looks at a single module.

peft 0.21.2: PeftModelFor... (peft/peft_model.py), BaseTuner.inject_adapter, _prepare_adapter_config
(peft/tuners/tuners_utils.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from estimator.errors import InvalidLoraError
from estimator.lora.facts import default_targets
from estimator.lora.index import TreeIndex
from estimator.lora.match import (
    DUMMY_TARGET_MODULES,
    INCLUDE_LINEAR_LAYERS_SHORTHAND,
    all_linear_modules,
    minimal_targets,
)
from estimator.lora.moe import converted
from estimator.lora.ties import with_ties
from estimator.request.lora_config import LoraConfig

# Heads that PeftModelForSequenceClassification and its kin save whole; for the first alone they guard the matching.
_HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
_BEFORE_MATCHING = ("SEQ_CLS",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    config: LoraConfig  # target_modules is a set of names, an expression, or empty
    late_modules_to_save: tuple[str, ...] = ()  # heads that are saved whole, but do not guard the matching
    targets_to_tie: tuple[str, ...] = ()  # modules whose LoRA is the embedding's
    modules_to_tie: tuple[str, ...] = ()  # modules whose saved copy is the embedding's


def prepare(index: TreeIndex, config: LoraConfig) -> Prepared:
    """Raises InvalidLoraError for what PEFT refuses on the way."""
    heads = _HEADS.get(config.task_type or "", ())
    late = heads if heads and config.task_type not in _BEFORE_MATCHING else ()
    if heads and not late:
        config = replace(config, modules_to_save=(*(config.modules_to_save or ()), *heads))
    config = converted(index, config)
    config, modules_to_tie, targets_to_tie = with_ties(index, config)
    return Prepared(
        config=_targets_as_names(index, _with_default_targets(index, config)),
        late_modules_to_save=late,
        targets_to_tie=targets_to_tie,
        modules_to_tie=modules_to_tie,
    )


# Targets


def _with_default_targets(index: TreeIndex, config: LoraConfig) -> LoraConfig:
    """_prepare_adapter_config: PEFT's own table where no target is given."""
    if config.target_modules is not None:
        return config
    model_type = str(index.tree.config.get("model_type"))
    targets = default_targets(config.peft_type).get(model_type)
    if targets is None and not config.target_parameters:
        raise InvalidLoraError(
            f"PEFT has no default targets for the model type {model_type[:60]!r}.",
            where="target_modules",
            way_out="name them, or use all-linear",
        )
    return replace(config, target_modules=targets if isinstance(targets, str) else tuple(targets or ()))


def _targets_as_names(index: TreeIndex, config: LoraConfig) -> LoraConfig:
    """_maybe_include_all_linear_layers, and the fewest suffixes of a long list."""
    targets = config.target_modules
    if isinstance(targets, str):
        if targets.lower() != INCLUDE_LINEAR_LAYERS_SHORTHAND:
            return config
        targets = all_linear_modules(index, config.task_type)
    if targets == DUMMY_TARGET_MODULES:
        return config
    return replace(config, target_modules=tuple(sorted(minimal_targets(index, targets or ()))))
