"""Memory of a training run on each GPU: parts, and the peak that each counter would show, as bounds and a middle.

The middle is what transformers 5.23 and PEFT 0.21.2 allocate with batches of full length. The bounds are the same step
played under what the request leaves open:

lower   batches shorter than the limit where nothing packs them; kernels that keep less (liger-kernel, Unsloth), a loss
        that works in place; experts packed one by one (transformers 4); embeddings cast back to 16 bits (trl)
upper   dropout, which most trainers set; a padding mask, which makes sdpa repeat key and value for each head; value as
        a view of a fused matrix, which then stays (litgpt); inputs of packed matrices kept (bitsandbytes before 0.43);
        shifted copies of the logits (transformers before 4.50); workspaces of cuBLAS; what ZeRO-3 and FSDP gather
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil
from typing import NamedTuple

from estimator.sizes.blocks import Shape
from estimator.sizes.layer_tape import Setting
from estimator.sizes.optimizers import Trained, is_paged, state_bytes, step_bytes
from estimator.sizes.step import Loss, Step, training_step
from estimator.sizes.training import Adapter, Training

# The driver's context and the kernels that torch and cuBLAS load: smallest, usual and largest.
CONTEXT_BYTES = (300 * 2**20, 550 * 2**20, 1200 * 2**20)
WORKSPACE_BYTES = 32 * 2**20  # cuBLAS on Hopper; 8 MiB before
# Without packing a batch is as long as its longest example, which may stay far below the maximum.
SHORTEST_SHARE = 0.125
USUAL_DROPOUT = 0.05  # of LoRA in axolotl, LLaMA-Factory, litgpt and ms-swift, where nothing is said
# What the caching allocator holds beyond the peak: shares of the head, of one layer, of what is kept, and small blocks.
# Fitted to the allocator's own rules, played over the steps of fixtures/memory/steps.jsonl (median error 1 %).
_CACHED_HEAD, _CACHED_WALK, _CACHED_KEPT, _CACHED_SMALL = 0.15, 0.5, 0.05, 100 * 10**6
_LOADING_REST = 2 * 10**9  # upper bound of what loading and evaluation leave in the allocator's cache
_PACKED = 0.5625  # bytes of an element in 4 bits, with a float32 for each block of 64


class Bounds(NamedTuple):
    lower: int
    expected: int
    upper: int


class Component(NamedTuple):
    name: str
    lower_bytes: int
    upper_bytes: int
    basis: str  # "exact" | "modelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseInMemory:
    """The base as loaded."""

    weight_bytes: int  # parameters, buffers and quantisation state
    width: int  # bytes of an element of what is not quantised
    packed: frozenset[str] = frozenset()  # names of the matrices that are unpacked each time they are used
    expert_elements: int = 0  # of fused experts, kept unquantised today, packed one by one before transformers 5
    kbit: bool = False  # prepare_model_for_kbit_training: what is not quantised becomes float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    components: tuple[Component, ...]
    allocated: Bounds
    reserved: Bounds
    device: Bounds
    moment: str  # "loss" | "backward" | "optimizer step": where the middle has its peak


class _Resident(NamedTuple):
    """What stays, on one rank."""

    weights: int
    adapter: int
    gradients: int
    states: int
    buckets: int


def training_memory(
    shape: Shape, base: BaseInMemory, adapter: Adapter, trained: Iterable[Trained], training: Training
) -> Memory:
    """Bytes on each GPU. Raises UsageError for an optimizer that is not known."""
    trained = list(trained)
    resident = _resident(base, adapter, trained, training)
    steps = _steps(shape, base, adapter, training, resident.gradients)
    states = 0 if is_paged(training.optimizer) else resident.states
    floors = _floors(shape, base)
    weights = (resident.weights - sum(floors), resident.weights, resident.weights)
    update = resident.gradients + step_bytes(training.optimizer, trained)
    slack = (0, 0, WORKSPACE_BYTES + _gathered(base, training))
    peaks = [max(step.forward, step.loss, step.backward, update) for step in steps]
    allocated = Bounds(
        *(
            w + resident.adapter + states + resident.buckets + p + s
            for w, p, s in zip(weights, peaks, slack, strict=True)
        )
    )
    cached = [0, _cached(steps[1]), peaks[2] + _LOADING_REST]
    reserved = Bounds(*(a + c for a, c in zip(allocated, cached, strict=True)))
    device = Bounds(*(r + c for r, c in zip(reserved, CONTEXT_BYTES, strict=True)))
    paged = resident.states - states
    middle = steps[1]
    moments = {"forward": middle.forward, "loss": middle.loss, "backward": middle.backward, "optimizer step": update}
    return Memory(
        components=_components(resident, weights, states, steps, cached, slack),
        allocated=allocated,
        reserved=reserved,
        device=device._replace(upper=device.upper + paged),
        moment=max(moments, key=lambda name: moments[name]),
    )


def _steps(shape: Shape, base: BaseInMemory, adapter: Adapter, training: Training, gradients: int) -> list[Step]:
    """The step as it is at least, as the middle, and as it is at most."""
    share = 1.0 if training.packing else SHORTEST_SHARE
    shorter = replace(training, sequence_length=ceil(share * training.sequence_length))
    middle = Setting(
        shape=shape,
        training=training,
        adapter=adapter,
        base_width=base.width,
        head_width=4 if base.kbit else base.width,
        kbit=base.kbit,
        packed=base.packed,
    )
    low = replace(middle, training=shorter, fused_kernels=True, head_width=base.width)
    high = replace(
        middle,
        adapter=replace(adapter, dropout=adapter.dropout or USUAL_DROPOUT),
        keeps_packed_inputs=True,
        padded=not training.packing,
        views_fused_value=True,
    )
    losses = (Loss(in_place=True), Loss(), Loss(shifts_logits=True))
    return [training_step(setting, loss, gradients) for setting, loss in zip((low, middle, high), losses, strict=True)]


def _cached(step: Step) -> int:
    """Bytes reserved beyond the peak for batches of one length: blocks that were freed and did not fit again."""
    return int(_CACHED_HEAD * step.head + _CACHED_WALK * step.walk + _CACHED_KEPT * step.kept) + _CACHED_SMALL


def _floors(shape: Shape, base: BaseInMemory) -> tuple[int, int]:
    """Bytes by which weights may be smaller: packed experts; embeddings and head in 16 bits under k-bit preparation."""
    packed = int(((4 if base.kbit else base.width) - _PACKED) * base.expert_elements)
    return packed, 2 * 2 * shape.vocabulary * shape.hidden if base.kbit and base.width == 2 else 0


def _components(
    resident: _Resident, weights: tuple[int, int, int], states: int, steps: list[Step], cached: list[int],
    slack: tuple[int, int, int],
) -> tuple[Component, ...]:  # fmt: skip
    low, _, high = steps
    parts = (
        Component("base weights", weights[0], weights[2], "exact" if weights[0] == weights[2] else "modelled"),
        Component("adapter weights", resident.adapter, resident.adapter, "exact"),
        Component("gradients", resident.gradients, resident.gradients, "exact"),
        Component("optimizer state", states, resident.states, "exact"),
        Component("gradient buckets", resident.buckets, resident.buckets, "exact"),
        Component("activations kept", low.kept, high.kept, "modelled"),
        Component("backward through one layer", low.walk, high.walk, "modelled"),
        Component("logits and loss", low.head, high.head, "modelled"),
        Component("workspaces", slack[0], slack[2], "modelled"),
        Component("cached and fragmented", cached[0], cached[2], "modelled"),
        Component("CUDA context", CONTEXT_BYTES[0], CONTEXT_BYTES[2], "modelled"),
    )
    return tuple(part for part in parts if part.upper_bytes)


_SHARDED = {
    "ddp": (),
    "zero1": ("states",),
    "zero2": ("states", "gradients"),
    "zero3": ("states", "gradients", "weights", "adapter"),
    "fsdp": ("states", "gradients", "weights", "adapter"),
}


def _resident(base: BaseInMemory, adapter: Adapter, trained: list[Trained], training: Training) -> _Resident:
    """Base, adapter, gradients, optimizer state and DDP's buckets on one rank; shards are rounded up."""
    parts = {
        "weights": base.weight_bytes,
        "adapter": adapter.parameter_bytes,
        "gradients": adapter.parameter_bytes,
        "states": state_bytes(training.optimizer, trained),
    }
    sharded = _SHARDED[training.strategy] if training.gpus > 1 else ()
    for name in sharded:
        parts[name] = -(-parts[name] // training.gpus)
    # torch's DistributedDataParallel keeps flat buckets beside the gradients (gradient_as_bucket_view=False).
    buckets = adapter.parameter_bytes if training.gpus > 1 and training.strategy == "ddp" else 0
    return _Resident(*parts.values(), buckets)


def _gathered(base: BaseInMemory, training: Training) -> int:
    """Upper bound of what ZeRO-3 or FSDP have gathered at once: two layers' worth is far below a tenth of a model."""
    return base.weight_bytes // 10 if training.gpus > 1 and training.strategy in ("zero3", "fsdp") else 0
