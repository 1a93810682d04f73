"""Scans along the sequence as operations on a tape: as kernels have them, and as transformers writes them in torch.

Kernels: mamba-ssm 2 (ops/selective_scan_interface.py, MambaInnerFn; ops/triton/ssd_combined.py,
MambaSplitConv1dScanCombinedFn): save_for_backward of `xz` or `zxbcdt`, and of `out`; flash-linear-attention keeps more.
Torch: transformers 5.23.0, `mamba_selective_scan` (modeling_mamba.py), `mamba2_chunk_scan` (modeling_mamba2.py),
`torch_chunk_gated_delta_rule` (modeling_qwen3_next.py), and the gated norms behind the last two. What they compute is
float32, and lives until they return.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from estimator.sizes.memory.activations.matrix import Setting, linear
from estimator.sizes.memory.activations.tape import Tape, Tensor
from estimator.sizes.memory.blocks import Block, Linear
from estimator.sizes.memory.scans import Scan

_RATES = 24  # bytes of a head and token: steps, their softplus, sums and powers


def scan(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    """The branch of a scan, its last matrix included."""
    last = next(item for item in reversed(block.state) if item.outputs == x.elements)
    made = [linear(tape, x, item, setting) for item in block.state if item is not last and item.inputs == x.elements]
    tape.hold(x)
    width = made[0].width if made else x.width
    if setting.software.fused_scans or block.scan is None:
        scanned = tape.run(made or (x,), last.inputs, width, saves=made, saves_output=True)
        return linear(tape, scanned, last, setting)
    convolved = _convolved(tape, made, block.scan) if block.scan.kind != "conv" else made[0]
    scanned = _IN_TORCH[block.scan.kind](tape, made, convolved, block.scan, block.state, setting)
    tape.hold(convolved, *made)
    return linear(tape, scanned, last, setting)


def _convolved(tape: Tape, made: list[Tensor], scan: Scan) -> Tensor:
    """Behind a convolution for each channel, and its activation: both keep what goes in."""
    first, width = made[0], made[0].width
    parts = scan.kind == "delta" and first.elements != scan.convolved  # query, key and value are put together anew
    fed = tape.run((first,), scan.convolved, width) if parts else first
    out = tape.run((fed,), scan.convolved, width, saves=(fed,), saves_output=True)
    return tape.run((out,), scan.convolved, width)


def _mamba(
    tape: Tape, made: list[Tensor], convolved: Tensor, scan: Scan, items: Sequence[Linear], setting: Setting
) -> Tensor:
    """Token by token; the state before each is kept in float32 and in the model's own dtype."""
    width = convolved.width
    read = next((item for item in items if item.name.endswith(".x_proj")), None)
    steps = next((item for item in items if item.name.endswith(".dt_proj")), None)
    chosen = linear(tape, convolved, read, setting) if read is not None else convolved
    if steps is not None:
        tape.run((chosen,), 0, 1, keeps=tape.tokens * scan.inner * width)
    states = scan.inner * scan.state
    times = tape.run((chosen,), scan.inner, 4, saves_output=True)
    decay = tape.run((tape.run((times,), states, 4),), states, 4, saves_output=True)
    entered = tape.run((times, chosen), states, 4, saves_output=True)
    wide = tape.run((convolved,), scan.inner, 4, saves_output=True)
    added = tape.run((entered, wide), states, 4, saves=(entered, wide))
    kept = tape.tokens * states * (4 + width)  # of each token's state: as it is, and cast for the product with C
    out = tape.run((decay, added), scan.inner, width, saves=(decay,), keeps=kept, scratch=2 * 4 * tape.tokens * states)
    tape.hold(times, decay, entered, wide, added)
    return _gated_alone(tape, tape.run((out, convolved), scan.inner, 4), made, scan.inner, width)


def _product(tape: Tape, one: Tensor, other: Tensor, elements: int) -> Tensor:
    """Each is kept for the other's gradient."""
    saves = (one,) * other.needs_grad + (other,) * one.needs_grad
    return tape.run((one, other), elements, 4, saves=saves)


def _einsum(tape: Tape, one: Tensor, other: Tensor, elements: int, keeps: int = 0, scratch: int = 0) -> Tensor:
    """Of copies that lie as the product wants them."""
    one, other = (tape.run((t,), t.elements, 4) for t in (one, other))
    return tape.run((one, other), elements, 4, saves=(one, other), keeps=keeps, scratch=scratch)


def _mamba2(
    tape: Tape, made: list[Tensor], convolved: Tensor, scan: Scan, items: Sequence[Linear], setting: Setting
) -> Tensor:
    inner, width = scan.inner, convolved.width
    scores, chosen = scan.heads * scan.chunk, scan.heads * scan.state
    length = setting.training.sequence_length
    chunks = setting.training.batch_size * ceil(length / scan.chunk)
    states = 4 * chunks * inner * scan.state
    between = 4 * setting.training.batch_size * (ceil(length / scan.chunk) + 1) ** 2 * scan.heads
    with tape.seeing(chunks * scan.chunk):
        values = tape.run((convolved,), inner, 4, saves_output=True)
        key, query = (tape.run((convolved,), chosen, 4) for _ in range(2))
        beside = tape.run((values,), inner, 4)  # D's part
        rates = tape.run((made[0],), scan.heads, 4, keeps=_RATES * tape.tokens * scan.heads)
        fed = tape.run((values, rates), inner, 4, saves=(values,))
        decay = tape.run((tape.run((rates,), scores, 4),), scores, 4)
        decay = tape.run((tape.run((decay,), scores, 4),), scores, 4, saves_output=True)
        each = _einsum(tape, query, key, scores)
        mixed = _product(tape, each, decay, scores)
        within = _einsum(tape, mixed, fed, inner)
        decayed = tape.run((key,), chosen, 4, saves=(key,))
        keeps = 2 * states + between
        state = _einsum(tape, decayed, fed, 0, keeps=keeps, scratch=2 * states)
        across = _einsum(tape, query, state, inner)
        faded = tape.run((across,), inner, 4, saves=(across,))
        both = tape.run((tape.run((within, faded), inner, 4, passes=True),), inner, 4)
        out = tape.run((both, beside), inner, 4, passes=True)
        tape.hold(values, key, query, beside, fed, decay, each, mixed, within, decayed, across, faded, both, out)
    return (_gated if scan.norms else _gated_alone)(tape, out, made, inner, width)


