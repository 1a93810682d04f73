"""One repeated layer as the operations that transformers (5.23.0) and PEFT (0.21.2) run, written on a tape.

Sources: the `forward` of modeling_llama.py and its kin, activations.py, integrations/moe.py
(grouped_mm_experts_forward).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from estimator.sizes.memory.activations.attention import attention, cross_attention
from estimator.sizes.memory.activations.matrix import Setting, linear, normed
from estimator.sizes.memory.activations.scan import scan
from estimator.sizes.memory.activations.tape import Tape, Tensor
from estimator.sizes.memory.blocks import Block
from estimator.sizes.memory.norms import Norm
from estimator.sizes.memory.training import Adapter

# Tensors kept by those written in Python (of xIELU half of one is a mask), and those made beside when walked back
_STEPS = {"gelu_new": 4, "gelu_python": 3, "gelu_fast": 6, "gelu_accurate": 4, "xielu": 3.5}
_BESIDE = {"gelu_new": 1, "gelu_python": 1, "gelu_fast": 1, "gelu_accurate": 1, "relu2": 2, "bloom_gelu": 4}
_BEHIND_MLP = re.compile("post_(?:feedforward|ff|mlp)")
_KEEPS_OUTPUT = frozenset({"relu", "sigmoid", "tanh"})


def layer(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    """The output of one layer."""
    norms = [norm for norm in block.norms if not norm.role]
    if block.is_parallel:
        first = normed(tape, x, norms[0], setting) if norms else x
        waits = len(norms) > 1 and "post_attention" in norms[1].name  # modeling_gpt_neox.py; Falcon's does not
        second = normed(tape, x, norms[1], setting) if len(norms) > 1 and not waits else first
        attended = _dropped(tape, _mixed(tape, first, block, setting), drops=setting.shape.drops_states)
        tape.hold(first, second)
        second = normed(tape, x, norms[1], setting) if waits else second
        mixed = _dropped(tape, _mlp(tape, second, block, setting), drops=setting.shape.drops_mlp)
        tape.hold(attended, x)
        tape.name(first, second, attended, mixed)
        return _add(tape, x, _add(tape, attended, mixed))
    places = _places(norms)
    if block.attention or block.state:
        x = _branch(tape, x, places[:2], _mixed, block, setting)
    if block.cross:
        before = norms[1] if len(norms) == 3 else None
        x = _branch(tape, x, [before, None], cross_attention, block, setting)
    x = _branch(tape, x, places[2:], _mlp, block, setting) if block.mlp or block.experts else x
    behind = norms[4] if len(norms) > 4 else None
    return _branch(tape, x, [None, behind], _given, block, setting) if len(block.given) > 1 else x


def _mixed(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    """Of attention, of a scan, or of the two side by side."""
    if not block.state:
        return attention(tape, x, block, setting)
    scanned = scan(tape, x, block, setting)
    return _add(tape, scanned, attention(tape, x, block, setting)) if block.attention else scanned


def _places(norms: list[Norm]) -> list[Norm | None]:
    """The norms before and after attention, and before and after the MLP."""
    if len(norms) >= 4:
        return list(norms[:4])
    if not norms:
        return [None] * 4
    if _BEHIND_MLP.match(norms[-1].name.rpartition(".")[2]):  # both branches are normed at their end
        return [None, norms[0], None, norms[-1]]
    return [norms[0], None, norms[-1], None]


def _branch(
    tape: Tape, x: Tensor, norms: list[Norm | None], part: Callable[..., Tensor], block: Block, setting: Setting
) -> Tensor:
    before, after = norms
    behind = before if setting.shape.norms_sums else None
    y = x if before is None or behind else normed(tape, x, before, setting)
    drops = setting.shape.drops_mlp if part is _mlp else setting.shape.drops_states
    out = _dropped(tape, part(tape, y, block, setting), drops=drops)
    tape.hold(x, y)
    tape.name(y, out)
    if block.scales_branches:
        out = tape.run((out,), out.elements, out.width, asks=True)
    if setting.shape.scales_branches:
        out = tape.run((out,), out.elements, out.width)
    if after is not None:
        out = normed(tape, out, after, setting)
    out = tape.run((x, out), x.elements, max(x.width, out.width, setting.residual), passes=True)
    return normed(tape, out, behind, setting) if behind else out


def _dropped(tape: Tape, x: Tensor, *, drops: bool) -> Tensor:
    """Behind the model's own dropout, which keeps a mask of bytes."""
    return tape.run((x,), x.elements, x.width, keeps=tape.tokens * x.elements) if drops else x


def _add(tape: Tape, x: Tensor, y: Tensor) -> Tensor:
    return tape.run((x, y), x.elements, max(x.width, y.width), passes=True)


