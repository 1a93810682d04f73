"""What a trainer's rule hands on, and the questions that every rule asks of a tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from estimator.architecture.module import Module, ModuleTree
from estimator.errors import UnsupportedError, UsageError
from estimator.notes import Note


class Resolved(NamedTuple):
    tree: ModuleTree  # as the trainer builds it
    lora: dict[str, Any]  # fields of a LoraConfig
    notes: tuple[Note, ...] = ()


def linear(tree: ModuleTree) -> list[Module]:
    return [module for module in tree.modules if module.kind == "Linear"]


def leaf(name: str) -> str:
    return name.rpartition(".")[2]


def has_part(name: str, parts: Sequence[str]) -> bool:
    return any(part in name for part in parts)


def has_experts(tree: ModuleTree) -> bool:
    return any(".experts" in module.name for module in tree.modules)


def uncounted(what: str, way_out: str) -> UnsupportedError:
    return UnsupportedError(f"{what}: not counted.", where="--config", way_out=way_out)


def refused(what: str, key: str, way_out: str) -> UsageError:
    """The trainer itself would stop here."""
    return UsageError(f"{what}.", where=f"{key} in --config", way_out=way_out)
