"""What the reader of a plan must know."""

from collections.abc import Iterator, Mapping
from math import prod

from estimator.jobs.planning.largest import MAX_BATCH, MAX_LENGTH, MAX_RANK, positions
from estimator.notes import Note
from estimator.report.answer import Answer
from estimator.sizes.memory.blocks import is_adapted, layer_of
from estimator.sizes.memory.shape import Shape
from estimator.sizes.memory.training import LITGPT, Software, Training

POSITIONS_UNKNOWN = Note(
    "positions_unknown",
    "The largest sequence_length is what memory alone allows: how many positions the model is made for, the config at "
    "hand does not say.",
)


def notes_of(answer: Answer, shape: Shape, training: Training, most: int | None, unplaced: int = 0) -> Iterator[Note]:
    """most: the largest sequence_length that surely fits; unplaced: matrices of whose use nothing is known."""
    yield from _attention_notes(shape, training)
    yield from _uncounted_notes(answer, shape, unplaced)
    if scans := sum(block.scan is not None and block.scan.kind != "conv" for block in shape.blocks):
        yield Note(
            "scans_in_torch",
            f"{scans} layers have a state (Mamba, linear attention): it is counted as transformers computes it where "
            "mamba-ssm or flash-linear-attention are not installed; with their kernels it takes less, which the floor "
            "allows for.",
        )
    yield from _tower_notes(answer, shape)
    yield from _sharding_notes(answer, training)
    if shape.pieces is None:  # some layer sees words
        yield from _length_notes(answer, training, most)
    experts = expert_elements(answer)
    if experts and answer.base.model.quantised:
        yield Note(
            "experts_unquantised",
            f"The {experts:,} weights of this model's fused experts stay unquantised in transformers 5; earlier "
            "releases kept experts one by one and quantised them: the lower bound allows for that.",
        )


def software_notes(training: Training, software: Software) -> Iterator[Note]:
    """Whose step is counted where an option leaves it open. software: what was taken."""
    if training.loss != "chunked" or training.software is not None:
        return
    if software == LITGPT:
        taken, why, other = "litgpt", "nothing is checkpointed or the base is packed", "torchtune"
    else:
        taken, why, other = "torchtune", "layers are checkpointed", "litgpt"
    message = (
        f"The chunked loss is taken to be {taken}'s, as {why}, and the whole step is {taken}'s; "
        f"--config with a file of {other}'s counts that one. What would save memory keeps to it."
    )
    yield Note("software_assumed", message)


def stops(largest: Mapping[str, int | None]) -> Iterator[Note]:
    """Where looking for the largest ends before memory does."""
    for name, limit in (("batch_size", MAX_BATCH), ("sequence_length", MAX_LENGTH), ("r", MAX_RANK)):
        if largest[name] == limit:
            yield Note("largest_stops", f"The largest {name} is not looked for beyond {limit:,}: more may fit.")


def _attention_notes(shape: Shape, training: Training) -> Iterator[Note]:
    """Where transformers runs another kind of attention than was asked for."""
    if training.attention != "eager" and shape.support.eager_for(training.attention):
        falls = "falls back to" if training.attention == "sdpa" else "refuses to load; planned as"
        yield Note(
            "attention_eager",
            f"transformers has no {training.attention} for this model and {falls} eager attention, whose scores grow "
            "with the square of the sequence"
            + ("; --attention flash_attention_2 keeps none." if shape.support.flash else "."),
        )


