"""Bytes that autograd keeps for the backward pass, for each token, of one repeated layer and of the head.

What is kept follows from torch's derivatives (tools/autograd/derivatives.yaml, torch 2.13) applied to what the layers
of transformers compute (5.23.0) and to PEFT's LoRA layers (0.21.2, peft/tuners/lora/layer.py):

- a frozen matrix keeps nothing of its input: only its weight is needed for the gradient of the input;
- lora_A keeps its input: a copy in its own dtype where that differs, or where dropout stands before it (with a byte
  for each element of the mask); lora_B keeps the r elements between;
- an RMSNorm written in Python keeps the float32 copy of its input; torch's layer_norm keeps the input itself;
- scaled dot product and flash attention keep query, key, value, output and a float32 for each head;
- a gated MLP keeps the input of the activation, its output, and the other factor; a plain one the activation's input.
"""

from __future__ import annotations

from collections.abc import Iterable

from estimator.sizes.blocks import Block, Linear, Norm, Shape
from estimator.sizes.training import Adapter, Training

_STEPS = {"gelu_new": 4, "gelu_fast": 4, "gelu_accurate": 4, "quick_gelu": 3}  # tensors kept by those written in Python


class Widths:
    """Bytes of an element in each place."""

    __slots__ = ("adapter", "compute", "residual")

    def __init__(self, *, base: int, kbit: bool, training: Training, adapter: Adapter) -> None:
        autocast = training.mixed_precision != "no"
        self.residual = 4 if kbit else base  # between layers: the embedding's dtype
        self.compute = 2 if autocast else base  # what matrices give
        self.adapter = 2 if autocast else adapter.width  # what lora_A is fed


def block_bytes(block: Block, shape: Shape, training: Training, adapter: Adapter, widths: Widths) -> int:
    """Bytes for a token that one layer keeps."""
    return (
        _norms(block, widths, training)
        + _attention(block, shape, training, widths)
        + _mlp(block, shape, widths)
        + _lora(block, adapter, widths)
    )


def _norms(block: Block, widths: Widths, training: Training) -> int:
    """Norms of a parallel block share the input that torch's layer_norm keeps."""
    shared = block.is_parallel and not any(norm.is_rms for norm in block.norms)
    residual = [_norm(norm, block, widths, training) for norm in block.norms if not norm.role]
    on_heads = sum(_norm(norm, block, widths, training) for norm in block.norms if norm.role)
    return on_heads + (residual[0] if shared and residual else sum(residual))


def unreached_bytes(block: Block, shape: Shape, training: Training, adapter: Adapter, widths: Widths) -> int:
    """What the first layer does not keep: nothing before its first adapted matrix needs a gradient."""
    residual = [norm for norm in block.norms if not norm.role]
    if not block.is_parallel or any(item.name in adapter.ranks for item in block.mlp):
        return _norm(residual[0], block, widths, training) if residual else 0
    return _norms(block, widths, training) + _mlp(block, shape, widths)


def _norm(norm: Norm, block: Block, widths: Widths, training: Training) -> int:
    if norm.role:
        width = block.query if norm.role == "q" else block.key_value
        return 4 * width + 4 * (width // norm.width)
    if norm.is_rms:
        return 4 * norm.width + 4
    width = 4 if training.mixed_precision != "no" else widths.residual
    return width * norm.width + 8


def _attention(block: Block, shape: Shape, training: Training, widths: Widths) -> int:
    query, key_value = block.query, block.key_value
    if training.attention == "eager":
        scores = shape.heads * training.sequence_length
        each = 4 + (widths.compute if widths.compute != 4 else 0) + (widths.compute if shape.caps_scores else 0)
        return widths.compute * 3 * query + scores * each
    # The cache that a training forward pass fills as well copies key and value out of a fused matrix.
    fused = not shape.is_rotary and any(item.outputs > query for item in block.attention)
    copies = 2 if fused and not training.gradient_checkpointing else 0
    return widths.compute * (2 * query + (2 + copies) * key_value) + 4 * shape.heads


def _mlp(block: Block, shape: Shape, widths: Widths) -> int:
    kept = 3 if block.is_gated else _STEPS.get(shape.activation, 1)
    dense = widths.compute * kept * block.inner
    if not block.experts:
        return dense
    return block.experts_per_token * (dense + widths.compute * shape.hidden) + 8 * block.experts


def _lora(block: Block, adapter: Adapter, widths: Widths) -> int:
    adapted = [item for item in (*block.attention, *block.mlp) if item.name in adapter.ranks]
    if not adapted:
        return 0
    between = sum(adapter.ranks[item.name] for item in adapted) * widths.adapter
    if adapter.dropout > 0:
        return between + sum((widths.adapter + 1) * item.inputs for item in adapted)
    if widths.adapter != widths.compute or adapter.width != widths.compute:
        return between + sum(widths.adapter * item.inputs for item in adapted)
    return between + widths.compute * _distinct_inputs(adapted, block)


def _distinct_inputs(adapted: Iterable[Linear], block: Block) -> int:
    """Elements kept for LoRA alone: matrices side by side share their input, attention keeps its output anyway."""
    attention, mlp = set(block.attention), set(block.mlp)
    shared = {("attention" if item in attention else "mlp", item.inputs == block.inner and item in mlp): item.inputs
              for item in adapted if not (item in attention and item is block.attention[-1])}  # fmt: skip
    return sum(shared.values())


def backward_bytes(block: Block, shape: Shape, widths: Widths) -> int:
    """Gradients that live side by side while the layer's MLP is walked back: of its factors, product and output."""
    factors = 3 if block.is_gated else 2
    return widths.compute * (factors * block.inner * block.experts_per_token + shape.hidden)


def head_bytes(shape: Shape, training: Training, widths: Widths) -> tuple[float, float, float]:
    """Bytes for a token of logits and loss where they peak: lower, expected, upper.

    Standard: float32 log-probabilities, their gradient and the logits' gradient (12 bytes for a vocabulary entry) in
    the backward pass. Lower: a kernel that works in place; upper: releases that keep a shifted copy and the logits.
    Fused: rows of logits as many as the hidden width is of the vocabulary, as liger-kernel cuts them.
    """
    entries = shape.vocabulary
    if training.loss == "fused":
        each = shape.hidden * (widths.compute + 4)
        return each / 2, each, 3 * each
    if training.loss == "chunked":
        return entries * widths.compute, entries * (widths.compute + 4), entries * 12
    return entries * 8.0, entries * 12.0, entries * 15.5


def kept_bytes(shape: Shape, training: Training, adapter: Adapter, widths: Widths) -> int:
    """Bytes for a token that autograd keeps between the forward and the backward pass, the loss included."""
    is_rms = any(norm.is_rms for block in shape.blocks for norm in block.norms)
    ends = shape.hidden * (4 if is_rms else widths.residual) + 4
    if training.loss == "standard":
        ends += shape.vocabulary * (4 + (widths.compute if shape.caps_logits else 0))
    if training.gradient_checkpointing:
        return len(shape.blocks) * shape.hidden * widths.residual + ends
    whole = sum(block_bytes(block, shape, training, adapter, widths) for block in shape.blocks)
    return whole + ends - (unreached_bytes(shape.blocks[0], shape, training, adapter, widths) if shape.blocks else 0)
