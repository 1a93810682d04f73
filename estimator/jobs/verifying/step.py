"""One real training step of an adapted model, for its peak of memory. Needs torch."""

from __future__ import annotations

import contextlib
from typing import Any

from estimator.jobs.verifying.model import refused, torch_dtype
from estimator.sizes.memory.training import Training

PEAK = "peak of one training step"
_AUTOCAST = {"bf16": "BF16", "fp16": "F16"}


def train_step(model: Any, device: str, step: Training) -> dict[str, int]:
    """Bytes that torch's allocator held at most, on CUDA; {} on a CPU, where the step only has to go through.

    Forward, backward and torch's AdamW on random tokens. Raises UnsupportedError for a model that tokens alone don't
    run.
    """
    import torch

    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = torch.randint(0, vocabulary, (step.batch_size, step.sequence_length), device=device)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-4)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model.train()
    with refused("a training step on tokens failed"):
        if step.gradient_checkpointing:
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        with _autocast(device, step):
            labels = tokens if model.get_output_embeddings() is not None else tokens.new_zeros(len(tokens))
            loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        optimizer.step()
    return {PEAK: torch.cuda.max_memory_allocated()} if device == "cuda" else {}


def _autocast(device: str, step: Training) -> Any:
    import torch

    if step.mixed_precision == "no":
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=torch_dtype(_AUTOCAST[step.mixed_precision]))
