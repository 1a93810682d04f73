"""What decides a run's memory beside batch and length: autocast, attention, loss and sharding, in one set of names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from estimator.notes import Note

_ZERO = re.compile(r"zero[_-]?(?:stage)?[_-]?([123])")
_SHORT_ZERO = re.compile(r"(?:^|[_-])z([123])")  # ds_z3_config.json
EVERYTHING = frozenset({"weights", "optimizer"})  # that can lie on the CPU
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


def offloads_of(values: Mapping[str, Any]) -> tuple[frozenset[str], tuple[Note, ...]]:
    """What DeepSpeed, accelerate or FSDP keep on the CPU, "weights" and "optimizer", and a word on it.

    An object says it, or a file's name: those of LLaMA-Factory and ms-swift keep the optimizer's state there with
    ZeRO-2, and with ZeRO-3 weights too. FSDP's CPUOffload keeps all (torch 2.13, fully_sharded_data_parallel.py).
    """
    said = dict(_offloads_of_zero(values)) | dict(_offloads_of_fsdp(values))
    moved = frozenset().union(*said.values())
    return moved, (offload_note(next(iter(said)), moved),) if moved else ()


def offload_note(key: str, moved: Collection[str]) -> Note:
    """A word on what the key keeps on the CPU: "weights", "optimizer" or both."""
    what = {"weights": "weights", "optimizer": "the optimizer's state"}
    words = " and ".join(word for part, word in what.items() if part in moved)
    return Note("offloaded", f"{key} keeps {words} on the CPU: only the ceiling counts them.")


def _offloads_of_zero(values: Mapping[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
    deepspeed = values.get("deepspeed")
    zero = deepspeed.get("zero_optimization") if isinstance(deepspeed, Mapping) else None
    parts = zero if isinstance(zero, Mapping) else {}
    for key, part in (("offload_param", "weights"), ("offload_optimizer", "optimizer")):
        if isinstance(parts.get(key), Mapping) and str(parts[key].get("device", "none")) != "none":
            yield key, frozenset({part})
    for key in ("deepspeed", "config_file", "accelerate_config"):
        name = values.get(key)
        if isinstance(name, str) and "offload" in name.lower():
            yield name[:200], EVERYTHING if strategy_of(name) == "zero3" else frozenset({"optimizer"})


def _offloads_of_fsdp(values: Mapping[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
    fields, said = values.get("fsdp_config"), values.get("fsdp")
    fields = fields if isinstance(fields, Mapping) else {}
    keys = [key for key in ("offload_params", "fsdp_offload_params") if str(fields.get(key)).lower() == "true"]
    keys += ["fsdp"] * ("offload" in re.findall("[a-z_]+", str(said).lower()) if said else False)
    keys += ["fsdp_cpu_offload"] * (str(values.get("fsdp_cpu_offload")).lower() == "true")
    return ((key, EVERYTHING) for key in keys)


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
