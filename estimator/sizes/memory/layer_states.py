"""What a layer keeps of a sequence whatever its length, in elements: a scan's state, and what convolutions see.

Beside what scans.py knows: the gated delta rule with query, key and value of their own (modeling_kimi_linear.py,
modeling_olmo_hybrid.py: a convolution over the three, a decay A_log for each head), lightning attention (qkv_proj,
slope_rate for each head; modeling_minimax.py), Mamba of several heads (A_log [heads, channels, state];
modeling_zamba.py), the linear recurrence of RecurrentGemma (a number for each channel), RWKV's (three of each, and
tokens shifted by one in each part; modeling_rwkv.py), and layers that only shift tokens (modeling_inkling.py; one
convolution behind another, and half of the value as of the token before: modeling_zaya.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

from estimator.architecture.module import Module
from estimator.sizes.memory.scans import read_scan


class LayerState(NamedTuple):
    """Of one layer and one sequence."""

    elements: int
    shifted: int  # tokens that its convolutions see, the one at hand with them


def layer_state(members: list[Module], config: Mapping[str, Any]) -> LayerState | None:
    """None where the layer has no state, and where it is of a kind whose size is not known."""
    if scan := read_scan(members, config):
        return LayerState(scan.inner * scan.state, scan.convolved * scan.kernel)
    widths = {m.name.rpartition(".")[2]: m.parameters[0].shape[0] for m in members if m.kind == "Linear"}
    convolutions = [m.parameters[0].shape for m in members if m.kind == "Conv1d" and m.parameters]
    shifted = sum(channels * kernel for channels, *_, kernel in convolutions)
    decays = [prod(p.shape) for m in members for p in m.parameters if p.name == "A_log"]
    slopes = [prod(buffer.shape) for m in members for buffer in m.buffers if buffer.name == "slope_rate"]
    held = {p.name: p.shape for m in members for p in m.parameters}
    if "time_decay" in held:
        shifts = [prod(p.shape) for m in members for p in m.parameters if p.name == "time_mix_key"]
        return LayerState(3 * prod(held["time_decay"]), sum(shifts))
    if "recurrent_param" in held or len(held.get("A_log", ())) == 3:
        return LayerState(sum(decays) or prod(held["recurrent_param"]), shifted)
    if "v_proj_delayed" in widths:  # the cache has no place for the token at hand
        before = sum(channels * (kernel - 1) for channels, *_, kernel in convolutions)
        return LayerState(widths["v_proj_delayed"], before)
    query, key, value = (widths.get(name, 0) for name in ("q_proj", "k_proj", "v_proj"))
    if len(decays) == 1 and [channels for channels, *_ in convolutions] == [query + key + value]:
        return LayerState(key * value // decays[0], shifted)
    if len(slopes) == 1 and "qkv_proj" in widths:
        return LayerState((widths["qkv_proj"] // 3) ** 2 // slopes[0], 0)
    only_shifts = bool(convolutions) and not decays and bool(key and value)  # beside attention
    return LayerState(0, shifted) if only_shifts else None
