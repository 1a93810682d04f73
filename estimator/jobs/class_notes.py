"""What a reader must know of the class that is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from estimator.architecture.facts import class_for
from estimator.architecture.module import ModuleTree
from estimator.notes import Note
from estimator.source.found import Found


def notes_on_class(tree: ModuleTree, config: Mapping[str, Any], found: Found, task: str | None) -> Iterator[Note]:
    """Where a task's Auto class would build another, and where a folder's own code would."""
    yield from _other_class(tree, config, task)
    yield from _code_beside(tree, config, found)


def _other_class(tree: ModuleTree, config: Mapping[str, Any], task: str | None) -> Iterator[Note]:
    """A word where the task's Auto class would not build the class that is taken."""
    kind, taken = config.get("model_type"), tree.architecture
    if task is None or tree.basis != "exact" or not isinstance(kind, str):
        return
    usual = class_for(kind, task)
    if usual not in (None, taken):
        message = (
            f"{taken} is taken, as the checkpoint has it; transformers' Auto class for {task} would build {usual}."
        )
        yield Note("class_of_checkpoint", message)
    elif usual is None and task not in ("CAUSAL_LM", "SEQ_2_SEQ_LM"):
        message = f"transformers has no class for {task} of the model type {kind}: {taken} is taken as it is."
        yield Note("no_class_for_task", message)


def _code_beside(tree: ModuleTree, config: Mapping[str, Any], found: Found) -> Iterator[Note]:
    """A word where a folder names code of its own and a class of transformers is taken (of the Hub's, source/ says it).

    transformers 5.23.0, `resolve_trust_remote_code`: the class is its own unless trust_remote_code=True.
    """
    if found.source == "local" and config.get("auto_map") and tree.basis == "exact":
        message = f"config.json names code of its own (auto_map); it was not run: {tree.architecture} is taken."
        yield Note("custom_code", message)


def of_the_named_class(tree: ModuleTree, task: str | None) -> ModuleTree:
    """A class that config.json names and nobody knows is taken for its model type's: that is inferred, not exact."""
    named = next(iter(tree.config.get("architectures") or ()), None)
    if task is not None or named is None or tree.basis == "inferred" or tree.architecture == named:
        return tree
    message = f"{named} is not a class that is known; {tree.architecture} was taken, as the model type has it."
    return tree._replace(basis="inferred", notes=(*tree.notes, Note("class_assumed", message)))
