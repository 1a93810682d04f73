"""One training step in time: what lives beside weights and optimizer state while it runs forward, back and steps.

The layers are played one by one (`layer_tape`). Without gradient checkpointing what each keeps adds up; with it only
the layers' inputs do, and one layer at a time is run again and walked back (transformers 5.23, modeling_layers.py).
Gradients of the adapter grow while the layers are walked back, and lie there from the start when they accumulate.
"""

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple, Self

from estimator.errors import UnsupportedError
from estimator.sizes.blocks import Block, Linear, Norm, is_adapted, on_the_tape
from estimator.sizes.layer_tape import layer
from estimator.sizes.matrix_tape import Setting, adapted, normed
from estimator.sizes.tape import Played, Tape, Tensor


class Step(NamedTuple):
    """Bytes beside weights, adapter and optimizer state. Each moment is the most that lives while it lasts."""

    kept: int  # by autograd between the passes
    forward: int
    loss: int
    backward: int
    walk: int  # of `backward`, what one layer needs beside what is kept
    head: int  # of `loss`, what the head needs beside what is kept

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
    played = [part for part, _ in walked]
    checkpointed = setting.training.gradient_checkpointing
    there = [wide if checkpointed else p.kept + (wide if p.keeps_input else 0) for p, wide in walked]
    kept = _between_layers(setting)
    forward = 0
    for (part, wide), own in zip(walked, there, strict=True):
        running = part.forward - part.kept if checkpointed else part.forward
        forward = max(forward, kept + wide + running)
        kept += own
    head = _head(setting, sum(part.named for part in played), needs_grad=_reaches_the_head(setting))
    kept_by_head = head.kept + (x_bytes if head.keeps_input else 0)
    gradients = gradient_bytes if setting.training.gradient_accumulation > 1 else 0
    in_loss = max(head.forward + x_bytes + _cached(setting), head.backward + (kept_by_head - head.kept)) + gradients
    backward, walk, before = 0, 0, kept
    for index in range(len(played) - 1, -1, -1):
        part, own = played[index], there[index]
        before -= own
        here = own + max(part.backward, part.again) if checkpointed else own - part.kept + part.backward
        grown = gradients or gradient_bytes * (len(played) - index) // len(played)
        if before + here + grown > backward:
            backward, walk = before + here + grown, here - own
    step = Step(kept + kept_by_head, forward, kept + in_loss, backward, max(walk, 0), in_loss)
    mask = _mask(setting)
    return step.beside(mask, mask * checkpointed, mask * checkpointed)


def _wide(setting: Setting) -> int:
    """Bytes of what goes from layer to layer."""
    return setting.training.tokens * setting.shape.hidden * setting.residual


def _mask(setting: Setting) -> int:
    """Bytes of the mask that eager attention adds to its scores; checkpointed layers are given it again."""
    sees_words = setting.eager and any(not block.tower for block in setting.shape.blocks)
    return setting.training.tokens * setting.training.sequence_length * setting.base_width if sees_words else 0


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
    if shape.biases_scores:
        rows = training.tokens + (training.sequence_length if is_two else 0)  # a decoder's with its mask, an encoder's
        kept += shape.heads * rows * training.sequence_length * setting.base_width
    if is_two and last > 1:
        tape = Tape(encoder.training.tokens)
        norm = _final(setting)._replace(name="")
        end = tape.play(normed(tape, tape.input(shape.hidden, setting.residual), norm, encoder))
        kept += end.kept + (_wide(encoder) if end.keeps_input else 0)
    return kept


def _embedded(setting: Setting) -> int:
    """Bytes that embeddings, made to need gradients, keep before the first layer, beside its input."""
    shape = setting.shape
    masks = setting.training.tokens * shape.hidden if shape.drops_states else 0  # of the dropout behind them
    return _wide(setting) * (shape.outer_norms[0] + shape.embedded) + masks


