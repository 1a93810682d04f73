"""Which parameters of the class that is built no file holds: they are made anew as the model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from estimator.architecture.facts import class_for
from estimator.architecture.module import ModuleTree, named_parameters
from estimator.errors import LoraSizeError
from estimator.notes import Note


def with_unstored(tree: ModuleTree, config: Mapping[str, Any], stored: Iterable[str] | None) -> ModuleTree:
    """The tree with the parameters that are made anew: a task's head, and what a file lacks of its own class.

    stored: the file's names; None where there are no headers, and the class that config.json names tells what is held,
    or its model type's, where it names none.
    """
    named = next(iter(config.get("architectures") or ()), None) or class_for(config.get("model_type"), None)
    names = {name for name, _ in named_parameters(tree.modules)}
    notes: tuple[Note, ...] = ()
    if stored is not None:
        held = _held_by_file(tree, config, stored)
    elif named is not None and tree.architecture != named:
        held, notes = _held_by_class(names, config)
    else:
        return tree
    unstored = frozenset(names - held - {*tree.tied, *tree.tied.values()})
    return tree._replace(unstored=unstored, notes=(*tree.notes, *notes))


def _held_by_file(tree: ModuleTree, config: Mapping[str, Any], stored: Iterable[str]) -> set[str]:
    """By the names that the class which is built gives them: Llama's for question answering has a prefix of its own."""
    from estimator.architecture.stored_names import held_parameters

    built = {"architectures": [tree.architecture]}
    return held_parameters({**config, **built}, tree._replace(config={**tree.config, **built}), stored)


def _held_by_class(names: set[str], config: Mapping[str, Any]) -> tuple[set[str], tuple[Note, ...]]:
    """What a file of the class that config.json is of holds of these; everything where that class is not known.

    All of the parts that it has: files hold more of those than the class (BERT's pooler, of a class for masked words).
    """
    from estimator.jobs.by_config import by_config

    try:
        saved = {name for name, _ in named_parameters(by_config(config, None, None).modules)}
    except LoraSizeError:
        return names, ()
    parts = {_part(name) for name in names}
    inside = {_part(name) for name in names if name.partition(".")[2] in saved}  # a base model, in a class with a head
    known = parts.intersection(map(_part, saved)) or inside
    held = {name for name in names if _part(name) in known} if known else names
    unsure = sorted(name for name in held if known and name not in saved and name.partition(".")[2] not in saved)
    return held, (_assumed(unsure),) if 0 < len(unsure) < len(held) // 2 else ()


def _part(name: str) -> str:
    return name.partition(".")[0]


def _assumed(names: list[str]) -> Note:
    others = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    message = (
        f"Whether the file holds {names[0]}{others} is not known without headers: taken as stored. What is made anew "
        "stays unquantised in 4 and 8 bits."
    )
    return Note("stored_assumed", message)
