"""Bounds of a run's time and money, from its operations and a GPU's peak; bounds, not an estimate."""

from __future__ import annotations

from typing import Any

from estimator.report.answer import Answer
from estimator.sizes.memory.flops import training_flops
from estimator.sizes.memory.gpus import find_gpu
from estimator.sizes.memory.shape import shape_of
from estimator.sizes.memory.training import Training

# Of the dense peak at 16 bits: what published LoRA runs reach, from short unpacked batches to long packed ones.
UTILISATION = (0.1, 0.6)


def cost(answer: Answer, training: Training, tokens: int, gpu: str | None, price: float | None) -> dict[str, Any]:
    """Operations; hours where the GPU is named and its peak known; money where an hour's price is given too."""
    flops = training_flops(
        answer.tree,
        shape_of(answer.tree),
        answer.adaptation.trainable_parameters,
        training.sequence_length,
        checkpointing=training.gradient_checkpointing,
    )
    bounds: dict[str, dict[str, float]] = {"flops": {"lower": tokens * flops.lower, "upper": tokens * flops.upper}}
    tflops = find_gpu(gpu).tflops if gpu else None
    if tflops is not None:
        each = 3600 * tflops * 1e12 * training.gpus
        hours = {
            "lower": bounds["flops"]["lower"] / (each * UTILISATION[1]),
            "upper": bounds["flops"]["upper"] / (each * UTILISATION[0]),
        }
        bounds["hours"] = hours
        if price is not None:
            bounds["price"] = {name: value * price * training.gpus for name, value in hours.items()}
    return {"tokens": tokens, "bounds": bounds, "assumes": _assumes(gpu, tflops, training)}


def _assumes(gpu: str | None, tflops: float | None, training: Training) -> str:
    if tflops is None:
        return "hours need --gpu" if gpu is None else f"no peak of {gpu} is known, so no hours"
    low, high = (f"{100 * share:.0f}" for share in UTILISATION)
    return f"{training.gpus:,} x {tflops:g} TFLOPS, of which {low} to {high} % are used"