def _gated(tape: Tape, x: Tensor, made: list[Tensor], inner: int, width: int) -> Tensor:
    """A norm of x silu(gate), in float32."""
    wide = tape.run((made[0],), inner, 4, saves_output=True)
    gate = tape.run((wide,), inner, 4, saves=(wide,), saves_output=True)
    product = tape.run((x, gate), inner, 4, saves=(x, gate), saves_output=True)
    even = tape.run((product,), inner, 4, saves=(product,))
    return tape.run((tape.run((even,), inner, width),), inner, width)


def _gated_alone(tape: Tape, x: Tensor, made: list[Tensor], inner: int, width: int) -> Tensor:
    gate = tape.run((made[0],), inner, width, saves=(made[0],), saves_output=True)
    return tape.run((tape.run((x, gate), inner, 4, saves=(x, gate)),), inner, width)


def _delta(
    tape: Tape, made: list[Tensor], convolved: Tensor, scan: Scan, items: Sequence[Linear], setting: Setting
) -> Tensor:
    values, width = scan.inner, convolved.width
    scores, keys = scan.heads * scan.chunk, scan.heads * scan.state
    chunks = setting.training.batch_size * ceil(setting.training.sequence_length / scan.chunk)
    states = 4 * chunks * values * scan.state
    with tape.seeing(chunks * scan.chunk):
        query, key = (tape.run((convolved,), keys, 4, saves_output=True) for _ in range(2))
        value = tape.run((tape.run((convolved,), values, 4),), values, 4, saves_output=True)
        query = tape.run((tape.run((query,), keys, 4, saves=(query,)),), keys, 4, saves_output=True)
        key = tape.run((tape.run((key,), keys, 4, saves=(key,)),), keys, 4, saves_output=True)
        values_in = tape.run((value,), values, 4, saves=(value,))
        keys_in = tape.run((key,), keys, 4, saves=(key,), saves_output=True)
        rates = tape.run((made[-1],), scan.heads, 4, keeps=_RATES * tape.tokens * scan.heads)
        decay = tape.run((tape.run((rates,), scores, 4),), scores, 4)
        decay = tape.run((decay,), scores, 4, saves_output=True)
        learnt = _product(tape, keys_in, key, scores)
        system = _product(tape, learnt, decay, scores)
        asked = _product(tape, query, key, scores)
        within = _product(tape, asked, decay, scores)
        faded = tape.run((keys_in,), keys, 4)
        whole = 4 * tape.tokens * scores
        new = tape.run((system, values_in), values, 4, saves=(system,), saves_output=True, scratch=whole)
        old = tape.run((system, faded), keys, 4, saves=(system,), saves_output=True, scratch=whole)
        query = tape.run((query,), keys, 4, saves=(query,), saves_output=True)
        key = tape.run((key,), keys, 4, saves=(key,), saves_output=True)
        # Chunk by chunk: the gradient of each comes back as one of all, and is added to the others'
        looped, running = (old, query, within, key), 2 * whole + 2 * states // chunks * setting.training.batch_size
        right = tape.run((new, old), values, 4, saves=looped, saves_output=True, keeps=states, scratch=running)
        out = tape.run((query, within, right, key), values, 4, saves=(query, within, right, key))
        tape.hold(query, key, value, values_in, keys_in, decay, system, within, faded, new, old, right, out)
    narrow = tape.run((out,), values, width)
    wide = tape.run((narrow,), values, 4, saves_output=True)
    even = tape.run((tape.run((wide,), values, 4, saves=(wide,)),), values, width)
    scaled = tape.run((even,), values, width, saves_output=True)
    gate = tape.run((made[0],), values, 4, saves_output=True)
    gate = tape.run((gate,), values, 4, saves=(gate,), saves_output=True)
    return tape.run((tape.run((scaled, gate), values, 4, saves=(scaled, gate)),), values, width)


def _conv(
    tape: Tape, made: list[Tensor], convolved: Tensor, scan: Scan, items: Sequence[Linear], setting: Setting
) -> Tensor:
    """The same with kernels: both gates, what goes into the convolution and what comes out are kept."""
    inner, both = scan.inner, made[0]
    fed = tape.run((both,), inner, both.width, saves=(both,), saves_output=True)
    out = tape.run((fed,), inner, both.width, saves_output=True)
    return tape.run((tape.run((both, out), inner, both.width, saves=(both, out)),), inner, both.width)


_IN_TORCH = {"conv": _conv, "mamba": _mamba, "mamba2": _mamba2, "delta": _delta}