def _layers(setting: Setting) -> Iterator[tuple[Played, int]]:
    """The layers as played, and the bytes of what goes in; those alike are played once.

    Nothing before the first adapted matrix needs a gradient.
    """
    known: dict[object, Played] = {}
    trained, needs_grad = _trained(setting), _reaches_the_layers(setting)
    for index, block in enumerate(_walked(setting)):
        own = setting.of(block.tower)
        width = own.residual if index else own.embedded
        key = (needs_grad, width, block.tower, _likeness(block, setting))
        if key not in known:
            tape = Tape(own.training.tokens, names_all=own.software.names_all)
            x = tape.input(own.shape.hidden, width, needs_grad=needs_grad)
            known[key] = tape.play(layer(tape, x, block, own))
        yield known[key], own.training.tokens * own.shape.hidden * width
        needs_grad = needs_grad or not trained.isdisjoint(on_the_tape(block))


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
    return _reaches_the_layers(setting) or any(not trained.isdisjoint(on_the_tape(b)) for b in _walked(setting))


def _walked(setting: Setting) -> list[Block]:
    """Without a tower of images or sound that is frozen; with checkpointing its inputs are made to need gradients.

    transformers 5.23, modeling_utils.py, enable_input_require_grads.
    """
    blocks, trained = setting.shape.blocks, setting.adapter.trained_modules
    if setting.training.gradient_checkpointing:
        return list(blocks)
    return [block for block in blocks if not block.tower or is_adapted(block, trained)]


def _cached(setting: Setting) -> int:
    """Bytes of keys and values that only the cache holds, until the model's outputs go: copies of them are kept.

    Copies are made where flash attention takes 16 bits of float32, and where eager attention repeats them.
    """
    training = setting.training
    if training.gradient_checkpointing:
        return 0
    narrow = setting.autocast or training.attention == "flash_attention_2"
    total = 0
    for block in (b for b in setting.shape.blocks if not b.tower):
        is_wide = setting.kbit and any(item.name in setting.packed for item in block.attention)
        copied = block.key_value < block.query if setting.eager else is_wide and narrow
        width = 4 if is_wide else 2 if setting.autocast else setting.base_width
        total += 2 * training.tokens * block.key_value * width if copied else 0
    return total


def _likeness(block: Block, setting: Setting) -> object:
    adapter, ranks = setting.adapter, setting.adapter.ranks
    every = (setting.packed, adapter.still, adapter.still_down, adapter.still_up, adapter.biased_up, adapter.opened,
             adapter.biased)  # fmt: skip
    parts = [part for part in every if part]
    matrices = tuple(
        (i.name.rpartition(".")[2], i.inputs, i.outputs, ranks.get(i.name), *[i.name in part for part in parts])
        for i in (*block.attention, *block.cross, *block.state, *block.mlp)
    )
    fused = block.fused and (block.fused.name, f"{block.fused.name}.base_layer", block.fused.router)
    experts = [(ranks.get(name), adapter.wrapped.get(name), *[name in part for part in parts]) for name in fused or ()]
    norms = [(*norm[:3], norm.name.rpartition(".")[2], norm.name in adapter.open_norms) for norm in block.norms]
    return matrices, tuple(norms), block.query, block.key_value, block.inner, block.experts, tuple(experts)


