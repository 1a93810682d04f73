"""One real training step of an adapted model, for its peak of memory. Needs torch."""

from __future__ import annotations

from typing import Any

from estimator.jobs.verify_model import refused

BATCH, TOKENS = 1, 512


def train_step(model: Any, device: str) -> dict[str, int]:
    """Bytes that torch's allocator held at most, on CUDA; {} on a CPU, where the step only has to go through.

    Forward, backward and AdamW on random tokens. Raises UnsupportedError for a model that tokens alone don't run.
    """
    import torch

    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = torch.randint(0, vocabulary, (BATCH, min(TOKENS, _longest(model))), device=device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model.train()
    with refused("a training step on tokens failed"):
        labels = tokens if _labels_are_tokens(model) else tokens.new_zeros(BATCH)
        model(input_ids=tokens, labels=labels).loss.backward()
        optimizer.step()
    return {"peak of one training step": torch.cuda.max_memory_allocated()} if device == "cuda" else {}


def _longest(model: Any) -> int:
    return getattr(model.config, "max_position_embeddings", None) or TOKENS


def _labels_are_tokens(model: Any) -> bool:
    return model.get_output_embeddings() is not None
