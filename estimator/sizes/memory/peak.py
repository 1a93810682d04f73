"""Memory of a training run on each GPU: parts, and the peak that each counter would show, as bounds and a middle.

The middle is what transformers 5.23 and PEFT 0.21.2 allocate with batches of full length. The bounds are the same step
played under what the request leaves open:

lower   batches shorter than the limit where nothing packs them; kernels that keep less (liger-kernel, Unsloth), a loss
        that works in place; experts packed one by one (transformers 4); embeddings cast back to 16 bits (trl)
upper   dropout, which most trainers set; a padding mask, which makes sdpa repeat key and value for each head; value
        as a view of a fused matrix, which then stays; inputs of packed matrices kept (bitsandbytes before 0.43.2);
        shifted copies of the logits (transformers before 4.50); a loop that names the logits and fills a cache; inputs
        that want gradients (Unsloth); under a chunked loss, all that litgpt keeps beside; workspaces of cuBLAS; what
        ZeRO-3 and FSDP gather
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil
from typing import NamedTuple

from estimator.sizes.attention_support import Support
from estimator.sizes.memory.activations.kinds import kinds_of
from estimator.sizes.memory.activations.matrix import Setting
from estimator.sizes.memory.activations.step import Step, training_step
from estimator.sizes.memory.blocks import is_adapted, layer_of
from estimator.sizes.memory.optimizers import Trained, step_bytes
from estimator.sizes.memory.shape import Shape
from estimator.sizes.memory.sharding import Moments, Resident, gathered, resident
from estimator.sizes.memory.training import LEAST, LITGPT, MOST, MOST_OF_LITGPT, TODAY, Adapter, Software, Training

# The driver's context and the kernels that torch and cuBLAS load: smallest, usual and largest. A T4's, with kernels
# that are loaded as they are used (CUDA 12), has 105 MiB at first and 141 after a step.
CONTEXT_BYTES = (100 * 2**20, 550 * 2**20, 1200 * 2**20)
# cuBLAS before Hopper (4,096 KiB twice and 16 KiB eight times), and on it: each thread has a handle of its own
# (CUDABlasHandlePool), autograd's as well
USUAL_WORKSPACE_BYTES, WORKSPACE_BYTES = 2 * 8320 * 2**10, 2 * 32 * 2**20
# Without packing a batch is as long as its longest example, which may stay far below the maximum: eight of orca-math,
# padding-free, were a tenth of 4,096 tokens each (fms-acceleration).
SHORTEST_SHARE = 1 / 16
USUAL_DROPOUT = 0.05  # of LoRA in axolotl, LLaMA-Factory, litgpt and ms-swift, where nothing is said
# What the caching allocator holds beyond the peak: shares of the head, of one layer, of what is kept, and small blocks.
# Fitted to the allocator's own rules, played over the steps of fixtures/memory/steps.jsonl (median error 1 %).
_CACHED_HEAD, _CACHED_WALK, _CACHED_KEPT, _CACHED_SMALL = 0.15, 0.5, 0.05, 100 * 10**6
_MARGIN = 0.02  # what steps of real models may be off by, on either side (fixtures/memory/README.md)
_LOADING_REST = 2 * 10**9  # upper bound of what loading and evaluation leave in the allocator's cache


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
    outer_bytes: int = 0  # of these, what stands outside the repeated layers
    width: int  # bytes of an element of what is not quantised
    is_half: bool = False  # that is float16
    packed: frozenset[str] = frozenset()  # names of the matrices that are unpacked each time they are used
    expert_elements: int = 0  # of fused experts, kept unquantised today, packed one by one before transformers 5
    packed_bytes: float = 0.0  # of an element that is packed, quantisation state included
    ties_head: bool = True  # the output head is the table of embeddings
    kbit: bool = False  # prepare_model_for_kbit_training: what is not quantised becomes float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    components: tuple[Component, ...]
    allocated: Bounds
    reserved: Bounds
    device: Bounds
    moment: str  # "loss" | "backward" | "optimizer step": where the middle has its peak
    unbounded: bool = False  # no ceiling: scans, adapted towers, a class or a way of caching that nobody knows
    unplaced: int = 0  # matrices of layers of whose use nothing is known, which have no ceiling either


def training_memory(
    shape: Shape,
    base: BaseInMemory,
    adapter: Adapter,
    trained: Iterable[Trained],
    training: Training,
) -> Memory:
    """Bytes on each GPU. Raises UsageError for an optimizer that is not known."""
    trained = list(trained)
    if training.compares > 1:  # one batch of all (trl's concatenated_forward)
        training = replace(training, batch_size=training.compares * training.batch_size)
    software = training.software or implied_software(training, base)
    kept = resident(base.weight_bytes, base.width, adapter, trained, training)
    floors = _floors(shape, base)
    saved = (floors[0] if software.loops_experts else 0) + (floors[1] if software.narrow_head else 0)
    whole = (max(base.weight_bytes - sum(floors), 0), base.weight_bytes - saved, base.weight_bytes)
    outer = _renewed(shape, base, MOST_OF_LITGPT if training.loss == "chunked" else software)
    whole = (whole[0] + min(outer, 0), whole[1] + _renewed(shape, base, software), whole[2] + max(outer, 0))
    weights = tuple(-(-size // kept.shares) for size in whole)
    if "weights" in training.offloads:
        weights = (0, 0, weights[2])
    steps = _steps(shape, base, adapter, training, software, kept)
    fetched = _fetched(kept, whole, base.outer_bytes, len(shape.blocks), training)
    steps = [step.beside(*more) for step, more in zip(steps, fetched, strict=True)]
    stays = [_stays(kept, upper=upper) for upper in (False, False, True)]
    on_host = "optimizer" in training.offloads
    scratch = 0 if on_host else step_bytes(training.optimizer, trained) // kept.shares
    update = kept.gradients.expected + scratch
    peaks = [max(step.forward, step.loss, step.backward, update) for step in steps]
    margin = int(_MARGIN * peaks[2])
    slack = (-int(_MARGIN * peaks[0]), USUAL_WORKSPACE_BYTES, margin + WORKSPACE_BYTES + kept.gathers_more)
    allocated = Bounds(*map(sum, zip(weights, stays, peaks, slack, strict=True)))
    cached = [0, _cached(steps[1]), peaks[2] + _LOADING_REST]
    reserved = Bounds(*map(sum, zip(allocated, cached, strict=True)))
    device = Bounds(*map(sum, zip(reserved, CONTEXT_BYTES, strict=True)))
    middle = steps[1]
    moments = {"forward": middle.forward, "loss": middle.loss, "backward": middle.backward, "optimizer step": update}
    return Memory(
        components=_components(kept, weights, steps, fetched, cached, margin, scratch),
        allocated=allocated,
        reserved=reserved,
        device=device._replace(upper=device.upper + kept.paged),
        unbounded=bool(shape.states)
        or shape.is_inferred
        or shape.convolves_behind
        or shape.runs_again
        or shape.looks_in_blocks
        or middle.unplaced > 0
        or any(is_adapted(b, adapter.trained_modules) for b in shape.uncounted)
        or (bool(shape.unread) and any(layer_of(name) in shape.unread for name in adapter.ranks)),
        unplaced=middle.unplaced,
        moment=max(moments, key=lambda name: moments[name]),
    )


def _fetched(
    kept: Resident, whole: tuple[int, ...], outer_bytes: int, layers: int, training: Training
) -> list[Moments]:
    """What is gathered at least, usually, and at most; ZeRO-3 may let go of what stands outside the layers."""
    if kept.shares == 1 and "weights" not in training.offloads:
        return [Moments(0, 0, 0)] * 3
    outer = (0 if training.strategy == "zero3" else outer_bytes, outer_bytes, outer_bytes)
    return [gathered(w, o, layers, ahead) for w, o, ahead in zip(whole, outer, (0, 1, 1), strict=True)]


def implied_software(training: Training, base: BaseInMemory) -> Software:
    """litgpt alone cuts the loss of a base that bitsandbytes packed, and on one GPU it checkpoints no layer; torchtune
    packs with torchao, and most of its LoRA configs checkpoint (0.7, recipes/configs)."""
    is_litgpt = training.loss == "chunked" and (base.packed or not training.gradient_checkpointing)
    return LITGPT if is_litgpt else TODAY


def _stays(kept: Resident, *, upper: bool) -> int:
    """Adapter, optimizer state and buckets; gradients are part of the step."""
    more = kept.gradients.upper - kept.gradients.expected if upper else 0
    spans = (kept.adapter, kept.buckets, kept.states)
    return sum(span.upper if upper else span.expected for span in spans) - kept.paged + more


def _steps(
    shape: Shape,
    base: BaseInMemory,
    adapter: Adapter,
    training: Training,
    software: Software,
    kept: Resident,
) -> list[Step]:
    """The step as it is at least, as the middle, and as it is at most."""
    share = 1.0 if training.packing else SHORTEST_SHARE
    shorter = replace(training, sequence_length=ceil(share * training.sequence_length))
    middle = Setting(
        shape=shape,
        training=training,
        adapter=adapter,
        base_width=base.width,
        is_half=training.mixed_precision == "fp16" or (base.is_half and training.mixed_precision == "no"),
        head_width=base.width if software.narrow_head or not base.kbit else 4,
        kbit=base.kbit,
        packed=base.packed,
        padded=not training.packing and training.batch_size > 1,
        software=software,
        kinds=kinds_of(shape.blocks, adapter, base.packed),
    )
    kernels = Support(narrow_scores=shape.support.narrow_scores)
    earlier = replace(shape, support=kernels)  # releases before had kernels for some
    low = replace(
        middle,
        shape=earlier,
        training=shorter,
        piece_share=SHORTEST_SHARE,
        head_width=base.width,
        software=replace(LEAST, offloads_inputs=software.offloads_inputs),
        padded=False,
        masks=False,
    )
    high = replace(
        middle,
        adapter=replace(adapter, dropout=adapter.dropout or USUAL_DROPOUT),
        padded=not training.packing,
        pads_decoder=True,
        software=replace(MOST, names_logits=not training.drops_outputs),
    )
    steps = [_step(setting, kept) for setting in (low, middle, high)]
    lows = steps[:2]
    if not training.gradient_checkpointing:  # a cache has copies, and lets go of one matrix for query, key and value
        lows.append(_step(replace(low, software=replace(low.software, fills_cache=True)), kept))
    if training.beside and training.loss in ("standard", "in_place"):
        # A reference's logits, as float32, and their log-softmax beside the model's own; usually no gradients yet.
        # ORPO and CPO hold the same of what was chosen, half of all, for its cross-entropy.
        entries = training.tokens * shape.vocabulary // (2 if training.beside == "chosen" else 1)
        steps[1] = steps[1].beside(0, 4 * entries * (middle.autocast and training.beside == "reference"), 0)
        steps[2] = steps[2].beside(0, entries * (middle.head_width + 8), 0)
    most = [_step(replace(high, software=MOST_OF_LITGPT), kept)] if training.loss == "chunked" else []
    if training.loss == "in_rows":  # TRL before 1.5 had the logits whole
        most = [_step(replace(high, training=replace(training, loss="standard")), kept)]
    least, expected = Step(*map(min, zip(*lows, strict=True))), steps[1]
    return [least, expected, Step(*map(max, zip(*steps[1:], *most, strict=True)))]


def _step(setting: Setting, kept: Resident) -> Step:
    """Checkpointing around FSDP keeps a second layer while one is walked back: 35 published runs agree within 6 %."""
    training = setting.training
    step = training_step(setting, kept.gradients.expected)
    twice = setting.software.checkpoints_around_fsdp and training.gradient_checkpointing
    if not twice or training.strategy != "fsdp" or kept.shares == 1:
        return step
    return step.beside(0, 0, step.walk)._replace(walk=2 * step.walk)


def _cached(step: Step) -> int:
    """Bytes reserved beyond the peak for batches of one length: blocks that were freed and did not fit again.

    What batches of different lengths leave beside (benchmarks/ragged_batches.py) is given back before memory runs out.
    """
    return int(_CACHED_HEAD * step.head + _CACHED_WALK * step.walk + _CACHED_KEPT * step.kept) + _CACHED_SMALL


def _renewed(shape: Shape, base: BaseInMemory, software: Software) -> int:
    """Bytes by which head and embeddings take more than they do in transformers; less where the head is packed."""
    entries = shape.vocabulary * shape.hidden
    more = 2 * entries * base.width if software.renews_embeddings and base.packed else 0
    if not software.own_head:
        return more
    packed = int(entries * base.packed_bytes)
    counted = 0 if base.ties_head else packed if shape.head in base.packed else entries * base.width
    return more + (packed if base.packed else entries * base.width) - counted


def _floors(shape: Shape, base: BaseInMemory) -> tuple[int, int]:
    """Bytes by which weights may be smaller: packed experts; embeddings and head in 16 bits under k-bit preparation."""
    packed = int(((4 if base.kbit else base.width) - base.packed_bytes) * base.expert_elements)
    narrow = 2 * 2 * shape.vocabulary * shape.hidden if base.kbit and base.width == 2 else 0
    return packed, narrow


def _components(
    kept: Resident, weights: tuple[int, ...], steps: list[Step], fetched: list[Moments], cached: list[int],
    margin: int, scratch: int,
) -> tuple[Component, ...]:  # fmt: skip
    low, _, high = steps
    states = kept.states._replace(expected=kept.states.expected - kept.paged)
    back = high.backward - fetched[2].backward - kept.gradients.expected
    running = max(high.walk, low.walk, max(high.forward - fetched[2].forward, back) - high.kept)
    parts = (
        _component("base weights", weights[0], weights[2]),
        _component("adapter weights", *kept.adapter),
        _component("gradients", *kept.gradients),
        _component("optimizer state", *states),
        _component("gradient buckets", *kept.buckets),
        Component("gathered weights", fetched[0].loss, fetched[2].backward + kept.gathers_more, "modelled"),
        Component("activations kept", low.kept, high.kept, "modelled"),
        Component("running one layer", min(low.walk, high.walk), running, "modelled"),
        Component("logits and loss", low.head, high.head, "modelled"),
        Component("optimizer step", scratch, scratch, "modelled"),
        Component("workspaces", 0, WORKSPACE_BYTES, "modelled"),
        Component("margin of the model", 0, margin, "modelled"),
        Component("cached and fragmented", cached[0], cached[2], "modelled"),
        Component("CUDA context", CONTEXT_BYTES[0], CONTEXT_BYTES[2], "modelled"),
    )
    return tuple(part for part in parts if part.upper_bytes)


def _component(name: str, lower: int, upper: int) -> Component:
    return Component(name, lower, upper, "exact" if lower == upper else "modelled")
