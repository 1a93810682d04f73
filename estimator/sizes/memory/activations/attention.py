"""Attention as operations on a tape: heads, their turning, and what the kernels keep.

Sources: the `forward` of modeling_llama.py and its kin, modeling_deepseek_v3.py, integrations/sdpa_attention.py
(transformers 5.23.0).
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from estimator.sizes.memory.activations.matrix import Setting, linear, normed
from estimator.sizes.memory.activations.tape import Tape, Tensor
from estimator.sizes.memory.blocks import Block, Linear
from estimator.sizes.memory.norms import Norm

_OUTPUT = re.compile(r"(?:o|out|output|dense|wo|c_proj|proj|out_lin|wo_proj|out_proj|o_proj)$")


class Heads(NamedTuple):
    """As attention gets them."""

    query: Tensor
    key: Tensor
    value: Tensor
    last: Linear | None  # the matrix behind attention; None where it is not told apart
    gates: Sequence[Tensor] = ()  # what attention is multiplied with


def attention(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    """The branch of attention, its last matrix included."""
    query, key, value, last, gates = (_latent_heads if block.latent else _heads)(tape, x, block, setting)
    tape.hold(x)
    mixed = (_twice if block.looks_twice else _kernel)(tape, (query, key, value), block, setting)
    tape.name(query, key, value, mixed)
    if gates:  # mixed * sigmoid(gate) (modeling_afmoe.py)
        share = tape.run(gates, block.mixed, gates[0].width, saves_output=True)
        mixed = tape.run((mixed, share), block.mixed, mixed.width, saves=(mixed, share))
    for norm in (norm for norm in block.norms if norm.role == "m"):
        mixed = normed(tape, mixed, norm, setting)
    return linear(tape, mixed, last, setting) if last is not None else mixed


def cross_attention(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Tensor:
    """The branch that looks at what the encoder made: key and value are as long as that."""
    last, (first, *others) = _matrices(block.cross, x)
    query = linear(tape, x, first, setting)
    length = setting.encoder_length
    with tape.seeing(setting.training.batch_size * length):
        made = [linear(tape, tape.input(x.elements, x.width), item, setting) for item in others] or [query]
        if setting.caches(block):
            made = [tape.run((t,), block.key_value, t.width) for t in made]
    tape.hold(x)
    looked = replace(setting, training=replace(setting.training, sequence_length=length))
    mixed = _kernel(tape, (query, made[0], made[-1]), block, looked, across=True)
    return linear(tape, mixed, last, setting)


def _matrices(items: tuple[Linear, ...], x: Tensor) -> tuple[Linear, list[Linear]]:
    """The matrix behind attention, and those before it that read x."""
    last = next(filter(_is_output, items), items[-1])
    return last, [item for item in items if item is not last and item.inputs == x.elements]


def _heads(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Heads:
    last, matrices = _matrices(block.attention, x)
    if setting.software.fuses_heads and len(matrices) == 3:
        matrices = [_fused(tape, x, matrices, setting)]
    made = [linear(tape, x, item, setting) for item in matrices]
    behind = last if made else None
    made = made or [linear(tape, x, last, setting)]  # one matrix alone: what is behind it is not told apart
    query, key, value = made * 3 if len(made) == 1 else (*made, *made[-1:] * 2)[:3]
    gated = next((item for item in matrices[3:] if _is_gate(item, block)), None)
    gates = [gate for item, gate in zip(matrices, made, strict=False) if item is gated]
    beside = (item for at, item in enumerate(matrices) if item is not gated and (at > 2 or _is_output(item)))
    tape.placed -= {item.name for item in beside}
    width = query.width
    roles = {part: norm for norm in block.norms for part in norm.role}
    if "q" in roles:
        query = normed(tape, query, roles["q"], setting, block.query)
    if "k" in roles:
        key = normed(tape, key, roles["k"], setting, block.key_value)
    if "v" in roles:
        value = normed(tape, value, roles["v"], setting, block.key_value)
    if setting.shape.is_rotary:
        query = _turned(tape, query, block.query)
        key = _turned(tape, key, block.key_value)
    if setting.caches(block):
        key = tape.run((key,), block.key_value, key.width)
        value = tape.run((value,), block.key_value, width)
    return Heads(query, key, value, behind, gates)


def _is_output(item: Linear) -> bool:
    return _OUTPUT.match(item.name.rpartition(".")[2]) is not None


def _is_gate(item: Linear, block: Block) -> bool:
    return "gate" in item.name.rpartition(".")[2] and item.outputs == block.mixed


def _fused(tape: Tape, x: Tensor, matrices: list[Linear], setting: Setting) -> Linear:
    """As litgpt has them (lora.py, LoRAQKVLinear): LoRA's output is kept where it is padded to all three."""
    tape.placed |= {item.name for item in matrices}
    adapted = [item for item in matrices if item.name in setting.adapter.ranks]
    if 0 < len(adapted) < len(matrices):
        tape.run((x,), 0, 1, keeps=2 * tape.tokens * sum(item.outputs for item in adapted))
    return Linear((adapted or matrices)[0].name, x.elements, sum(item.outputs for item in matrices))


