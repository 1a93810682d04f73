"""Memory of a training run on each GPU: parts, and the peak that each counter would show, as bounds and a middle."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from estimator.sizes.activations import Widths, backward_bytes, block_bytes, head_bytes
from estimator.sizes.blocks import Shape
from estimator.sizes.optimizers import Trained, is_paged, state_bytes
from estimator.sizes.training import Adapter, Training

# The driver's context and the kernels that torch and cuBLAS load: smallest, usual and largest.
CONTEXT_BYTES = (300 * 2**20, 550 * 2**20, 1200 * 2**20)
WORKSPACE_BYTES = 32 * 2**20  # cuBLAS on Hopper; 8 MiB before
# Without packing a batch is as long as its longest example, which may stay far below the maximum.
SHORTEST_SHARE = 0.125
_ACTIVATION_ERROR = (0.8, 1.5)
_RESERVED = (1.0, 1.08, 2.0)  # of what is allocated beyond the resident part: cached blocks that did not fit again
_LOADING_REST = 2 * 10**9  # upper bound of what loading and evaluation leave in the allocator's cache
_PACKED_SHARE = 2 - 0.5625  # bytes that 4 bits save on an element of two bytes


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
    largest_quantised: int = 0  # elements of the largest matrix that is unpacked when it is used; 0 where none is
    expert_elements: int = 0  # of fused experts, kept unquantised today, packed one by one before transformers 5
    kbit: bool = False  # prepare_model_for_kbit_training: the residual stream becomes float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    components: tuple[Component, ...]
    allocated: Bounds
    reserved: Bounds
    device: Bounds
    moment: str  # "loss" | "backward" | "optimizer step": where the middle has its peak


def training_memory(
    shape: Shape, base: BaseInMemory, adapter: Adapter, trained: Iterable[Trained], training: Training
) -> Memory:
    """Bytes on each GPU. Raises UsageError for an optimizer that is not known."""
    trained = list(trained)
    weights, adapter_bytes, gradients, states, buckets = _resident(base, adapter, trained, training)
    widths = Widths(base=base.width, kbit=base.kbit, training=training, adapter=adapter)
    kept, walk, head = _activations(shape, adapter, training, widths)
    unpacked = 2 * base.largest_quantised
    resident = weights + adapter_bytes
    later = gradients + buckets + (0 if is_paged(training.optimizer) else states)
    moments = {
        "loss": Bounds(*(int(kept[i] + head[i]) for i in range(3))),
        "backward": Bounds(*(int(kept[i] + walk[i]) + unpacked for i in range(3))),
        "optimizer step": Bounds(*(adapter_bytes,) * 3),
    }
    fixed = resident + later
    extra = [max(m[i] for m in moments.values()) for i in range(3)]
    packed = int(_PACKED_SHARE * base.expert_elements)
    low = resident - packed + gradients + extra[0]  # the first step has no optimizer state yet
    allocated = Bounds(low, fixed + extra[1], fixed + extra[2] + WORKSPACE_BYTES + _gathered(base, training))
    cached = [int((factor - 1) * part) for factor, part in zip(_RESERVED, extra, strict=True)]
    reserved = Bounds(low, allocated.expected + cached[1], allocated.upper + cached[2] + _LOADING_REST)
    paged = states if is_paged(training.optimizer) else 0
    device = Bounds(*(r + c for r, c in zip(reserved, CONTEXT_BYTES, strict=True)))
    components = (
        Component("base weights", weights - packed, weights, "modelled" if packed else "exact"),
        Component("adapter weights", adapter_bytes, adapter_bytes, "exact"),
        Component("gradients", gradients, gradients, "exact"),
        Component("optimizer state", 0 if paged else states, states, "exact"),
        Component("gradient buckets", buckets, buckets, "exact"),
        Component("activations kept", int(kept[0]), int(kept[2]), "modelled"),
        Component("backward through one layer", int(walk[0]), int(walk[2]), "modelled"),
        Component("logits and loss", int(head[0]), int(head[2]), "modelled"),
        Component("unpacked weights", 0, unpacked, "modelled"),
        Component("workspaces", 0, WORKSPACE_BYTES, "modelled"),
        Component(
            "cached and fragmented", reserved.lower - allocated.lower, reserved.upper - allocated.upper, "modelled"
        ),
        Component("CUDA context", CONTEXT_BYTES[0], CONTEXT_BYTES[2], "modelled"),
    )
    moment = max(moments, key=lambda name: moments[name].expected)
    return Memory(
        components=tuple(c for c in components if c.upper_bytes),
        allocated=allocated,
        reserved=reserved,
        device=Bounds(device.lower, device.expected, device.upper + paged),
        moment=moment,
    )


_SHARDED = {
    "ddp": (),
    "zero1": ("states",),
    "zero2": ("states", "gradients"),
    "zero3": ("states", "gradients", "weights", "adapter"),
    "fsdp": ("states", "gradients", "weights", "adapter"),
}


def _resident(base: BaseInMemory, adapter: Adapter, trained: list[Trained], training: Training) -> tuple[int, ...]:
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
    return (*parts.values(), buckets)


def _gathered(base: BaseInMemory, training: Training) -> int:
    """Upper bound of what ZeRO-3 or FSDP have gathered at once: two layers' worth is far below a tenth of a model."""
    return base.weight_bytes // 10 if training.gpus > 1 and training.strategy in ("zero3", "fsdp") else 0


Three = tuple[float, float, float]


def _activations(shape: Shape, adapter: Adapter, training: Training, widths: Widths) -> tuple[Three, Three, Three]:
    """Lower, expected, upper bytes: kept, needed to walk one layer back, of logits and loss."""
    tokens = training.tokens
    shortest = 1.0 if training.packing else SHORTEST_SHARE
    each = [block_bytes(block, shape, training, adapter, widths) for block in shape.blocks]
    most = max(each, default=0)
    gradients = max((backward_bytes(block, shape, widths) for block in shape.blocks), default=0)
    ends = shape.hidden * (4 + widths.residual)  # the last norm and its output
    if training.gradient_checkpointing:
        kept, walk = len(each) * shape.hidden * widths.residual + ends, most + gradients
    else:
        kept, walk = sum(each) + ends, gradients
    head = head_bytes(shape, training, widths)
    scale = (shortest * _ACTIVATION_ERROR[0], 1.0, _ACTIVATION_ERROR[1])
    return (
        (tokens * kept * shortest * (1 if training.gradient_checkpointing else _ACTIVATION_ERROR[0]), tokens * kept,
         tokens * kept * (1.05 if training.gradient_checkpointing else _ACTIVATION_ERROR[1])),
        tuple(tokens * walk * s for s in scale),
        (tokens * head[0] * shortest, tokens * head[1], tokens * head[2]),
    )  # fmt: skip
