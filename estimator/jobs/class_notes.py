"""What a reader must know of the class that is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from estimator.architecture.borrowed import borrowed
from estimator.architecture.choose import class_asked
from estimator.architecture.config_fields import own_code
from estimator.architecture.facts import class_for, class_outline
from estimator.architecture.module import ModuleTree
from estimator.architecture.newer import built_otherwise
from estimator.errors import UnsupportedError
from estimator.notes import Note
from estimator.request.lora_config import TASK_TYPES
from estimator.source.found import Found

_ENDS = {
    "SEQ_CLS": "ForSequenceClassification",
    "TOKEN_CLS": "ForTokenClassification",
    "QUESTION_ANS": "ForQuestionAnswering",
}
_WITH_HEADS = ("Classification", "QuestionAnswering")


def notes_on_class(
    tree: ModuleTree, config: Mapping[str, Any], found: Found, asked: tuple[str | None, int | None]
) -> Iterator[Note]:
    """Where a task's Auto class would build another, where a folder's own code would, where its head is not known, and
    where a newer transformers builds it otherwise.

    `asked`: the task and the number of labels.
    """
    yield from _other_class(tree, config, asked[0])
    yield from _code_beside(tree, config, found)
    yield from _no_head(tree, *asked)
    yield from built_otherwise(tree)


def _no_head(tree: ModuleTree, task: str | None, num_labels: int | None) -> Iterator[Note]:
    """A word where a head is asked for that code of its own makes fresh: names and shapes tell nothing of it."""
    if not any(note.code == "inferred" for note in tree.notes):
        return
    if task in _ENDS and not str(tree.architecture).endswith(_ENDS[task]):
        message = f"Which head {tree.architecture} gets for {task} is its own code's affair: none is counted."
        yield Note("head_not_counted", message)
    elif num_labels is not None and class_outline(str(tree.architecture)) is None:
        message = f"--num-labels {num_labels} changes nothing: the heads of {tree.architecture} are counted as stored."
        yield Note("labels_without_effect", message)


def _other_class(tree: ModuleTree, config: Mapping[str, Any], task: str | None) -> Iterator[Note]:
    """A word where the task's Auto class would not build the class that is taken."""
    kind, taken = config.get("model_type"), tree.architecture
    if task not in TASK_TYPES or tree.basis != "exact" or not isinstance(kind, str):
        return
    usual = class_asked(config, task)
    if usual not in (None, taken):
        message = (
            f"{taken} is taken, as the checkpoint has it; transformers' Auto class for {task} would build {usual}."
        )
        yield Note("class_of_checkpoint", message)
    elif usual is None and task not in ("CAUSAL_LM", "SEQ_2_SEQ_LM"):
        message = f"transformers has no class for {task} of the model type {kind}: {taken} is taken as it is."
        yield Note("no_class_for_task", message)


def refuse_without_class(tree: ModuleTree, config: Mapping[str, Any], task: str | None) -> None:
    """Raises UnsupportedError where --task asks for a head and transformers has no class with it for the model type.

    transformers 5.23.0, auto_factory.py: "Unrecognized configuration class". A checkpoint that has a head of its own
    (an image classifier's), and a class that the repository brings itself, are taken as they are; so is a published
    adapter's task_type, which PEFT puts on any class.
    """
    kind = config.get("model_type")
    if task not in _ENDS or tree.basis != "exact" or not isinstance(kind, str) or class_for(kind, task) is not None:
        return
    if str(tree.architecture).endswith(_WITH_HEADS) or _brings(config, task):
        return
    others = [name for name in (*_ENDS, "CAUSAL_LM", "SEQ_2_SEQ_LM") if class_for(kind, name) is not None]
    raise UnsupportedError(
        f"transformers has no class for {task} of the model type {kind[:80]}: AutoModel{_ENDS[task]} refuses it.",
        where="--task",
        way_out=f"--task {' or '.join(others)}" if others else f"leave --task out: {tree.architecture} is counted",
    )


def _brings(config: Mapping[str, Any], task: str | None) -> bool:
    """Whether a class with the head that the task asks for is among the code that the repository brings itself."""
    brought = config.get("auto_map")
    return task in _ENDS and isinstance(brought, Mapping) and f"AutoModel{_ENDS[task]}" in brought


def _code_beside(tree: ModuleTree, config: Mapping[str, Any], found: Found) -> Iterator[Note]:
    """A word where a folder names code of its own and a class of transformers is taken (of the Hub's, source/ says it).

    transformers 5.23.0, `resolve_trust_remote_code`: the class is its own unless trust_remote_code=True.
    """
    if found.source == "local" and own_code(config) and tree.basis == "exact":
        message = f"config.json names code of its own (auto_map); it was not run: {tree.architecture} is taken."
        yield Note("custom_code", message)


def of_the_named_class(tree: ModuleTree, config: Mapping[str, Any], task: str | None) -> ModuleTree:
    """A class that config.json names and nobody knows is taken for its model type's, unless a task's Auto class builds
    that, or both are language models and transformers has only another type's for this one (EXAONE's): it is inferred,
    not exact. So is what is taken for the class that PEFT noted as it saved an adapter, and for code of one's own that
    the task asks for, where transformers has no class for it.
    """
    if task is not None and task not in TASK_TYPES and tree.architecture != task:
        what = f"PEFT noted the class {task[:80]}, which is not known to be built of this config.json"
        note = Note("noted_class_not_built", f"{what}: {tree.architecture} was taken in its place.")
        return tree._replace(basis="inferred", notes=(*tree.notes, note))
    named = next(iter(config.get("architectures") or ()), None)
    asked = class_asked(config, task)
    if asked is None and _brings(config, task) and not str(tree.architecture).endswith(_WITH_HEADS):
        message = f"What {task} asks for is code of its own (auto_map), not run: {tree.architecture} was taken."
        return tree._replace(basis="inferred", notes=(*tree.notes, Note("class_assumed", message)))
    if named is None or tree.basis == "inferred" or tree.architecture in (named, asked):
        return tree
    language_models = task in (None, "CAUSAL_LM") and all(
        name.endswith("ForCausalLM") for name in (str(named), str(tree.architecture))
    )
    if language_models and borrowed(str(tree.architecture), config.get("model_type")) is not None:
        return tree
    message = f"{named} is not a class that is known; {tree.architecture} was taken, as the model type has it."
    return tree._replace(basis="inferred", notes=(*tree.notes, Note("class_assumed", message)))
