"""What each GPU keeps of base, adapter, gradients and optimizer state where several share a run.

Middle: equal shares, rounded up. ZeRO's optimizer steps one flat float32 copy of the trained parameters, whatever their
dtype, so that its state is float32's (DeepSpeed 0.18, stage_1_and_2.py, single_partition_of_fp32_groups; stage3.py,
fp32_partitioned_groups_flat). The ceilings allow for

ddp    nothing: the flat buckets beside the gradients are always there (torch 2.13, gradient_as_bucket_view=False)
zero   a float32 copy of the gradients' share, as in DeepSpeed's own estimate of 18 bytes (stage_1_and_2.py,
       estimate_zero2_model_states_mem_needs: 2 and 4 of gradients, 4 of parameters, 8 of moments); two buckets of 5e8
       elements for gradients under way (config.py, reduce_bucket_size, overlap_comm);
       with zero3, parameters under 1e5 elements, LoRA's matrices among them, which stay whole on every GPU
       (param_persistence_threshold), and up to 1e9 elements that are gathered (max_live_parameters)
fsdp   parameters cut along their first axis only, so that a rank of 8 on 16 GPUs leaves half of them empty (torch 2.13,
       fully_shard; FullyShardedDataParallel pads flat parameters by less than one element a GPU)

On one GPU nothing is cut, but ZeRO's optimizer has its copy and its buckets all the same. What is offloaded lies on the
host: it is in the ceiling alone, and what is gathered as with ZeRO-3 on one GPU too.

ZeRO-3 and FSDP gather what they use beside the shares: what stands outside the layers, the root's, while a step lasts
(_runtime_utils.py, _post_forward_reshard), one layer forward, and two in the backward pass (BACKWARD_PRE; floor: one).
"""

from math import prod
from typing import NamedTuple

from estimator.sizes.memory.optimizers import Trained, paged_bytes, state_bytes
from estimator.sizes.memory.training import Adapter, Training

_SHARDED = {
    "ddp": (),
    "zero1": ("states", "copies"),
    "zero2": ("states", "copies", "gradients"),
    "zero3": ("states", "copies", "gradients", "weights", "adapter"),
    "fsdp": ("states", "gradients", "weights", "adapter"),
}
# The ceiling has them all the same
_OFFLOADED = {"weights": ("weights", "adapter"), "optimizer": ("states", "copies", "paged")}
_BUCKETS = 2 * 500_000_000  # elements
_LIVE = 1_000_000_000  # elements
_PERSISTENT = 100_000  # elements of a parameter that ZeRO-3 leaves whole


class Span(NamedTuple):
    """Bytes: the middle, which is the floor as well, and the ceiling."""

    expected: int
    upper: int


class Moments(NamedTuple):
    """Bytes gathered."""

    forward: int
    loss: int
    backward: int


class Resident(NamedTuple):
    """What stays on one GPU."""

    shares: int  # GPUs that the base is cut for
    weights: int
    adapter: Span
    gradients: Span
    states: Span
    paged: int  # of `states`, outside the caching allocator
    buckets: Span
    gathers_more: int  # the ceiling's, beside `gathered`


def resident(weight_bytes: int, width: int, adapter: Adapter, trained: list[Trained], training: Training) -> Resident:
    """Shares of one GPU in bytes; width: bytes of an element of the base.

    Raises UsageError for an optimizer that is not known.
    """
    is_zero = training.strategy.startswith("zero")
    strategy = training.strategy if training.gpus > 1 else ""
    cut = _SHARDED.get(strategy, ())
    stepped = [Trained((adapter.parameters,), 4)] if is_zero else trained
    states, paged = state_bytes(training.optimizer, stepped), paged_bytes(training.optimizer, stepped)
    parameters, beside = adapter.parameter_bytes, adapter.added_bytes
    whole = {"weights": weight_bytes, "adapter": beside, "gradients": parameters, "states": states, "paged": paged}
    whole["copies"] = 4 * adapter.parameters if is_zero else 0
    cut = (*cut, "paged") if "states" in cut else cut
    parts = {name: -(-size // (training.gpus if name in cut else 1)) for name, size in whole.items()}
    uneven = _cut_along_rows(trained, training.gpus) / max(parameters, 1) if strategy == "fsdp" else 0.0
    uppers = {name: max(parts[name], int(uneven * whole[name])) for name in parts}
    if strategy == "zero3":
        held = (*trained, *adapter.frozen)
        uppers["adapter"] += sum(prod(p.shape) * p.width for p in held if prod(p.shape) < _PERSISTENT)
    buckets = parameters if strategy == "ddp" else 0
    away = {name for part in training.offloads for name in _OFFLOADED[part]}
    parts |= dict.fromkeys(away, 0)
    return Resident(
        shares=training.gpus if "weights" in cut else 1,
        weights=parts["weights"],
        adapter=Span(parts["adapter"], uppers["adapter"]),
        gradients=Span(parts["gradients"], uppers["gradients"] + uppers["copies"]),
        states=Span(parts["states"] + parts["copies"], uppers["states"] + uppers["copies"]),
        paged=min(parts["paged"], parts["states"]),
        buckets=Span(0, 2 * _BUCKETS) if is_zero else Span(buckets, buckets),
        gathers_more=min(_LIVE * width, weight_bytes) if strategy == "zero3" else 0,
    )


def _cut_along_rows(trained: list[Trained], gpus: int) -> int:
    """Bytes of the largest share where each parameter is cut along its first axis."""
    return sum(-(-p.shape[0] // gpus) * prod(p.shape[1:]) * p.width for p in trained if p.shape)


def gathered(weight_bytes: int, outer_bytes: int, layers: int, ahead: int) -> Moments:
    """Bytes beside the shares.

    weight_bytes: of the whole base, outer_bytes outside its layers; ahead: layers fetched before they are needed.
    """
    layer = max(weight_bytes - outer_bytes, 0) // max(layers, 1)
    return Moments(outer_bytes + layer, outer_bytes, outer_bytes + (1 + ahead) * layer)
