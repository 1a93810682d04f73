"""PEFT's and transformers' own tables, as `python -m estimator.lora.generate` wrote them down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("peft_tables.json")


@cache
def _tables() -> Mapping[str, Any]:
    with FILE.open(encoding="utf-8") as file:
        return json.load(file)


def default_targets(peft_type: str) -> Mapping[str, list[str] | str]:
    """TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, or AdaLoRA's: model type -> names, or an expression."""
    return _tables()["default_targets"][peft_type]


def moe_pattern(model_type: str) -> str | None:
    """The MoE family by whose rules transformers 5 fuses this model type's experts, where PEFT converts names of v4."""
    return _tables()["moe_patterns"].get(model_type)


def is_converted(model_type: str) -> bool:
    """Whether transformers converts names of this model type, and PEFT those of an adapter with it."""
    return model_type in _tables()["converted"]


def moe_targets(pattern: str) -> Mapping[str, str]:
    """_MOE_TARGET_MODULE_MAPPING: names of transformers 4 -> parameters of transformers 5, in PEFT's order."""
    return _tables()["moe_targets"][pattern]


def moe_fused(pattern: str) -> Mapping[str, list[str]]:
    """_MOE_FUSED_TARGETS: parameter -> the names that it fuses."""
    return _tables()["moe_fused"][pattern]


def mamba_types() -> Mapping[str, list[str]]:
    """_check_lora_target_modules_mamba: {"model_types": ..., "modules": ...}."""
    return _tables()["mamba"]


def conv_classes() -> Mapping[str, str]:
    """Convolution classes of which PEFT cannot make lora_A and lora_B, with the reason."""
    return _tables()["conv_classes"]


def generates(cls: str) -> bool:
    """Whether a class of transformers has prepare_inputs_for_generation, which PEFT takes of it for language tasks."""
    generating = _tables()["generating"]
    if cls in generating["as_well"]:
        return True
    return cls.endswith(tuple(generating["ends"])) and cls not in generating["not"]


def containers() -> frozenset[str]:
    """Classes that are torch's lists and dicts of modules and parameters, or derived from them."""
    return frozenset(_tables()["containers"])