def _uncounted_notes(answer: Answer, shape: Shape, unplaced: int) -> Iterator[Note]:
    """Of what a step keeps without its being counted: such a run never surely fits."""
    if shape.is_inferred:
        yield Note(
            "activations_inferred",
            f"What {answer.tree.architecture or 'this model'} computes is not known: its activations are those of a "
            "transformer with these matrices, and nothing surely fits.",
        )
    if states := shape.states:
        yield Note(
            "states_not_modelled",
            f"{states} layers have a state (Mamba, linear attention): of what they make along the sequence only what "
            "every kernel keeps is counted; without kernels it is many times the rest, and nothing surely fits.",
        )
    elif unread := {layer_of(m.name) for m in answer.adaptation.modules} & shape.unread:
        yield Note(
            "layers_not_modelled",
            f"{len(unread)} adapted layers have no attention (convolutions): what they keep is not counted, and "
            "nothing surely fits.",
        )
    if unplaced and not shape.is_inferred:
        yield Note(
            "matrices_not_modelled",
            f"How {unplaced} matrices of this model's layers are used is not known: not all that they keep is counted, "
            "and nothing surely fits.",
        )
    if shape.convolves_behind:
        yield Note(
            "convolutions_not_modelled",
            "Convolutions behind the layers make images of what these made: what they keep is not counted, and "
            "nothing surely fits.",
        )
    if shape.runs_again:
        yield Note(
            "layers_run_again",
            f"The config counts more layers than the {len(shape.blocks)} that the model has: they run several times, "
            "and are counted once; nothing surely fits.",
        )
    if shape.looks_in_blocks:
        yield Note(
            "blocks_not_modelled",
            "Attention sees blocks of the sequence: it is counted as if each token saw all others, and nothing surely "
            "fits.",
        )


def _length_notes(answer: Answer, training: Training, most: int | None) -> Iterator[Note]:
    known = positions(answer)
    if known is None and most is not None:
        yield POSITIONS_UNKNOWN
    if known is not None and training.sequence_length > known:
        yield Note(
            "beyond_positions",
            f"{training.sequence_length:,} tokens are more than the {known:,} positions that the model's config names"
            + (", beyond which largest does not go." if most else "."),
        )


def _tower_notes(answer: Answer, shape: Shape) -> Iterator[Note]:
    """Of images and sound, whose pieces are another number than the tokens."""
    adapted = {m.name for m in answer.adaptation.modules if m.parameters}
    seeing = [block for block in shape.blocks if block.tower and is_adapted(block, adapted)]
    unknown = [block for block in seeing if block in shape.uncounted]
    towers = (tower for name, tower in shape.towers.items() if any(block.tower == name for block in seeing))
    pieces = {tower.pieces for tower in towers if tower.pieces is not None}
    said = " and ".join(f"{number:,}" for number in sorted(pieces))
    if unknown and said:
        yield Note(
            "inputs_not_tokens",
            f"{len(unknown)} adapted layers see pieces of images or sound: the middle counts one of {said} pieces in "
            "each example; how many there are no option says, and nothing surely fits.",
        )
    elif unknown:
        yield Note(
            "inputs_not_tokens",
            f"{len(unknown)} adapted layers see pieces of images or sound, whose number no option says: they are "
            "counted as --sequence-length says, and nothing surely fits.",
        )
    elif seeing:
        yield Note(
            "pieces_counted",
            f"{len(seeing)} adapted layers see {said} pieces of the image or sound in each example, as many as the "
            "model has positions for, whatever --sequence-length says; the floor allows for a sixteenth of them.",
        )


def _sharding_notes(answer: Answer, training: Training) -> Iterator[Note]:
    """ZeRO-3 and FSDP cut tensors of one dtype (peft 0.21.2, guides on DeepSpeed and FSDP with QLoRA)."""
    if training.gpus < 2 or training.strategy not in ("zero3", "fsdp"):
        return
    packed = [p.dtype for layer in answer.base.model.quantised.values() for p in layer.parameters if p.name == "weight"]
    if "I8" in packed and answer.base.loaded.precision == "int8":
        yield Note("not_sharded", f"{training.strategy} cannot cut bitsandbytes' 8-bit weights; nf4 can be cut.")
    elif "U8" in packed and answer.base.loaded.precision in ("nf4", "fp4"):
        message = f"{training.strategy} cuts 4-bit weights only where they are stored as floats: --quant-storage bf16."
        yield Note("not_sharded", message)


def expert_elements(answer: Answer) -> int:
    """Elements of fused experts, which bitsandbytes leaves alone today and packed when they stood one by one."""
    plain = (m for m in answer.tree.modules if m.kind == "other" and m.name not in answer.base.model.quantised)
    return sum(prod(p.shape) for m in plain for p in m.parameters if len(p.shape) == 3)