def _latent_heads(tape: Tape, x: Tensor, block: Block, setting: Setting) -> Heads:
    """MLA: queries and keys are put together of a turned part and the rest; value is a view of what kv_b_proj made."""
    named = {item.name.rpartition(".")[2]: item for item in block.attention}
    down, up = named["kv_a_proj_with_mqa"], named["kv_b_proj"]
    norms = {norm.name.rpartition(".")[2].partition("_")[0]: norm.name for norm in block.norms if norm.role == "a"}
    query = x
    if "q_a_proj" in named:
        query = linear(tape, x, named["q_a_proj"], setting)
        query = normed(tape, query, Norm(query.elements, "rms", name=norms.get("q", "")), setting)
    query = linear(tape, query, named["q_b_proj" if "q_b_proj" in named else "q_proj"], setting)
    turned = down.outputs - block.latent
    both = linear(tape, x, down, setting)
    query_turned = _turned(tape, query, turned * setting.shape.heads)
    latent = normed(tape, both, Norm(block.latent, "rms", name=norms.get("kv", "")), setting, block.latent)
    key_turned = _turned(tape, both, turned)
    tape.hold(query, both)
    query = tape.run((query, query_turned), block.query, query.width)
    unfolded = linear(tape, latent, up, setting)
    key = tape.run((unfolded, key_turned), block.key_value, unfolded.width)
    return Heads(query, key, unfolded, named["o_proj"])


def _turned(tape: Tape, x: Tensor, elements: int) -> Tensor:
    """x cos + rotate_half(x) sin: cosine and sine are shared by all layers."""
    return tape.run((x,), elements, x.width, scratch=2 * tape.tokens * elements * x.width)


def _kernel(
    tape: Tape, heads: tuple[Tensor, Tensor, Tensor], block: Block, setting: Setting, *, across: bool = False
) -> Tensor:
    """across: keys and values are the encoder's."""
    return _eager(tape, heads, block, setting) if setting.eager else _flash(tape, heads, block, setting, across=across)


def _twice(tape: Tape, heads: tuple[Tensor, Tensor, Tensor], block: Block, setting: Setting) -> Tensor:
    """With each half of the values; what the second gives is taken off, and the rest normed (modeling_diffllama.py)."""
    query, key, value = heads
    halves = [tape.run((value,), block.key_value, value.width) for _ in range(2)]
    looks = [_kernel(tape, (query, key, half), block, setting) for half in halves]
    both = tape.run(looks, 2 * block.mixed, value.width)
    tape.hold(*halves, *looks)
    less = tape.run((both,), block.mixed, value.width)
    even = tape.run((both, less), block.mixed, value.width)
    scaled = normed(tape, even, Norm(block.mixed, "rms"), setting)
    return tape.run((scaled,), block.mixed, value.width)


def _flash(tape: Tape, heads: tuple[Tensor, ...], block: Block, setting: Setting, *, across: bool) -> Tensor:
    """Scaled dot product and flash attention: query, key, value, output and a float32 for each head are kept.

    With a mask, sdpa repeats key and value for each head (sdpa_attention.py), and each layer keeps the mask in the
    query's dtype (torch 2.13, attention.cpp, convert_boolean_attn_mask).
    """
    if setting.autocast or setting.training.attention == "flash_attention_2":
        query = _narrow(tape, heads[0], block.query)
        with tape.seeing(setting.training.tokens):
            heads = (query, *(_narrow(tape, t, block.key_value) for t in heads[1:]))
    rows = 4 * tape.tokens * setting.shape.heads
    software, shares = setting.software, block.key_value < block.query
    masked = setting.masked(block, across=across)
    if shares and (software.fuses_heads or masked):
        heads = (heads[0], *(tape.run((t,), block.query, t.width) for t in heads[1:]))
    if software.views_fused_value and not (software.fuses_heads and shares):
        rows += tape.tokens * (block.query + block.key_value) * heads[0].width
    biased = setting.shape.biases_scores and setting.training.attention == "sdpa"
    mask = _biased_mask(tape, heads[0].width, setting, masked=masked, across=across) if biased else None
    saves = heads if mask is None else (*heads, mask)
    rows += tape.tokens * setting.training.sequence_length * heads[0].width if masked and not biased else 0
    wants = biased and across and setting.shape.shares_bias and setting.training.gradient_checkpointing
    unwinds = tape.tokens * setting.shape.heads * setting.training.sequence_length * heads[0].width * wants
    mixed = tape.run(saves, block.mixed, heads[0].width, saves=saves, saves_output=True, keeps=rows, unwinds=unwinds)
    # The output has the query's strides: litgpt's, fresh from a concatenation, are copied to lie token by token
    return tape.run((mixed,), block.mixed, mixed.width) if software.fuses_heads else mixed


