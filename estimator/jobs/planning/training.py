"""The training run of a plan: the options given, else the trainer's config, else the library's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from estimator.errors import UnsupportedError
from estimator.notes import Note
from estimator.request.training_config import TrainingConfig
from estimator.sizes.memory.training import LITGPT, TODAY, UNSLOTH, Software, Training

# Classes that trainers name by their path, and the `optim` whose state is theirs.
_OPTIMIZERS = {
    "Adam": "adamw_torch",
    "AdamW": "adamw_torch",
    "SGD": "sgd",
    "RMSprop": "rmsprop",
    "Adagrad": "adagrad",
    "AdamW8bit": "adamw_bnb_8bit",
    "PagedAdamW": "paged_adamw_32bit",
    "PagedAdamW8bit": "paged_adamw_8bit",
    "Muon": "muon",
}
_OF_TRAINER = {"software", "drops_outputs", "compares", "beside", "offloads"}  # what no option says
FIELDS = tuple(field.name for field in fields(Training) if field.name not in _OF_TRAINER)
_BESIDE = {
    "reference": "; the ceiling has the logits of a reference beside the model's own.",
    "chosen": "; the ceiling has a second loss on the chosen ones.",
}
# Trainers with a step of their own; of torchtune's no option must be taken for litgpt's
_SOFTWARE = {"litgpt": LITGPT, "torchtune": TODAY, "unsloth": UNSLOTH}
# Those on transformers' Trainer, whose compute_loss hands back the loss alone (5.23, training_step), and torchtune
# (0.7, recipes/lora_finetune_single_device.py, _loss_step). Oumi has a loop of its own beside, NeMo, OpenRLHF and verl
# name what comes out while they walk back.
_DROP_OUTPUTS = {"alignment-handbook", "autotrain", "axolotl", "llamafactory", "ms-swift", "peft-sft", "torchtune",
                 "trl", "unsloth"}  # fmt: skip


def training_from(config: str | None, given: Mapping[str, Any]) -> tuple[Training, tuple[Note, ...]]:
    """A run, with a note on what came from the file. `given`: Training's fields; None where an option was not given.

    Raises what reading the file raises.
    """
    asked = {name: given[name] for name in FIELDS if given.get(name) is not None}
    said = {name: value for name, value in _said(config).items() if name not in asked}
    training = Training(**{**said, **asked})
    notes = _notes(config, said, None if "sequence_length" in {**said, **asked} else training.sequence_length)
    beside = (*_on_the_host(config, training), *_compared(config, training), *_one_gpu(config, said, asked))
    return training, (*notes, *beside)


def _said(config: str | None) -> dict[str, Any]:
    """What the file says of Training's fields; its trainer's own defaults count as said."""
    if config is None:
        return {}
    from estimator.request.files import read_config_file

    read = read_config_file(config)
    _refuse(read, config)
    values = {name: getattr(read, name, None) for name in FIELDS}
    values |= {"software": _software(read), "drops_outputs": read.trainer in _DROP_OUTPUTS or None}
    values |= {
        "compares": read.compares or None,
        "beside": read.beside,
        "offloads": tuple(sorted(read.offloads)) or None,
    }
    if values["optimizer"]:
        values["optimizer"] = _optimizer(values["optimizer"])
    return {name: value for name, value in values.items() if value is not None}


def _software(read: TrainingConfig) -> Software | None:
    """That of the trainer's step, and whether the inputs of checkpointed layers leave the GPU; None: TODAY's."""
    own = _SOFTWARE.get(read.trainer)
    if read.offloads_inputs is (own or TODAY).offloads_inputs:
        return own
    return replace(own or TODAY, offloads_inputs=read.offloads_inputs)


def _refuse(read: TrainingConfig, config: str) -> None:
    """Raises UnsupportedError for runs whose memory is not modelled."""
    if read.own.get("megatron"):
        what = "this is a run of Megatron, whose memory is not modelled."
        raise UnsupportedError(what, where=config, way_out="ask for an estimate, or plan the same with swift sft")


def _optimizer(name: str) -> str:
    """`optim` of TrainingArguments: torch.optim.AdamW and bitsandbytes' classes by the names that they have there."""
    return _OPTIMIZERS.get(name.rpartition(".")[2], name)


def _on_the_host(config: str | None, training: Training) -> tuple[Note, ...]:
    if training.software is None or not training.software.offloads_inputs:
        return ()
    if training.gradient_checkpointing:
        said = "has the inputs of checkpointed layers on the host until they are run again: they are not counted."
    else:
        said = "moves activations to the host without gradient checkpointing: they are counted on the GPU all the same."
    return (Note("activations_offloaded", f"{config} {said}"),)


def _compared(config: str | None, training: Training) -> tuple[Note, ...]:
    if not training.compares:
        return ()
    said = "trains on pairs: each example is two sequences, chosen and rejected, that go through the model at once"
    said = said if training.compares > 1 else "trains on answers that are good or bad, one sequence each"
    return (Note("compares", f"{config} {said}" + _BESIDE.get(training.beside or "", ".")),)


def _one_gpu(config: str | None, said: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[Note, ...]:
    """A word where the file shards a model and does not say over how many GPUs."""
    if "strategy" not in said or "gpus" in {**said, **asked}:
        return ()
    taken = f"on how many GPUs {said['strategy']} runs: 1 is taken, --gpus says another."
    return (Note("gpus_assumed", f"{config} does not say {taken}"),)


def _notes(config: str | None, said: Mapping[str, Any], assumed_length: int | None) -> tuple[Note, ...]:
    if not said.keys() - _OF_TRAINER:
        return ()
    values = ", ".join(f"{name} {value}" for name, value in said.items() if name not in _OF_TRAINER)
    note = Note("training_from_config", f"{config} says, with its trainer's defaults: {values}.")
    if assumed_length is None:
        return (note,)
    taken = f"{assumed_length:,} tokens are taken, --sequence-length says another."
    return note, Note("length_assumed", f"{config} sets no length of the sequences: {taken}")
