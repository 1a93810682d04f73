"""One training step in time: what lives beside weights and optimizer state while it runs forward, back and steps.

The layers are played one by one (`layer.py`). Without gradient checkpointing what each keeps adds up; with it only
the layers' inputs do, and one layer at a time is run again and walked back (transformers 5.23, modeling_layers.py).
Gradients of the adapter grow while the layers are walked back, and lie there from the start when they accumulate.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self

from estimator.errors import UnsupportedError
from estimator.sizes.memory.activations.kinds import kinds_of
from estimator.sizes.memory.activations.layer import activated, layer
from estimator.sizes.memory.activations.loss import loss
from estimator.sizes.memory.activations.matrix import Setting, linear, normed
from estimator.sizes.memory.activations.tape import Played, Tape
from estimator.sizes.memory.blocks import Block, Linear, is_adapted, on_the_tape
from estimator.sizes.memory.norms import Norm


class Step(NamedTuple):
    """Bytes beside weights, adapter and optimizer state. Each moment is the most that lives while it lasts."""

    kept: int  # by autograd between the passes
    forward: int
    loss: int
    backward: int
    walk: int  # the most that one layer, while it is walked back, needs beside what is kept
    head: int  # of `loss`, what the head needs beside what is kept
    unplaced: int = 0  # matrices of layers that are adapted, or see words, of whose use nothing is known

    def beside(self, forward: int, loss: int, backward: int) -> Self:
        """The step with so many bytes more at each moment."""
        return self._replace(forward=self.forward + forward, loss=self.loss + loss, backward=self.backward + backward)


def training_step(setting: Setting, gradient_bytes: int) -> Step:
    """The step of this model and run; gradient_bytes: of the adapter's gradients.

    Raises UnsupportedError where nothing says how wide the layers are.
    """
    if not setting.shape.hidden:
        what = "Activations can't be had: config.json does not say how wide the layers are."
        raise UnsupportedError(what, where="hidden_size", way_out="add hidden_size to config.json")
    if setting.shape.pieces:
        setting = setting.seeing(setting.shape)
    x_bytes = _wide(setting)
    walked = list(_layers(setting))
    played = [part for part, _, _ in walked]
    checkpointed = setting.training.gradient_checkpointing
    offloads = setting.software.offloads_inputs
    inputs = [0 if offloads else wide for _, wide, _ in walked]
    there = inputs if checkpointed else [p.kept + (wide if p.keeps_input else 0) for p, wide, _ in walked]
    kept = _between_layers(setting)
    forward = 0
    for (part, wide, _), own in zip(walked, there, strict=True):
        running = part.forward - part.kept if checkpointed else part.forward
        forward = max(forward, kept + wide + running)
        kept += own
    head = _head(setting, sum(part.named for part in played), needs_grad=_reaches_the_head(setting))
    kept_by_head = head.kept + (x_bytes if head.keeps_input else 0)
    gradients = gradient_bytes if setting.training.gradient_accumulation > 1 else 0
    in_loss = max(head.forward + x_bytes + _cached(setting), head.backward + (kept_by_head - head.kept)) + gradients
    first, between = _gradients(setting, gradient_bytes)
    backward, walk, before = x_bytes + gradient_bytes, 0, kept  # the last gradients are made when all is walked back
    for index in range(len(played) - 1, -1, -1):
        (part, wide, _), own = walked[index], there[index]
        before -= own
        own = wide if checkpointed else own
        here = own + max(part.backward, part.again) if checkpointed else own - part.kept + part.backward
        grown = gradients or first + between * (len(played) - index) // len(played)
        backward, walk = max(backward, before + here + grown), max(walk, here - own)
    unplaced = sum(number for _, _, number in walked)
    forward += _cached(setting)
    step = Step(kept + kept_by_head, forward, kept + in_loss, backward, walk, in_loss, unplaced)
    mask, named = _mask(setting), _named_logits(setting)
    given = setting.training.tokens * setting.shape.for_layers * setting.residual if _gives_layers(setting) else 0
    given += _shared_zeros(setting)  # their gradient
    step = step.beside(named, named, named)
    return step.beside(mask, mask * checkpointed, mask * checkpointed + given)


def _gradients(setting: Setting, gradient_bytes: int) -> tuple[int, int]:
    """Of these bytes those that come before the layers are walked back, and those that come while they are."""
    adapter = setting.adapter
    first, last = (
        gradient_bytes * own // max(adapter.parameter_bytes, 1) for own in (adapter.behind_bytes, adapter.before_bytes)
    )
    return first, gradient_bytes - first - last


def _wide(setting: Setting) -> int:
    """Bytes of what goes from layer to layer."""
    return setting.training.tokens * setting.shape.hidden * setting.residual


def _gives_layers(setting: Setting) -> bool:
    """Whether what layers are given beside needs a gradient, which is made whole and added to layer by layer."""
    return setting.shape.for_layers > 0 and (setting.training.gradient_checkpointing or setting.adapter.trains_before)


def _named_logits(setting: Setting) -> int:
    """Bytes of logits that outlive the forward pass; under autocast accelerate hands over a float32 copy."""
    whole = setting.training.loss in ("standard", "in_place")
    if not setting.software.names_logits or not whole:
        return 0
    return setting.training.tokens * setting.shape.vocabulary * (4 if setting.autocast else setting.head_width)


def _mask(setting: Setting) -> int:
    """Bytes of the masks that attention is given, one for each kind of layer; checkpointed layers are given them again.

    Eager attention adds them to its scores, sdpa has them as booleans.
    """
    seeing = [block for block in setting.shape.blocks if not block.tower]
    masked = [block for block in seeing if setting.masks and setting.eager or setting.masked(block)]
    width = setting.base_width if setting.eager else 1
    return setting.training.tokens * setting.training.sequence_length * width * len({b.window > 0 for b in masked})


def _between_layers(setting: Setting) -> int:
    """Bytes that embeddings' norms and dropout, an encoder's end and relative positions keep, outside the layers."""
    shape, training = setting.shape, setting.training
    _, last = shape.outer_norms
    is_two = any(block.cross for block in shape.blocks)
    encoder = setting.seeing(next(iter(shape.towers.values()))) if len(shape.towers) == 1 else setting
    kept = 0
    if training.gradient_checkpointing:
        sees_words = any(not block.tower for block in shape.blocks)
        parts = [*([setting] if sees_words else []), *map(setting.of, shape.towers)]
        kept = sum(map(_embedded, parts)) + is_two * _wide(encoder)
    kept += sum(_kept_before(item, setting) for item in shape.before)
    if _gives_layers(setting):  # as float32 before their norm, and as given
        kept += training.tokens * shape.for_layers * (4 + setting.residual)
    kept += (1 + is_two) * _shared_bias(setting) + _shared_zeros(setting)
    if is_two and last > 1:
        tape = Tape(encoder.training.tokens)
        norm = _final(setting, shape.hidden)._replace(name="")
        end = tape.play(normed(tape, tape.input(shape.hidden, setting.residual), norm, encoder))
        kept += end.kept + (_wide(encoder) if end.keeps_input else 0)
    return kept


def _shared_bias(setting: Setting) -> int:
    """Bytes of the bias that checkpointed layers of a stack are given."""
    shape, training = setting.shape, setting.training
    given = shape.shares_bias and training.gradient_checkpointing
    return shape.heads * training.sequence_length**2 * setting.base_width * given


def _shared_zeros(setting: Setting) -> int:
    """The same of a decoder's layers where they look at the encoder; it wants a gradient (modeling_t5.py)."""
    across = any(block.cross for block in setting.shape.blocks)
    return across * _shared_bias(setting) * (2 if setting.autocast else setting.base_width) // setting.base_width