def _biased_mask(tape: Tape, width: int, setting: Setting, *, masked: bool, across: bool) -> Tensor | None:
    """For each head, of one example or of all where there is a mask; None where all layers share one of zeros.

    sdpa_attention.py, create_position_bias_mask: made as the bias lies, then copied to lie as the kernel wants it.
    """
    if across and not masked and setting.shape.shares_bias:
        return None
    scores = setting.shape.heads * setting.training.sequence_length
    with tape.seeing(tape.tokens // (1 if masked else setting.training.batch_size)):
        return tape.run((tape.run((), scores, setting.base_width),), scores, width)


def _narrow(tape: Tape, x: Tensor, elements: int) -> Tensor:
    """In 16 bits."""
    return tape.run((x,), elements, 2) if x.width == 4 else x


def _eager(tape: Tape, heads: tuple[Tensor, Tensor, Tensor], block: Block, setting: Setting) -> Tensor:
    query, key, value = heads
    if setting.training.batch_size > 1:  # views that a batched product must copy
        query, key, value = (
            t if t.elements == own else tape.run((t,), own, t.width)
            for t, own in ((query, block.query), (key, block.key_value), (value, block.key_value))
        )
    if setting.software.names_all:  # one that does not lie as the product wants it
        query = tape.run((query,), block.query, query.width)
    if block.key_value < block.query:
        key, value = (tape.run((t,), block.query, t.width) for t in (key, value))
    scores = setting.shape.heads * setting.training.sequence_length
    own, width = query.width, 2 if setting.autocast else query.width  # a product under autocast is of 16 bits
    if own != width:
        query = _narrow(tape, query, block.query)
        with tape.seeing(setting.training.tokens):
            key, value = (_narrow(tape, t, t.elements) for t in (key, value))
    product = 4 if setting.shape.support.wide_products and not setting.autocast else width
    if product != query.width:
        query, key = tape.run((query,), block.query, product), tape.run((key,), block.query, product)
    each = _product(tape, query, key, scores, product)
    each = tape.run((each,), scores, product)
    if setting.shape.caps_scores:
        each = tape.run((tape.run((each,), scores, width),), scores, width, saves_output=True)
        each = tape.run((each,), scores, width)
    for place in (query, key)[: setting.shape.position_terms]:
        each = tape.run((each, _on_positions(tape, place, scores, setting)), scores, width, passes=True)
    if setting.masks:
        each = tape.run((each,), scores, product, saves_output=block.sinks and setting.software.names_all)
    if setting.shape.support.clamps_scores:
        each = tape.run((each,), scores, product, saves=(each,))
    # One that is asked for in 16 bits stays so under autocast (modeling_falcon.py; modeling_gpt_oss.py where sinks are)
    stays = setting.software.narrow_softmax or (block.sinks and setting.embedded == width)
    widens = setting.autocast and not stays
    wide = width if setting.shape.support.narrow_scores and not widens else 4
    # Softmax of bfloat16 in float32 copies it first; of float16 CUDA's does not (SoftMax.cpp)
    each = each if product == wide or setting.is_half else tape.run((each,), scores, wide)
    multiplied = tape.tokens * scores * wide if setting.software.multiplies_softmax else 0
    each = tape.run((each,), scores, wide, saves_output=True, unwinds=multiplied)
    each = each if wide == own else tape.run((each,), scores, own)
    if setting.shape.drops_scores:
        each = tape.run((each,), scores, own, keeps=tape.tokens * scores)
    each = each if width == own else tape.run((each,), scores, width)
    mixed = _product(tape, each, value, block.mixed, width)
    return tape.run((mixed,), block.mixed, width)


def _product(tape: Tape, one: Tensor, other: Tensor, elements: int, width: int) -> Tensor:
    """Each is kept for the other's gradient."""
    saves = (one,) * other.needs_grad + (other,) * one.needs_grad
    return tape.run((one, other), elements, width, saves=saves)


def _on_positions(tape: Tape, x: Tensor, scores: int, setting: Setting) -> Tensor:
    """x by the positions' keys or queries, of which each score gathers one (modeling_deberta_v2.py)."""
    training, shape, adapter = setting.training, setting.shape, setting.adapter
    entries = shape.positions * shape.hidden
    keeps = entries * (adapter.width + training.batch_size * x.width)  # LoRA's input, and a copy for each example
    keeps += 8 * training.sequence_length**2  # the index
    with tape.seeing(setting.training.tokens):
        product = tape.run((x,), shape.heads * shape.positions, x.width, saves=(x,), keeps=keeps, unwinds=keeps)
        gathered = tape.run((product,), scores, x.width, saves=(product,))
        return tape.run((gathered,), scores, x.width)