def _mlp(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    if block.experts:
        return _mixture(tape, x, block, setting)
    down = next((item for item in reversed(block.mlp) if item.inputs == block.inner), None)
    first, *others = [item for item in block.mlp if item is not down]
    gate = linear(tape, x, first, setting)
    fused = block.is_gated and setting.software.fused_mlp
    acted = gate if fused else activated(tape, gate, block.inner, setting)  # before the next matrix is asked
    up = [gate, *(linear(tape, x, item, setting) for item in others)][-1]
    tape.placed -= {item.name for item in others[block.is_gated :]}
    inner = _product(tape, acted, up, block.inner) if block.is_gated else acted
    for norm in (norm for norm in block.norms if norm.role == "i"):
        inner = normed(tape, inner, norm, setting)
    tape.name(gate, acted, up, inner)
    if setting.shape.drops_inner:
        inner = tape.run((inner,), block.inner, inner.width, keeps=tape.tokens * block.inner)
    return linear(tape, inner, down, setting) if down is not None else inner


def _product(tape: Tape, acted: Tensor, up: Tensor, inner: int) -> Tensor:
    """Of the two, which walked back are so many elements each, also where up is a view of one with the gate."""
    if up.elements == inner or acted is up:  # one kernel's
        return tape.run((acted, up), inner, up.width, saves=(acted, up))
    out = tape.run((acted,), inner, up.width, saves=(acted, up), unwinds=tape.tokens * inner * up.width)
    tape.hold(up)
    return out


def _mixture(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    """Experts that are chosen, and one that always is: behind them, or at most before (modeling_hunyuan_v1_moe.py)."""
    routed = _experts_one_by_one if setting.software.loops_experts else _experts
    shared = tuple(item for item in block.mlp if "shared" in item.name and min(item.inputs, item.outputs) > 1)
    if not shared:
        return routed(tape, x, block, setting)
    width = shared[-1].inputs
    is_gated = sum(item.outputs for item in shared[:-1]) >= 2 * width
    always = replace(block, experts=0, mlp=shared, inner=width, is_gated=is_gated)
    before = _mlp(tape, x, always, setting) if setting.software.names_all else None
    chosen = routed(tape, x, block, setting)
    return _add(tape, chosen, _weighted(tape, x, before or _mlp(tape, x, always, setting), block, setting))


def _given(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    """What the layer is given beside, by a gate (modeling_gemma4.py)."""
    before, behind = block.given[:2]
    gate = linear(tape, x, before, setting)
    acted = activated(tape, gate, before.outputs, setting)
    return linear(tape, tape.run((acted,), before.outputs, acted.width, saves=(acted,)), behind, setting)


def _weighted(tape: Tape, x: Tensor, shared: Tensor, block: Block, setting: Setting) -> Tensor:
    """What the shared expert gives, by its own gate's share where it has one (modeling_qwen2_moe.py)."""
    gate = next((item for item in block.mlp if "shared" in item.name and item.outputs == 1), None)
    if gate is None:
        return shared
    made = linear(tape, x, gate, setting)
    share = tape.run((made,), 1, made.width, saves_output=True)
    return tape.run((share, shared), shared.elements, shared.width, saves=(share, shared), unwinds=shared.size)


def activated(tape: Tape, gate: Tensor, inner: int, setting: Setting) -> Tensor:
    """So many elements, behind the activation."""
    width = gate.width
    activation = "gelu" if setting.software.fused_activation else setting.shape.activation
    if activation == "quick_gelu":
        return _sigmoid_linear(tape, gate, inner)
    extra, whole = _STEPS.get(activation, 1) - 1, tape.tokens * inner * width
    return tape.run(
        (gate,),
        inner,
        width,
        saves=() if activation in _KEEPS_OUTPUT else (gate,),
        saves_output=activation in _KEEPS_OUTPUT,
        keeps=int(extra * whole),
        scratch=3 * whole if activation == "xielu" else 0,  # both sides of its branch
        unwinds=_BESIDE.get(activation, 0) * whole,
    )


def _sigmoid_linear(tape: Tape, x: Tensor, inner: int) -> Tensor:
    """x sigmoid(1.702 x), step by step (activations.py, QuickGELUActivation)."""
    chance = tape.run((tape.run((x,), inner, x.width),), inner, x.width, saves_output=True)
    return tape.run((x, chance), inner, x.width, saves=(x, chance))


def _experts(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    """Each token goes through some of the experts, sorted by expert; weights of experts need no input kept."""
    each, width = block.experts_per_token, 2 if setting.autocast else setting.base_width
    if block.fused is not None and block.fused.sees_all:
        each = block.experts
    rows = tape.tokens * (4 * block.experts + 4 * 8 * each)  # chances; what was chosen, and orders of it there and back
    chooses = block.fused is not None and setting.adapter.trains(block.fused.router)
    asked = x
    if block.fused is not None and block.fused.chooses_in_float32:
        asked, rows = tape.run((x,), x.elements, 4), rows + 4 * x.elements * block.experts  # and the router's weight
    router = next((item for item in block.mlp if item.outputs == block.experts and item.inputs == x.elements), None)
    told = linear(tape, asked, router, setting) if router is not None and not chooses else asked
    routed = tape.run(
        (told,), block.experts, 4, saves=(asked,) * chooses, saves_output=True, keeps=rows, trains=chooses
    )
    chosen = tape.run((x,), each * x.elements, width)
    opens, closes = _trained(block, setting.adapter)
    first = block.inner * (2 if block.is_gated else 1)
    up = down = 0
    if block.fused is not None:
        outer, inmost = block.fused.up_elements, block.fused.down_elements
        leads_up, leads_down = _wrappers(block, setting.adapter)
        up = _changed(leads_up, outer, x.elements + first, block, setting)
        down = _changed(leads_down, inmost, block.inner + x.elements, block, setting)
    wide = each * first
    both = tape.run(
        (chosen,),
        wide,
        width,
        saves=(chosen,) * opens,
        keeps=up if chosen.needs_grad else 0,
        unwinds=up,
        trains=opens,
    )
    acted = tape.run((both,), each * block.inner, width, saves=(both,))
    clamped = tape.tokens * each * block.inner * width if setting.shape.clamps_gate else 0  # of gate, or up
    pair, own = (acted, both), each * block.inner
    if block.is_gated and not clamped:
        inner = _product(tape, *pair, own)
    else:  # slices, which walked back are as wide as what they are of (modeling_gpt_oss.py)
        inner = tape.run(pair, own, width, saves=pair, keeps=3 * clamped, unwinds=clamped) if block.is_gated else acted
    made = tape.run(
        (inner,), each * x.elements, width, saves=(inner,) * closes, keeps=down, unwinds=down, trains=closes
    )
    is_wide = asked is not x or setting.software.wide_routing or setting.shape.support.wide_shares
    wide = 4 if is_wide else width  # of the router's weights, and of what they are multiplied with
    whole = tape.tokens * each * x.elements
    products = whole * (2 * wide - width) if routed.needs_grad else whole * (wide - width)  # before sums and casts
    weighted = tape.run((made, routed), each * x.elements, wide, saves=(made,) * routed.needs_grad, unwinds=products)
    ordered = tape.run((weighted,), each * x.elements, wide, asks=True)
    tape.hold(chosen)
    summed = tape.run((ordered,), x.elements, wide)
    return summed if wide == width else tape.run((summed,), x.elements, width)


def _wrappers(block: Block, adapter: Adapter) -> tuple[str, str]:
    """The modules by which LoRA changes the experts' weights that lead up, and those that lead down; "" for none.

    peft 0.21.2, tuners/lora/layer.py, ParamWrapper: wrapped one in another, the weight that leads up innermost.
    """
    fused, wrapped = block.fused, adapter.wrapped
    if fused is None or fused.name not in wrapped:
        return "", ""
    if (inner := f"{fused.name}.base_layer") in wrapped:
        return inner, fused.name
    is_down = wrapped[fused.name] * block.experts == fused.down_elements < fused.up_elements
    return ("", fused.name) if is_down else (fused.name, "")


def _changed(name: str, elements: int, sides: int, block: Block, setting: Setting) -> int:
    """Bytes that each forward pass makes anew: a whole stack of weights, and copies of what LoRA trains for it in
    another dtype (peft 0.21.2, _LoraFactorsProxy)."""
    adapter = setting.adapter
    is_copied = adapter.width != setting.base_width and name not in adapter.still
    copied = adapter.ranks.get(name, 0) * block.experts * sides if is_copied else 0
    return setting.base_width * (elements + copied) if name else 0


def _trained(block: Block, adapter: Adapter) -> tuple[bool, bool]:
    """Whether the experts' weights that lead up, and those that lead down, want a gradient: their own or LoRA's."""
    if block.fused is None or block.fused.name in adapter.opened:
        return (block.fused is not None,) * 2
    up, down = (name not in ("", *adapter.still) for name in _wrappers(block, adapter))
    return up, down


def _experts_one_by_one(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    """transformers 4: a loop over experts, each of which sees its share of the tokens."""
    each, width = block.experts_per_token, 2 if setting.autocast else setting.base_width
    inner = (3 if block.is_gated else 2) * block.inner
    keeps = tape.tokens * (each * (inner + x.elements) * width + 4 * block.experts)
    unpacked = 2 * block.inner * x.elements if setting.packed else 0
    return tape.run((x,), x.elements, x.width, keeps=keeps, scratch=unpacked + keeps // block.experts)