def _kept_before(item: Linear, setting: Setting) -> int:
    """Bytes that a matrix between embeddings and layers keeps."""
    tape = Tape(setting.training.tokens)
    x = tape.input(item.inputs, setting.embedded, needs_grad=setting.training.gradient_checkpointing)
    part = tape.play(linear(tape, x, item, setting))
    return part.kept + (x.size if part.keeps_input else 0)


def _embedded(setting: Setting) -> int:
    """Bytes that embeddings, made to need gradients, keep before the first layer, beside its input."""
    shape = setting.shape
    masks = setting.training.tokens * shape.hidden if shape.drops_states else 0  # of the dropout behind them
    return _wide(setting) * (shape.outer_norms[0] + shape.embedded) + masks


def _layers(setting: Setting) -> Iterator[tuple[Played, int, int]]:
    """The layers as played, the bytes of what goes in, and the matrices left over; those alike are played once.

    Nothing before the first adapted matrix needs a gradient.
    """
    known: dict[tuple[bool, int, int], tuple[Played, int]] = {}
    trained, needs_grad = _trained(setting), _reaches_the_layers(setting)
    for index, (block, kind) in enumerate(_walked(setting)):
        own = setting.of(block.tower)
        width = own.residual if index else own.embedded
        key = (needs_grad, width, kind)
        if key not in known:
            tape = Tape(own.training.tokens, names_all=own.software.names_all)
            x = tape.input(own.shape.hidden, width, needs_grad=needs_grad)
            out = layer(tape, x, block, own)
            known[key] = tape.play(out), _unplaced(block, tape, setting)
        part, left = known[key]
        yield part, own.training.tokens * own.shape.hidden * width, left
        needs_grad = needs_grad or not trained.isdisjoint(on_the_tape(block))


