"""What decides a run's memory beside batch and length: autocast, attention, loss and sharding, in one set of names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_ZERO = re.compile(r"zero[_-]?(?:stage)?[_-]?([123])")
_SHORT_ZERO = re.compile(r"(?:^|[_-])z([123])")  # ds_z3_config.json
_ATTENTION = {
    "eager": "eager",
    "disabled": "eager",
    "sdpa": "sdpa",
    "fa2": "flash_attention_2",
    "flash_attn": "flash_attention_2",
    "flash_attention_2": "flash_attention_2",
    "flash_attention": "flash_attention_2",
}


def strategy_of(deepspeed: Any, fsdp: Any = None) -> str | None:
    """How the model is sharded: "zero1" to "zero3" or "fsdp"; None where nothing is said.

    deepspeed: a path, a short name, or the object itself; fsdp: what is given for it, nothing being false.
    """
    if isinstance(deepspeed, Mapping):
        stage = (deepspeed.get("zero_optimization") or {}).get("stage")
        return f"zero{stage}" if stage in (1, 2, 3) else None
    said = str(deepspeed or "").lower()
    match = _ZERO.search(said) or _SHORT_ZERO.search(said.rpartition("/")[2])
    if match:
        return f"zero{match[1]}"
    return "fsdp" if fsdp else None


def attention_of(value: Any) -> str | None:
    """`attn_implementation` as transformers names it; None for auto and for kernels that no name is known of."""
    return _ATTENTION.get(str(value).lower()) if value is not None else None


def autocast_of(bf16: Any, fp16: Any = False) -> str:
    """The `mixed_precision` of the forward pass."""
    if bf16 in (True, "auto", "true", "True"):
        return "bf16"
    return "fp16" if fp16 in (True, "true", "True") else "no"
