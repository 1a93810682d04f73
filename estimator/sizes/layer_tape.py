"""One repeated layer as the operations that transformers (5.23.0) and PEFT (0.21.2) run, written on a tape.

Sources: the `forward` of modeling_llama.py and its kin, activations.py, integrations/sdpa_attention.py, integrations/
moe.py (grouped_mm_experts_forward); peft/tuners/lora/layer.py (Linear.forward), lora/bnb.py (Linear4bit.forward),
lora/dora.py; bitsandbytes/nn/modules.py (Linear4bit.forward casts its output to the input's dtype).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from estimator.sizes.blocks import Block, Linear, Norm, Shape
from estimator.sizes.tape import Tape, Tensor
from estimator.sizes.training import TODAY, Adapter, Software, Training

_STEPS = {"gelu_new": 4, "gelu_fast": 4, "gelu_accurate": 4, "quick_gelu": 3}  # tensors kept by those written in Python
_BEHIND_MLP = re.compile("post_(?:feedforward|ff|mlp)")
_OUTPUT = re.compile(r"(?:o|out|output|dense|wo|c_proj|proj|out_lin|wo_proj|out_proj|o_proj)$")
_KEEPS_OUTPUT = frozenset({"relu", "sigmoid", "tanh"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What decides which tensors a layer makes, beside the layer itself."""

    shape: Shape
    training: Training
    adapter: Adapter
    base_width: int  # bytes of an element of what is not quantised
    head_width: int = 2  # of the output head
    kbit: bool = False  # prepare_model_for_kbit_training: norms and embeddings are float32
    packed: frozenset[str] = frozenset()  # matrices in 4 bits: unpacked each time they are used
    padded: bool = False  # a padding mask makes sdpa repeat key and value for each head (sdpa_attention.py)
    software: Software = TODAY

    @property
    def autocast(self) -> bool:
        return self.training.mixed_precision != "no"

    @property
    def residual(self) -> int:
        """Bytes of an element between layers."""
        return 4 if self.kbit else self.base_width


