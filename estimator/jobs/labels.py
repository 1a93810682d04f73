"""--num-labels and --task beside the head that a checkpoint holds.

transformers 5.23.0, from_pretrained: a stored parameter of another shape than the class's is refused, and with
`ignore_mismatched_sizes=True` made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator.architecture.module import ModuleTree, parameter_shapes
from estimator.errors import LoraSizeError, UnsupportedError
from estimator.notes import Note
from estimator.source.found import Found

_Shapes = Mapping[str, tuple[int, ...]]


def with_labels(
    tree: ModuleTree, saved: Found | None, config: Mapping[str, Any], task: str | None, num_labels: int | None
) -> ModuleTree:
    """The tree that was built for a task and so many labels, with a note where these change nothing.

    Raises UnsupportedError where the checkpoint holds a head of another size under the same name.
    """
    named = next(iter(config.get("architectures") or ()), None)
    as_saved = num_labels in (None, _stated(config)) and tree.architecture == named
    if tree.basis != "exact" or as_saved:
        return tree
    wanted = parameter_shapes(tree.modules) if tree.shapes == "config" else _by_config(config, task, num_labels)
    if wanted is None:
        return tree if num_labels is None else _not_compared(tree, num_labels)
    held = _held(tree, saved, config, named)
    differing = {name for name, shape in wanted.items() if held.get(name, shape) != shape}
    plain = _by_config(config, task, None) if num_labels is not None else wanted
    for others in (plain, _by_config(config, None, None)) if differing else ():
        for name in sorted(differing):  # what a task or labels make otherwise, not a config.json of other weights
            if (others or {}).get(name, wanted[name]) != wanted[name]:
                raise _of_another_size(tree.architecture, name, held[name], wanted[name])
    if num_labels is not None and wanted == plain and num_labels != _stated(config):
        message = f"--num-labels {num_labels} changes nothing: no size of {tree.architecture} depends on it."
        return tree._replace(notes=(*tree.notes, Note("labels_without_effect", message)))
    return tree


def _held(tree: ModuleTree, found: Found | None, config: Mapping[str, Any], named: str | None) -> _Shapes:
    """What the checkpoint holds, by its headers or as the class that config.json names; nothing where there is none."""
    if found is None:
        return {}
    if found.files:
        return parameter_shapes(tree.modules)
    exists = found.other_files or found.source != "local"
    return (_by_config(config, None, None) if named and exists else None) or {}


def _by_config(config: Mapping[str, Any], task: str | None, num_labels: int | None) -> _Shapes | None:
    """The shapes that config.json gives; None where there are no formulas for it."""
    from estimator.jobs.by_config import by_config

    try:
        return parameter_shapes(by_config(config, task, num_labels).modules)
    except LoraSizeError:
        return None


def _stated(config: Mapping[str, Any]) -> int:
    from estimator.architecture.config_fields import labels_of

    return labels_of(config, None, 2)


def _not_compared(tree: ModuleTree, num_labels: int) -> ModuleTree:
    message = f"Whether the checkpoint holds a head of another size than --num-labels {num_labels} wants is not known."
    return tree._replace(basis="inferred", notes=(*tree.notes, Note("labels_not_compared", message)))


def _of_another_size(cls: str | None, name: str, held: tuple[int, ...], wanted: tuple[int, ...]) -> UnsupportedError:
    return UnsupportedError(
        f"the checkpoint's {name} is {list(held)}, and this {cls} has it as {list(wanted)}: from_pretrained refuses.",
        where="--num-labels and --task",
        way_out="leave --num-labels out, or --set num_labels=N: a new head, as by ignore_mismatched_sizes=True",
    )
