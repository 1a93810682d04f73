"""Notes where PEFT is silent."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from estimator.dtypes import BITS
from estimator.notes import Note
from estimator.request.lora_config import LoraConfig

_SHOWN = 12
_PREPARED = {"corda": "preprocess_corda", "eva": "initialize_lora_eva_weights", "lora_ga": "preprocess_loraga"}


def remarks(
    asked: LoraConfig, request: Any, injection: Any, tensors: Sequence[Any], save_error: str | None
) -> tuple[Note, ...]:
    """What the reader must know beside the numbers."""
    notes = [
        *_unmatched_names(asked, request),
        *_experts(asked, request, injection),
        *_embeddings(tensors),
        *_initialisation(asked),
        *_unknown(asked),
    ]
    if save_error is not None:
        notes.append(Note("saving_fails", f"PEFT trains this but cannot save it: {save_error}"))
    return tuple(notes)


def _unmatched_names(asked: LoraConfig, request: Any) -> list[Note]:
    targets = asked.target_modules
    if targets is None or isinstance(targets, str):
        return []
    kept = set(request.config.target_modules or ()) if not isinstance(request.config.target_modules, str) else set()
    missing = [
        name
        for name in dict.fromkeys(targets)
        if not request.index.with_suffix(name) and (name in kept or len(kept) >= 20)
    ]
    if not missing:
        return []
    names = ", ".join(name[:60] for name in missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
    return [
        Note(
            "targets_not_found",
            f"{len(missing)} of {len(set(targets))} names in target_modules match no module: {names}.",
        )
    ]


def _experts(asked: LoraConfig, request: Any, injection: Any) -> list[Note]:
    if asked.target_parameters is None and request.config.target_parameters:
        return [
            Note(
                "experts_by_release",
                "Experts are fused parameters in transformers 5, so PEFT adapts them with the rank doubled on fused "
                "ones; with transformers 4 the same names give another count.",
            )
        ]
    adapted = {layer.module for layer in injection.layers}
    frozen = [
        module.name
        for module in request.index.tree.modules
        if module.name not in adapted and module.kind == "other" and any(len(p.shape) == 3 for p in module.parameters)
    ]
    if not frozen:
        return []
    return [
        Note(
            "experts_frozen",
            f"{len(frozen)} modules hold fused experts as parameters, such as {frozen[0]}; they stay frozen.",
        )
    ]


def _embeddings(tensors: Sequence[Any]) -> list[Note]:
    kept = [tensor for tensor in tensors if tensor.part == "embeddings"]
    if not kept:
        return []
    size = sum(prod(tensor.shape) * BITS[tensor.dtype] // 8 for tensor in kept)
    return [
        Note("embeddings_saved", f"PEFT saves the embeddings along: {len(kept)} tensors, {size:,} bytes of the file.")
    ]


def _initialisation(asked: LoraConfig) -> list[Note]:
    first = next((step for name, step in _PREPARED.items() if str(asked.init_lora_weights).startswith(name)), None)
    if first is None:
        return []
    return [
        Note(
            "init_needs_data",
            f"init_lora_weights={asked.init_lora_weights} needs {first} with data; EVA may then move ranks.",
        )
    ]


def _unknown(asked: LoraConfig) -> list[Note]:
    if not asked.unknown or asked.peft_type == "ADALORA":
        return []
    names = ", ".join(sorted(map(str, asked.unknown)))[:200]
    return [Note("unknown_fields", f"PEFT 0.21.2 does not know these fields and ignores them: {names}.")]
