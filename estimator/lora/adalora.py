"""AdaLoRA's own fields, and what it refuses before it has seen a model.

peft 0.21.2: AdaLoraConfig.__post_init__ (peft/tuners/adalora/config.py), RankAllocator.__init__ and set_total_step
(peft/tuners/adalora/layer.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator.errors import InvalidLoraError
from estimator.request.lora_config import LoraConfig

_DEFAULTS: Mapping[str, Any] = {
    "target_r": 8, "init_r": 12, "tinit": 0, "tfinal": 0, "deltaT": 1, "beta1": 0.85, "beta2": 0.85,
    "orth_reg_weight": 0.5, "total_step": None,
}  # fmt: skip


def adalora_fields(config: LoraConfig) -> dict[str, Any]:
    """The fields that AdaLoraConfig has beside LoraConfig's."""
    return {name: config.unknown.get(name, default) for name, default in _DEFAULTS.items()}


def check_adalora(config: LoraConfig) -> None:
    """Raises InvalidLoraError for what PEFT refuses."""
    fields = adalora_fields(config)
    for name, default in _DEFAULTS.items():
        if not isinstance(fields[name], (int, float, type(default))):
            shown = str(fields[name])[:60]
            raise InvalidLoraError(f"{name} is {shown!r}.", where=name, way_out="give a number")
    for broken, what, where, way_out in _checks(config, fields):
        if broken:
            raise InvalidLoraError(what, where=where, way_out=way_out)
    if fields["tinit"] >= fields["total_step"] - fields["tfinal"]:
        raise InvalidLoraError(
            "tinit and tfinal leave no step in which AdaLoRA could give up ranks.",
            where="total_step",
            way_out="decrease tinit or tfinal, or increase total_step",
        )


def _checks(config: LoraConfig, fields: Mapping[str, Any]) -> tuple[tuple[bool, str, str, str], ...]:
    steps, weight = fields["total_step"], fields["orth_reg_weight"]
    betas = (
        (not 0 < fields[name] < 1, f"{name} is {str(fields[name])[:40]}.", name, "between 0 and 1, neither of them")
        for name in ("beta1", "beta2")
    )
    return (
        (bool(config.use_dora), "AdaLoRA does not support DoRA.", "use_dora", "leave it out"),
        (bool(config.loftq_config), "AdaLoRA does not support LoftQ.", "loftq_config", "leave it out"),
        (not isinstance(steps, int) or steps <= 0, "AdaLoRA needs total_step, a positive number of training steps.",
         "total_step", "give total_step"),
        (weight < 0, "orth_reg_weight is negative.", "orth_reg_weight", "give 0 or more"),
        *betas,
    )  # fmt: skip
