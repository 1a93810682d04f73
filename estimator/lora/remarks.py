"""Where PEFT is silent and the reader should not be: what matched nothing, what stays frozen, what is saved along."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from estimator.dtypes import BITS
from estimator.lora.save import Injected, SavedTensor
from estimator.notes import Note
from estimator.request.lora_config import LoraConfig


def remarks(
    injected: Injected, config: LoraConfig, tensors: Sequence[SavedTensor], save_error: str | None
) -> tuple[Note, ...]:
    """Notes on an adapter that PEFT accepts."""
    found = [
        _unmatched(injected, config),
        _frozen_experts(injected),
        _embeddings(tensors),
        _unknown(config),
        Note("save_fails", f"PEFT counts this adapter but fails to save it: {save_error}.") if save_error else None,
        Note("inference_mode", "inference_mode is true: PEFT freezes the adapter, so that nothing of it trains.")
        if config.inference_mode
        else None,
    ]
    return tuple(note for note in found if note is not None)


def _unmatched(injected: Injected, config: LoraConfig) -> Note | None:
    targets = config.target_modules
    if isinstance(targets, str) or not targets:
        return None
    moe = {name.rpartition(".")[2] for name in injected.config.target_parameters or ()}
    missing = [target for target in targets if not injected.index.with_suffix(target)]
    if moe and not config.target_parameters:  # names of transformers 4 that became parameters
        missing = [target for target in missing if target in (injected.config.target_modules or ())]
    if not missing:
        return None
    shown = ", ".join(missing[:10])
    return Note("unmatched_targets", f"{len(missing)} of {len(targets)} target names match no module: {shown}.")


def _frozen_experts(injected: Injected) -> Note | None:
    adapted = {layer.module for layer in injected.layers}
    experts = [
        module
        for module in injected.index.tree.modules
        if module.kind == "other" and any(len(parameter.shape) == 3 for parameter in module.parameters)
    ]
    if not experts or adapted & {module.name for module in experts}:
        return None
    names = ", ".join(parameter.name for parameter in experts[0].parameters if len(parameter.shape) == 3)
    last = experts[0].name.rpartition(".")[2]
    return Note("frozen_experts", f"The experts ({last}: {names}) are fused parameters and stay frozen; target_parameters adapts them.")


def _embeddings(tensors: Sequence[SavedTensor]) -> Note | None:
    size = sum(prod(t.shape) * BITS[t.dtype] // 8 for t in tensors if t.part == "embeddings")
    if not size:
        return None
    return Note(
        "embeddings_saved",
        f"Embeddings are saved along ({size:,} bytes): they are targeted, or the vocabulary was resized; "
        "save_embedding_layers=no leaves them out.",
    )


def _unknown(config: LoraConfig) -> Note | None:
    if not config.unknown:
        return None
    return Note("unknown_fields", f"PEFT 0.21.2 does not know {', '.join(sorted(map(str, config.unknown)))[:200]}.")
