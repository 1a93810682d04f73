"""What a config makes of a model: the modules, what trains, what is added, what is saved."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from estimator.lora.tensors import SavedTensor

BASE = "base"  # of Outcome.trained: what trains of the base, and is no part of the file


class AdaptedModule(NamedTuple):
    """A module on which something trains."""

    name: str  # PEFT's run-time name
    kind: str
    what: str  # PEFT's class: "Linear", "ParamWrapper", "ModulesToSaveWrapper"
    in_features: int | None
    out_features: int | None
    rank: int | None  # None: trained without LoRA, as modules_to_save and token rows are
    parameters: int  # trainable


class HeldTensor(NamedTuple):
    """A tensor in memory that PEFT adds to the base, or that trains; parameters that share it are one."""

    name: str  # at run time, as `saved_name` leaves it: inside a saved module its adapter's name stays
    dtype: str
    shape: tuple[int, ...]
    trains: bool = True
    added: bool = True  # False: the base's own


class Outcome(NamedTuple):
    """What a config makes of a model, before it is said in PEFT's words."""

    modules: tuple[AdaptedModule, ...]
    trained: Mapping[str, int]  # trainable parameters by the part of the file
    all_parameters: int  # of the base and of what was added
    tensors: tuple[SavedTensor, ...]
    save_error: str | None = None  # counting works, save_pretrained fails: why
    unread: str | None = None  # a tensor that PEFT asks for where it loads the file again, and that is not in it
    frozen: int = 0  # parameters of the adapter that a trainer froze once it was made
    apart: tuple[HeldTensor, ...] | None = None  # what is held; None: what is saved, embeddings that go along apart


def held_of(apart: tuple[HeldTensor, ...] | None, tensors: Iterable[SavedTensor]) -> tuple[HeldTensor, ...]:
    """What PEFT holds beside the base, frozen tensors and buffers included, and what trains of the base."""
    if apart is not None:
        return apart
    return tuple(HeldTensor(name, dtype, shape) for name, dtype, shape, part in tensors if part != "embeddings")