def _unplaced(block: Block, tape: Tape, setting: Setting) -> int:
    """Matrices that the layer's tape has no place for; a tower that is frozen may see nothing."""
    if block.tower and not is_adapted(block, setting.adapter.trained_modules):
        return 0
    matrices = (item for item in (*block.attention, *block.cross, *block.mlp) if ".experts." not in item.name)
    return block.unread + sum(item.name not in tape.placed for item in matrices)


def _trained(setting: Setting) -> frozenset[str]:
    return setting.adapter.trained_modules | setting.adapter.open_norms


def _reaches_the_layers(setting: Setting) -> bool:
    """Whether what goes into the first layer needs a gradient."""
    software = setting.software
    made_to = software.wants_inputs or (software.renews_embeddings and bool(setting.packed))
    return setting.training.gradient_checkpointing or setting.adapter.trains_before or made_to


def _reaches_the_head(setting: Setting) -> bool:
    """Whether what comes out of the last layer needs one."""
    trained = _trained(setting)
    return _reaches_the_layers(setting) or any(not trained.isdisjoint(on_the_tape(b)) for b, _ in _walked(setting))


def _walked(setting: Setting) -> list[tuple[Block, int]]:
    """The layers, each with its kind; a tower of images or sound that is frozen is none of them.

    With checkpointing its inputs are made to need gradients.

    transformers 5.23, modeling_utils.py, enable_input_require_grads.
    """
    kinds = setting.kinds or kinds_of(setting.shape.blocks, setting.adapter, setting.packed)
    blocks, trained = list(zip(setting.shape.blocks, kinds, strict=True)), setting.adapter.trained_modules
    if setting.training.gradient_checkpointing:
        return blocks
    return [(block, kind) for block, kind in blocks if not block.tower or is_adapted(block, trained)]


def _cached(setting: Setting) -> int:
    """Bytes of keys and values that only the cache holds, until the model's outputs go: copies of them are kept.

    Copies are made where flash attention takes 16 bits of float32, and where eager attention, or sdpa with a mask,
    repeats or widens them.
    """
    training = setting.training
    narrow = setting.autocast or training.attention == "flash_attention_2"
    wide = setting.shape.support.wide_products and not setting.autocast
    total = 0
    for block in filter(setting.caches, setting.shape.blocks):
        is_wide = setting.kbit and any(item.name in setting.packed for item in block.attention)
        shares = block.key_value < block.query
        copied = shares or wide if setting.eager else is_wide and narrow or shares and setting.masked(block)
        width = 4 if is_wide else 2 if setting.autocast else setting.base_width
        total += 2 * training.tokens * block.key_value * width if copied or block.looks_twice else 0
    return total


def _head(setting: Setting, named: int, *, needs_grad: bool) -> Played:
    """Final norm, logits and loss of what needs a gradient or not.

    named: bytes that a graph keeps by hand while the step before's is named.
    """
    tape = Tape(setting.training.tokens)
    graph = tape.run((), named // tape.tokens, 1) if setting.software.names_last_step else None
    x = tape.input(setting.shape.hidden, setting.residual, needs_grad=needs_grad)
    shape = setting.shape
    made = x
    if shape.behind is not None:
        fed = normed(tape, x, _final(setting, x.elements), setting) if shape.outer_norms[1] > 1 else x
        made = linear(tape, fed, shape.behind, setting)
        made = activated(tape, made, made.elements, setting)
    ends = shape.outer_norms[1] > 0 or made.elements != x.elements
    last = normed(tape, made, _final(setting, made.elements), setting) if ends else made
    if not setting.shape.vocabulary:
        return tape.play(last)
    out = loss(tape, last, setting)
    tape.hold(last)
    if graph is not None:
        tape.hold(graph)
    return tape.play(out)


def _final(setting: Setting, width: int) -> Norm:
    """A norm like those of the layers."""
    norms = [norm for block in setting.shape.blocks[-1:] for norm in block.norms if not norm.role]
    return Norm(width, "rms" if not norms else norms[0].kind, name=setting.shape.final_norm)
