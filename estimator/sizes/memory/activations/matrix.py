"""A matrix, LoRA beside it, and a norm, as operations on a tape; what a layer depends on beside itself.

Sources: peft 0.21.2 tuners/lora/layer.py (Linear.forward), lora/bnb.py (Linear4bit.forward), lora/dora.py; bitsandbytes
nn/modules.py (Linear4bit.forward casts its output to the input's dtype); LlamaRMSNorm of transformers 5.23.0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from estimator.sizes.memory.activations.tape import Tape, Tensor
from estimator.sizes.memory.blocks import Block, Linear
from estimator.sizes.memory.norms import Norm
from estimator.sizes.memory.shape import Shape
from estimator.sizes.memory.training import TODAY, Adapter, Software, Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What decides which tensors a layer makes, beside the layer itself."""

    shape: Shape
    training: Training
    adapter: Adapter
    base_width: int  # bytes of an element of what is not quantised
    is_half: bool = False  # that is float16, or autocast's dtype is
    head_width: int = 2  # of the output head
    kbit: bool = False  # prepare_model_for_kbit_training: norms and embeddings are float32
    packed: frozenset[str] = frozenset()  # matrices in 4 bits: unpacked each time they are used
    piece_share: float = 1.0  # of the pieces of images and sound that config.json says
    padded: bool = False
    masks: bool = True  # attention has one where it takes one; encoders of whole examples do without
    # What a decoder makes is padded too; DataCollatorForSeq2Seq gives no mask for it (data_collator.py)
    pads_decoder: bool = False
    software: Software = TODAY
    kinds: tuple[int, ...] = ()  # of the layers, as `kinds_of` has them, where they are known already

    @property
    def autocast(self) -> bool:
        return self.training.mixed_precision != "no"

    @property
    def eager(self) -> bool:
        """Whether attention's scores are whole: asked for, or all that the model's classes have."""
        whole = self.software.caps_whole_scores and self.shape.caps_scores
        return whole or self.shape.support.eager_for(self.training.attention)

    def masked(self, block: Block, *, across: bool = False) -> bool:
        """Whether sdpa is given a mask, for padding or for a window that is no longer than the sequence.

        transformers 5.23.0, masking_utils.py, _ignore_causal_mask_sdpa. litgpt says that attention is causal.
        """
        windowed = 0 < block.window <= self.training.sequence_length
        asked = self.masks and self.training.attention == "sdpa" and not self.software.fuses_heads
        padded = self.padded and (across or self.pads_decoder or not block.cross)
        return asked and not block.tower and (padded or windowed)

    def caches(self, block: Block) -> bool:
        """Whether a forward pass copies keys and values to a cache, as one that trains does too (cache_utils.py)."""
        can = self.shape.support.caches and not block.tower and not self.training.gradient_checkpointing
        return can and self.software.fills_cache

    def of(self, tower: str) -> Setting:
        """The same for a tower of images or sound, where an example has another number of pieces than of tokens."""
        return self.seeing(self.shape.towers[tower]) if tower in self.shape.towers else self

    def seeing(self, shape: Shape) -> Setting:
        pieces = ceil(self.piece_share * shape.pieces) if shape.pieces else self.training.sequence_length
        return replace(self, shape=shape, training=replace(self.training, sequence_length=pieces))

    @property
    def encoder_length(self) -> int:
        """What an example's decoder looks at, of an encoder of sound or of tokens."""
        towers = tuple(self.shape.towers.values())
        return self.seeing(towers[0]).training.sequence_length if len(towers) == 1 else self.training.sequence_length

    @property
    def embedded(self) -> int:
        """Bytes of an element before the first layer."""
        return 4 if self.kbit else self.base_width

    @property
    def residual(self) -> int:
        """Bytes of an element between layers."""
        return 4 if self.shape.wide_sums else self.embedded