def layer(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    """The output of one layer."""
    norms = [norm for norm in block.norms if not norm.role]
    if block.is_parallel:
        first = _norm(tape, x, norms[0], setting) if norms else x
        second = _norm(tape, x, norms[1], setting) if len(norms) > 1 else first
        attended = _attention(tape, first, block, setting)
        tape.hold(first, second)
        mixed = _mlp(tape, second, block, setting)
        tape.hold(attended, x)
        return _add(tape, x, _add(tape, attended, mixed))
    places = _places(norms)
    x = _branch(tape, x, places[:2], _attention, block, setting)
    return _branch(tape, x, places[2:], _mlp, block, setting)


def _places(norms: list[Norm]) -> list[Norm | None]:
    """The norms before and after attention, and before and after the MLP."""
    if len(norms) >= 4:
        return list(norms[:4])
    if not norms:
        return [None] * 4
    if _BEHIND_MLP.match(norms[-1].name):  # both branches are normed at their end
        return [None, norms[0], None, norms[-1]]
    return [norms[0], None, norms[-1], None]


def _branch(
    tape: Tape, x: Tensor, norms: list[Norm | None], part: Callable[..., Tensor], block: Block, setting: Setting
) -> Tensor:
    before, after = norms
    y = x if before is None else _norm(tape, x, before, setting)
    out = part(tape, y, block, setting)
    tape.hold(x, y)
    if after is not None:
        out = _norm(tape, out, after, setting)
    return _add(tape, x, out)


def _add(tape: Tape, x: Tensor, y: Tensor) -> Tensor:
    return tape.run((x, y), x.elements, max(x.width, y.width), passes=True)


def _norm(tape: Tape, x: Tensor, norm: Norm, setting: Setting, elements: int = 0) -> Tensor:
    elements = elements or x.elements
    rows = 4 * tape.tokens * (elements // norm.width)
    out = 4 if setting.kbit else x.width
    if setting.software.fused_norms:
        return tape.run((x,), elements, out, saves=(x,), keeps=rows)
    if not norm.is_rms:
        return tape.run((x,), elements, 4 if setting.autocast else out, saves=(x,), keeps=2 * rows)
    wide = x if x.width == 4 else tape.run((x,), elements, 4)
    tape.run((wide,), elements, 4)  # pow, whose mean is all that remains
    even = tape.run((wide,), elements, 4, saves=(wide,), keeps=rows, scratch=4 * tape.tokens * elements)
    even = even if x.width == 4 else tape.run((even,), elements, x.width)
    return tape.run((even,), elements, out)


def final_norm(tape: Tape, x: Tensor, norm: Norm, setting: Setting) -> Tensor:
    """The norm before the head, in the dtype that the head reads."""
    return _norm(tape, x, norm, setting)


def _attention(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    query, key, value, *rest = _heads(tape, x, block, setting)
    tape.hold(x)
    eager = setting.training.attention == "eager"
    mixed = (_eager if eager else _flash)(tape, (query, key, value), block, setting)
    return _linear(tape, mixed, rest[0], setting) if rest else mixed


def _heads(tape: Tape, x: Tensor, block: Block, setting: Setting) -> list:
    """Query, key and value as attention gets them, and the matrix behind it."""
    last = next((i for i in block.attention if _OUTPUT.match(i.name.rpartition(".")[2])), block.attention[-1])
    matrices = [item for item in block.attention if item is not last]
    made = [_linear(tape, x, item, setting) for item in matrices if item.inputs == x.elements]
    if not made:  # one matrix alone: what is behind it is not told apart
        made, last = [_linear(tape, x, last, setting)], None
    fused = len(made) == 1
    query, key, value = made * 3 if fused else (*made, *made[-1:] * 2)[:3]
    width = query.width
    roles = {norm.role: norm for norm in block.norms if norm.role}
    if "q" in roles:
        query = _norm(tape, query, roles["q"], setting, block.query)
    if "k" in roles:
        key = _norm(tape, key, roles["k"], setting, block.key_value)
    if setting.shape.is_rotary:
        query = _turned(tape, query, block.query)
        key = _turned(tape, key, block.key_value)
    if not setting.training.gradient_checkpointing:  # the cache that a training forward pass fills as well
        key = tape.run((key,), block.key_value, key.width)
        value = tape.run((value,), block.key_value, width)
    return [query, key, value, *([last] if last is not None else [])]


def _turned(tape: Tape, x: Tensor, elements: int) -> Tensor:
    """x cos + rotate_half(x) sin: cosine and sine are shared by all layers."""
    return tape.run((x,), elements, x.width, scratch=2 * tape.tokens * elements * x.width)


def _flash(tape: Tape, heads: tuple[Tensor, Tensor, Tensor], block: Block, setting: Setting) -> Tensor:
    """Scaled dot product and flash attention: query, key, value, output and a float32 for each head are kept."""
    narrow = setting.autocast or setting.training.attention == "flash_attention_2"
    widths = (block.query, block.key_value, block.key_value)
    heads = tuple(
        tape.run((t,), elements, 2) if narrow and t.width == 4 else t for t, elements in zip(heads, widths, strict=True)
    )
    rows = 4 * tape.tokens * setting.shape.heads
    if setting.padded and setting.training.attention == "sdpa" and block.key_value < block.query:
        heads = (heads[0], *(tape.run((t,), block.query, t.width) for t in heads[1:]))
    if setting.software.views_fused_value:
        rows += tape.tokens * (block.query + block.key_value) * heads[0].width
    return tape.run(heads, block.query, heads[0].width, saves=heads, saves_output=True, keeps=rows)


def _eager(tape: Tape, heads: tuple[Tensor, Tensor, Tensor], block: Block, setting: Setting) -> Tensor:
    query, key, value = heads
    if block.key_value < block.query:
        key, value = (tape.run((t,), block.query, t.width) for t in (key, value))
    scores = setting.shape.heads * setting.training.sequence_length
    width = query.width
    each = tape.run((query, key), scores, width, saves=(query, key))
    each = tape.run((each,), scores, width)
    if setting.shape.caps_scores:
        each = tape.run((tape.run((each,), scores, width),), scores, width, saves_output=True)
        each = tape.run((each,), scores, width)
    each = tape.run((each,), scores, width)  # the mask is added
    each = tape.run((each,), scores, 4, saves_output=True)
    each = each if width == 4 else tape.run((each,), scores, width)
    mixed = tape.run((each, value), block.query, width, saves=(each, value))
    return tape.run((mixed,), block.query, width)


def _mlp(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    if not block.mlp and not block.experts:
        return x
    if block.experts:
        one_by_one = setting.software.loops_experts
        return (_experts_one_by_one if one_by_one else _experts)(tape, x, block, setting)
    down = next((item for item in reversed(block.mlp) if item.inputs == block.inner), None)
    ups = [item for item in block.mlp if item is not down]
    made = [_linear(tape, x, item, setting) for item in ups]
    inner = _activated(tape, made, block, setting)
    return _linear(tape, inner, down, setting) if down is not None else inner


def _activated(tape: Tape, made: list[Tensor], block: Block, setting: Setting) -> Tensor:
    """act(gate) * up, or act(up)."""
    inner, gate, up, width = block.inner, made[0], made[-1], made[0].width
    activation = setting.shape.activation
    if block.is_gated and setting.software.fused_mlp:
        return tape.run((gate, up), inner, width, saves=(gate, up))
    extra = _STEPS.get(activation, 1) - 1
    acted = tape.run(
        (gate,),
        inner,
        width,
        saves=() if activation in _KEEPS_OUTPUT else (gate,),
        saves_output=activation in _KEEPS_OUTPUT,
        keeps=extra * tape.tokens * inner * width,
    )
    return tape.run((acted, up), inner, width, saves=(acted, up)) if block.is_gated else acted


def _experts(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    """Each token goes through some of the experts, sorted by expert; weights of experts need no input kept."""
    each, width = block.experts_per_token, 2 if setting.autocast else setting.base_width
    rows = 4 * tape.tokens * block.experts
    routed = tape.run((x,), block.experts, 4, saves_output=True, keeps=rows)
    chosen = tape.run((x,), each * x.elements, width)
    both = tape.run((chosen,), each * block.inner * (2 if block.is_gated else 1), width)
    acted = tape.run((both,), each * block.inner, width, saves=(both,))
    inner = tape.run((acted, both), each * block.inner, width, saves=(acted, both)) if block.is_gated else acted
    down = tape.run((inner,), each * x.elements, width)
    weighted = tape.run((down, routed), each * x.elements, width, saves=(down,))
    return tape.run((tape.run((weighted,), each * x.elements, width),), x.elements, width)


def _experts_one_by_one(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    """transformers 4: a loop over experts, each of which sees its share of the tokens."""
    each, width = block.experts_per_token, 2 if setting.autocast else setting.base_width
    inner = (3 if block.is_gated else 2) * block.inner
    keeps = tape.tokens * (each * (inner + x.elements) * width + 4 * block.experts)
    unpacked = 2 * block.inner * x.elements if setting.packed else 0
    return tape.run((x,), x.elements, x.width, keeps=keeps, scratch=unpacked + keeps // block.experts)


def _linear(tape: Tape, x: Tensor, item: Linear, setting: Setting) -> Tensor:
    """A frozen matrix keeps nothing of its input; what LoRA beside it keeps, `adapted` says."""
    elements = tape.tokens * item.inputs
    unpacked = 2 * item.inputs * item.outputs
    if item.name in setting.packed:
        narrow = 2 * elements if x.width == 4 else 0
        keeps = 2 * elements if setting.software.keeps_packed_inputs else 0
        out = tape.run((x,), item.outputs, x.width, keeps=keeps, scratch=unpacked + narrow)
    else:
        width = 2 if setting.autocast else setting.base_width
        cast = unpacked if setting.autocast and setting.base_width == 4 else 0
        out = tape.run((x,), item.outputs, width, keeps=cast)
    return adapted(tape, x, out, item, setting) if item.name in setting.adapter.ranks else out


def adapted(tape: Tape, x: Tensor, out: Tensor, item: Linear, setting: Setting) -> Tensor:
    """out + scaling * lora_B(lora_A(dropout(x)))."""
    adapter, packed = setting.adapter, item.name in setting.packed
    rank, width = adapter.ranks[item.name], adapter.width
    if packed:
        out = tape.run((out,), item.outputs, out.width)  # clone
    fed = cast_x = x if x.width == width or (packed and setting.autocast) else tape.run((x,), item.inputs, width)
    if adapter.dropout > 0:
        fed = tape.run((fed,), item.inputs, fed.width, keeps=tape.tokens * item.inputs)
    if setting.autocast:
        fed = fed if fed.width == 2 else tape.run((fed,), item.inputs, 2)
        width = 2
    cast = 2 * rank * (item.inputs + item.outputs) if setting.autocast and adapter.width == 4 else 0
    between = tape.run((fed,), rank, width, saves=(fed,), keeps=cast, trains=True)
    added = tape.run((between,), item.outputs, width, saves=(between,))
    added = tape.run((added,), item.outputs, width)
    tape.hold(x, cast_x)
    if adapter.dora:
        return _directed(tape, out, added, item, width)
    if packed and not setting.autocast and width != out.width:
        added = tape.run((added,), item.outputs, out.width)
    total = tape.run((out, added), item.outputs, max(out.width, width), passes=out.width == width)
    return total if total.width == out.width else tape.run((total,), item.outputs, out.width)


def _directed(tape: Tape, out: Tensor, added: Tensor, item: Linear, width: int) -> Tensor:
    """DoRA: (m - 1) * out + m * added, with m trained; the weight's norm is taken over the whole matrix."""
    matrix = 4 * item.inputs * (item.inputs + 3 * item.outputs)
    wide = max(out.width, width)
    base = tape.run((out,), item.outputs, wide, saves=(out,), scratch=matrix, trains=True)
    lora = tape.run((added,), item.outputs, wide, saves=(added,), trains=True)
    total = tape.run((base, lora), item.outputs, wide, passes=True)
    total = tape.run((out, total), item.outputs, wide, passes=out.width == wide)
    return total if wide == out.width else tape.run((total,), item.outputs, out.width)