def _head(setting: Setting, named: int, *, needs_grad: bool) -> Played:
    """Final norm, logits and loss of what needs a gradient or not.

    named: bytes that a graph keeps by hand while the step before's is named.
    """
    tape = Tape(setting.training.tokens)
    graph = tape.run((), named // tape.tokens, 1) if setting.software.names_last_step else None
    x = tape.input(setting.shape.hidden, setting.residual, needs_grad=needs_grad)
    last = normed(tape, x, _final(setting), setting) if setting.shape.outer_norms[1] else x
    if not setting.shape.vocabulary:
        return tape.play(last)
    kinds = {"fused": _fused_loss, "chunked": _chunked_loss}
    out = kinds.get(setting.training.loss, _whole_loss)(tape, last, setting)
    tape.hold(last)
    if graph is not None:
        tape.hold(graph)
    return tape.play(out)


def _final(setting: Setting) -> Norm:
    """A norm like those of the layers."""
    norms = [norm for block in setting.shape.blocks[-1:] for norm in block.norms if not norm.role]
    return Norm(setting.shape.hidden, "rms" if not norms else norms[0].kind, name=setting.shape.final_norm)


def _logits(tape: Tape, x: Tensor, setting: Setting) -> Tensor:
    shape, width = setting.shape, 2 if setting.autocast else setting.head_width
    cast = 2 * shape.hidden * shape.vocabulary if setting.autocast and setting.head_width == 4 else 0
    unpacked = 2 * x.elements * shape.vocabulary * (2 if setting.software.unpacks_as_half else 1)
    scratch = unpacked if setting.software.own_head and setting.packed else 0
    rows = shape.vocabulary * shape.hidden * setting.head_width if shape.head in setting.adapter.rows else 0
    opens = shape.head in setting.adapter.opened
    logits = tape.run(
        (x,), shape.vocabulary, width, saves=(x,) * opens, keeps=cast + rows, scratch=scratch + rows, trains=opens
    )
    if shape.head in setting.adapter.ranks:
        logits = adapted(tape, x, logits, Linear(shape.head, shape.hidden, shape.vocabulary), setting)
    if shape.caps_logits:
        logits = tape.run((logits,), shape.vocabulary, width)
        logits = tape.run((logits,), shape.vocabulary, width, saves_output=True)
        logits = tape.run((logits,), shape.vocabulary, width)
    return logits


def _whole_loss(tape: Tape, x: Tensor, setting: Setting) -> Tensor:
    """ForCausalLMLoss: logits as float32, their log-softmax, the negative log-likelihood."""
    entries, software = setting.shape.vocabulary, setting.software
    logits = _logits(tape, x, setting)
    width = logits.width if setting.shape.narrow_loss and not setting.autocast else 4  # autocast takes float32
    wide = logits if logits.width == width else tape.run((logits,), entries, width)
    named = (wide,) if software.drops_logits else (logits, wide)
    source = tape.run((wide,), entries, width) if software.shifts_logits else wide
    if software.in_place_loss or setting.training.loss == "in_place":
        out = tape.run((source,), 1, 4, saves=(source,), overwrites=True)
        tape.hold(*named)
        return _handed_over(tape, logits, out, setting)
    chances = tape.run((source,), entries, width, saves_output=True)
    tape.hold(*named, source)
    out = tape.run((chances,), 1, 4)
    tape.hold(named[0])
    return _handed_over(tape, logits, out, setting)


def _handed_over(tape: Tape, logits: Tensor, out: Tensor, setting: Setting) -> Tensor:
    """Under autocast accelerate (1.x, accelerator.py, convert_outputs_to_fp32) copies the logits that nobody reads."""
    if setting.autocast and logits.width == 2 and not setting.software.drops_logits:
        tape.run((logits,), logits.elements, 4)
        tape.hold(out)
    return out


def _chunked_loss(tape: Tape, x: Tensor, setting: Setting) -> Tensor:
    """Logits whole, log-softmax a chunk at a time, in float32; litgpt's logits are copied to float32 before."""
    software, entries = setting.software, setting.shape.vocabulary
    before = tape.run((), entries, 4) if software.names_last_step else None
    logits = _logits(tape, x, setting)
    if software.copies_logits and logits.width < 4:
        wide = tape.run((logits,), entries, 4, saves_output=True, overwrites=True)  # named to the end
        tape.hold(logits)
        logits = wide
    if before is not None:
        tape.hold(before)
    width = logits.width if software.narrow_loss else 4
    chances = tape.run((logits,), entries, width, passes=True)
    tape.hold(logits)
    return tape.run((chances,), 1, 4, saves=(chances,), overwrites=True)  # a chunk's gradient is made as its own goes


def _fused_loss(tape: Tape, x: Tensor, setting: Setting) -> Tensor:
    """liger-kernel (0.6, ops/fused_linear_cross_entropy.py): rows of logits at a time; the gradient is made at once."""
    entries, hidden = setting.shape.vocabulary, setting.shape.hidden
    rows = ceil(tape.tokens / ceil(entries / max(hidden, 1)))
    rows = min(1 << max(rows - 1, 0).bit_length(), tape.tokens)
    gradient = tape.tokens * hidden * x.width
    return tape.run(
        (x,), 1, 4, keeps=gradient, scratch=rows * entries * (x.width if setting.software.in_place_loss else 4)
    )
