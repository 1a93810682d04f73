"""Logits and loss as operations on a tape.

Sources: ForCausalLMLoss of transformers 5.23.0 (loss_utils.py), liger-kernel 0.6, litgpt, TRL 1.10 (sft_trainer.py).
"""

from math import ceil

from estimator.sizes.memory.activations.matrix import Setting, adapted
from estimator.sizes.memory.activations.tape import Tape, Tensor
from estimator.sizes.memory.blocks import Linear


def loss(tape: Tape, x: Tensor, setting: Setting) -> Tensor:
    """The loss of what comes out of the last norm, as the training has it."""
    kinds = {"fused": _fused_loss, "in_rows": _loss_in_rows, "chunked": _chunked_loss}
    return kinds.get(setting.training.loss, _whole_loss)(tape, x, setting)


def _logits(tape: Tape, x: Tensor, setting: Setting) -> Tensor:
    shape, width = setting.shape, 2 if setting.autocast else setting.head_width
    cast = 2 * shape.hidden * shape.vocabulary if setting.autocast and setting.head_width == 4 else 0
    unpacked = 2 * x.elements * shape.vocabulary * (2 if setting.software.unpacks_as_half else 1)
    scratch = unpacked if setting.software.own_head and setting.packed else 0
    rows = shape.vocabulary * shape.hidden * setting.head_width if shape.head in setting.adapter.rows else 0
    opens = shape.head in setting.adapter.opened
    gradient = shape.vocabulary * shape.hidden * setting.head_width * opens
    logits = tape.run(
        (x,),
        shape.vocabulary,
        width,
        saves=(x,) * opens,
        keeps=cast + rows,
        scratch=scratch + rows,
        trains=opens,
        unwinds=gradient,
    )
    if shape.head in setting.adapter.ranks:
        logits = adapted(tape, x, logits, Linear(shape.head, x.elements, shape.vocabulary), setting)
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
    """Logits whole, log-softmax a chunk at a time, in float32; litgpt's logits are copied to float32 before.

    torchtune's, compiled, makes a chunk's gradient as its logits go (0.7, CEWithChunkedOutputLoss).
    """
    software, entries = setting.software, setting.shape.vocabulary
    before = tape.run((), entries, 4) if software.names_last_step else None
    logits = _logits(tape, x, setting)
    if software.copies_logits and logits.width < 4:
        wide = tape.run((logits,), entries, 4, saves_output=True, overwrites=True)  # named to the end
        tape.hold(logits)
        logits = wide
    if before is not None:
        tape.hold(before)
    if software.in_place_loss:
        return tape.run((logits,), 1, 4, saves=(logits,), overwrites=True)
    chances = tape.run((logits,), entries, 4, passes=True)
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


def _loss_in_rows(tape: Tape, x: Tensor, setting: Setting) -> Tensor:
    """TRL's SFT (1.5 to 1.10, _chunked_cross_entropy_loss): 256 rows at a time, against the head in float32.

    Each is run again on the way back. Releases after that hold no copy of the head (1.16, kernels/chunked_logprob.py).
    """
    if setting.software.in_place_loss:
        return _fused_loss(tape, x, setting)
    head, rows = setting.shape.vocabulary * x.elements, min(256, tape.tokens) * setting.shape.vocabulary
    widened, narrowed = 4 * head * (setting.head_width < 4), 2 * head * setting.autocast
    kept = narrowed or widened  # for the gradient of what comes in
    opens = setting.shape.head in setting.adapter.opened
    ordered = tape.run((x,), x.elements, x.width)  # what has a label comes first
    return tape.run(
        (ordered,),
        1,
        4,
        saves=(ordered,),
        # logits, log-softmax, its exponential and their product, all float32, or the logits in 16 bits
        scratch=kept + max(widened * setting.autocast + 2 * rows, (14 if setting.autocast else 16) * rows),
        trains=opens,
        unwinds=head * setting.head_width * opens,
    )