def normed(tape: Tape, x: Tensor, norm: Norm, setting: Setting, elements: int = 0) -> Tensor:
    """x behind a norm, or so many of its elements: step by step in float32, or as torch has LayerNorm."""
    elements = elements or x.elements
    rows = 4 * tape.tokens * (elements // norm.width)
    out, opens = 4 if setting.kbit else x.width, norm.name in setting.adapter.open_norms
    if setting.software.fused_norms:
        return tape.run((x,), elements, out, saves=(x,), keeps=rows, trains=opens)
    if norm.kind == "torch":
        return tape.run((x,), elements, 4 if setting.autocast else out, saves=(x,), keeps=2 * rows, trains=opens)
    wide = x if x.width == 4 else tape.run((x,), elements, 4)
    if norm.kind == "wide":
        even = tape.run((wide,), elements, 4, saves=(wide,), keeps=2 * rows)
        return tape.run((even,), elements, out)
    source, whole = wide, 4 * tape.tokens * elements
    if norm.kind == "centred":  # the mean is taken off twice: for the variance, and for what is divided by it
        source, wide = (tape.run((wide,), elements, 4) for _ in range(2))
    tape.run((source,), elements, 4, saves=(source,), unwinds=4 * whole)  # pow, whose mean is all that remains
    wide = x if norm.kind == "t5" else wide  # its product is with x as it came, which is kept beside
    even = tape.run((wide,), elements, 4, saves=(wide,), keeps=rows, scratch=whole)
    even = even if x.width == 4 else tape.run((even,), elements, x.width)
    return tape.run((even,), elements, out, saves=(even,) * opens, trains=opens, asks=True)


def linear(tape: Tape, x: Tensor, item: Linear, setting: Setting) -> Tensor:
    """A matrix that is frozen keeps nothing of its input; what LoRA beside it keeps, `adapted` says."""
    tape.placed.add(item.name)
    unpacked = 2 * item.inputs * item.outputs
    if item.name in setting.packed:
        fed = x if x.width == 2 else tape.run((x,), item.inputs, 2)
        saves = (fed,) if setting.software.keeps_packed_inputs else ()
        tape.named |= {id(tensor): tensor.size for tensor in saves}
        scratch = unpacked * (2 if setting.software.unpacks_as_half else 1)
        out = tape.run((fed,), item.outputs, x.width, saves=saves, scratch=scratch)
    else:
        width = 2 if setting.autocast else setting.base_width
        cast = unpacked if setting.autocast and setting.base_width == 4 else 0
        opens, moves = item.name in setting.adapter.opened, item.name in setting.adapter.biased
        fed = tape.run((x,), item.inputs, 2) if opens and setting.autocast and x.width == 4 else x
        out = tape.run((fed,), item.outputs, width, saves=(fed,) * opens, keeps=cast, trains=opens or moves, asks=True)
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
    given, weighed = fed, _weighed(tape, fed, item, setting) if adapter.dora else None
    if setting.autocast:
        fed = fed if fed.width == 2 else tape.run((fed,), item.inputs, 2)
        width = 2
    cast = 2 * rank * (item.inputs + item.outputs) if setting.autocast and adapter.width == 4 else 0
    down, up = item.name not in adapter.still_down, item.name not in adapter.still_up
    between = tape.run((fed,), rank, width, saves=(fed,) * down, keeps=cast, trains=down, asks=True)
    moves = up or item.name in adapter.biased_up
    added = tape.run((between,), item.outputs, width, saves=(between,) * up, trains=moves, asks=True)
    if weighed is not None:
        total = _directed(tape, out, added, given, item, setting)
        tape.hold(x, cast_x, given, weighed)
        return total if total.width == out.width else tape.run((total,), item.outputs, out.width)
    added = tape.run((added,), item.outputs, width)
    tape.hold(x, cast_x)
    if packed and not setting.autocast and width != out.width:
        added = tape.run((added,), item.outputs, out.width)
    total = tape.run((out, added), item.outputs, max(out.width, width), passes=out.width == width)
    return total if total.width == out.width else tape.run((total,), item.outputs, out.width)


def _weighed(tape: Tape, given: Tensor, item: Linear, setting: Setting) -> Tensor:
    """What DoRA makes to take the norm of the whole matrix, and names until it returns: an identity that LoRA's product
    is made of, that product, and the weight in the dtype of what is given; their sum goes at once."""
    adapter, whole = setting.adapter, item.inputs * item.outputs * given.width
    is_own = item.name not in setting.packed and setting.base_width == given.width
    identity = item.inputs**2 * (2 if setting.autocast else adapter.width)
    named = identity + whole * (1 if is_own else 2)
    return tape.run((), -(-named // tape.tokens), 1, scratch=2 * whole)


def _directed(tape: Tape, out: Tensor, added: Tensor, given: Tensor, item: Linear, setting: Setting) -> Tensor:
    """DoRA: out + (m - 1) * base + m * added, with m trained. base is out, but behind a dropout it is made anew of what
    is given and of the whole weight, whose copy in another dtype autograd keeps.

    peft 0.21.2, lora/variants.py (DoraLinearVariant.forward) and lora/dora.py.
    """
    wide, base = max(out.width, setting.adapter.width), out
    if setting.adapter.dropout > 0:
        width = 2 if setting.autocast else given.width
        is_own = item.name not in setting.packed and setting.base_width == given.width == width
        fed = given if given.width == width else tape.run((given,), item.inputs, width)
        copy = 0 if is_own else width * item.inputs * item.outputs
        base = tape.run((fed,), item.outputs, width, keeps=copy, asks=True)
    whole = tape.tokens * item.outputs * wide
    unwinds = 2 * whole - base.size  # gradients of both factors are as wide as the product, before they are cast
    base = tape.run((base,), item.outputs, wide, saves=(base,), unwinds=unwinds, trains=True)
    lora = tape.run((added,), item.outputs, wide, saves=(added,), unwinds=2 * whole - added.size, trains=True)
    lora = tape.run((lora,), item.outputs, wide)
    total = tape.run((base, lora), item.outputs, wide, passes=True)
    return tape.run((out, total), item.outputs, wide, passes=out.width == wide)
