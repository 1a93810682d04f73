"""What decides a run's memory beside batch and length: autocast, attention, loss and sharding, in one set of names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from estimator.notes import Note

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


def offload_notes(values: Mapping[str, Any]) -> tuple[Note, ...]:
    """A word where DeepSpeed's config, or accelerate's, offloads: the object says it, or the file's name."""
    deepspeed = values.get("deepspeed")
    zero = deepspeed.get("zero_optimization") if isinstance(deepspeed, Mapping) else None
    parts = zero.items() if isinstance(zero, Mapping) else ()
    moved = [key for key, part in parts if str(key).startswith("offload_") and _device(part) != "none"]
    named = (values.get(key) for key in ("deepspeed", "config_file", "accelerate_config"))
    moved += [name[:200] for name in named if isinstance(name, str) and "offload" in name.lower()]
    message = "keeps weights or the optimizer's state on the CPU: a plan has them on the GPU."
    return (Note("offloaded", f"{moved[0]} {message}"),) if moved else ()


def _device(part: Any) -> str:
    return str(part.get("device", "none")) if isinstance(part, Mapping) else "none"


def attention_of(value: Any) -> str | None:
    """`attn_implementation` as transformers names it; None for auto and for kernels that no name is known of."""
    return _ATTENTION.get(str(value).lower()) if value is not None else None


def autocast_of(bf16: Any, fp16: Any = False) -> str:
    """The `mixed_precision` of the forward pass."""
    if bf16 in (True, "auto", "true", "True"):
        return "bf16"
    return "fp16" if fp16 in (True, "true", "True") else "no"


def filled_batch(limit: int | None, length: int | None, most: int | None) -> int | None:
    """Examples of a micro-batch that is filled by tokens, each of the greatest length; None where one is not known.

    Both sort examples into as many micro-batches as their tokens need (verl 0.7.0, utils/seqlen_balancing.py; OpenRLHF
    0.11.0, the same file). limit: tokens of a micro-batch on each GPU; most: examples of a step on each GPU.
    """
    if not limit or not length:
        return None
    return max(1, min(-(-limit // length), most or limit))


def tokens_note(limit: int, length: int, batch: int) -> Note:
    """What a plan makes of such micro-batches."""
    all_of_it = ", all that a step has on a GPU" if batch * length < limit else ""
    message = f"{batch:,} examples of {length:,} are planned{all_of_it}."
    return Note("filled_by_tokens", f"A micro-batch is filled with up to {limit:,} tokens: {message}")
