"""What config.json alone says of a model whose headers are read as well: the class as built, a second opinion."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from estimator.architecture.build import left_out, made_anew
from estimator.architecture.config_fields import own_code
from estimator.architecture.difference import of_held_lists
from estimator.architecture.module import Module, ModuleTree, full_name, parameter_shapes
from estimator.architecture.ties import filled_by_ties
from estimator.architecture.unfused import has_experts_apart
from estimator.errors import LoraSizeError, MalformedConfigError, NoWeightsError
from estimator.notes import Note

_KEPT = 8
_made: dict[tuple[Any, ...], tuple[Mapping[str, Any], ModuleTree | LoraSizeError]] = {}


def by_config(config: Mapping[str, Any], task: str | None, num_labels: int | None) -> ModuleTree:
    """from_config of this very config, made once for a class and so many labels; the last few are kept.

    Raises what from_config raises, the second time as well.
    """
    from estimator.architecture.choose import candidates
    from estimator.architecture.from_config import from_config

    key = (id(config), *candidates(config, task), num_labels)
    if key not in _made or _made[key][0] is not config:
        if len(_made) >= _KEPT:
            _made.pop(next(iter(_made)))
        try:
            _made[key] = config, from_config(config, task=task, num_labels=num_labels)
        except LoraSizeError as error:
            _made[key] = config, error
    made = _made[key][1]
    if isinstance(made, LoraSizeError):
        raise made
    return made


def second_opinion(
    tree: ModuleTree, config: Mapping[str, Any], task: str | None, num_labels: int | None
) -> tuple[ModuleTree | None, tuple[Note, ...]]:
    """The tree that config.json alone gives, beside one from headers; None where there are no formulas for it.

    Raises MalformedConfigError where transformers builds no model of config.json, whatever the headers hold: but for a
    class that a repository brings itself, which may take it. What can't be computed else is worth a word.
    """
    if tree.basis != "exact":
        return None, ()
    try:
        other = by_config(config, task, num_labels)
    except NoWeightsError:
        return None, (_not_compared(f"no formulas tell what {tree.architecture} builds of it"),)
    except LoraSizeError as error:
        if isinstance(error, MalformedConfigError) and not own_code(config):
            raise
        return None, (_not_compared(error.what.removesuffix(".")),)
    return (None if other.architecture != tree.architecture or has_experts_apart(tree) else other), ()


def _not_compared(why: str) -> Note:
    return Note("config_not_compared", f"The headers could not be held against config.json: {why}.")


def features_of(config: Mapping[str, Any], layers: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Out and in features of layers that config.json's class builds, by stored name, as a quantiser keeps them."""
    from estimator.architecture.stored_names import run_time_names

    try:
        tree = by_config(config, None, None)
    except LoraSizeError:
        return {}
    weights = {m.name: (m, m.parameters[0].shape) for m in tree.modules if m.kind in ("Linear", "Conv1D", "Embedding")}
    shapes = {name: shape[::-1] if m.kind == "Conv1D" else shape for name, (m, shape) in weights.items()}
    names = run_time_names(config, tree, [f"{layer}.weight" for layer in layers])
    built = {layer: names[f"{layer}.weight"].removesuffix(".weight") for layer in layers}
    return {layer: shapes[name] for layer, name in built.items() if name in shapes}


def as_built(
    tree: ModuleTree, config: Mapping[str, Any], task: str | None, num_labels: int | None, stored: Iterable[str] = ()
) -> ModuleTree:
    """The tree as the class's formulas build it of config.json, with the shapes and dtypes of what the file holds.

    transformers 5.23.0, from_pretrained: what the class has and the file lacks is made anew, be it a task's head, a
    layer or what a checkpoint fuses (Split); what the file has and the class does not build is not loaded, as the
    biases of zeros that AutoGPTQ gave to every layer that it packed. Without formulas a task's class is inferred.
    `stored`: the file's names.
    """
    other_class = task is not None and tree.architecture not in (config.get("architectures") or ())
    other, _ = second_opinion(tree, config, task, num_labels)
    if other is None:
        inferred = other_class and tree.basis == "exact"
        return tree._replace(basis="inferred", notes=(*tree.notes, _other_class(tree))) if inferred else tree
    ours, theirs = parameter_shapes(tree.modules), parameter_shapes(other.modules)
    held = _held(tree, other, config, stored) if ours != theirs or tree.lacking else set()
    odd = ours.keys() - theirs.keys()
    fresh = {name for name, shape in theirs.items() if ours.get(name, shape) != shape} - held - tree.tied.keys()
    own, is_open = {module.name: module for module in tree.modules}, _is_open(other)
    modules = tuple(_merged(own.get(m.name, m), m, odd, fresh, is_open=is_open) for m in other.modules)
    now = parameter_shapes(modules).keys()
    before = {name: root for name, root in tree.tied.items() if {name, root} <= now}
    added = {name: root for name, root in other.tied.items() if {name, root} <= now and not {name, root} <= ours.keys()}
    tied = {**added, **before}  # what is stored may hold values of its own
    lost = {*tree.lacking, *(now - ours.keys())} - held - filled_by_ties(tied, held)
    if other_class:  # whose own parts no file has to hold
        lost = lost.intersection(of_held_lists(lost, held))
    lacking = tuple(name for name in now if name in lost)
    return tree._replace(
        modules=modules,
        tied=tied,
        transposed=tuple(dict.fromkeys(name for name in (*tree.transposed, *other.transposed) if name in now)),
        declared_ties=other.declared_ties,
        one_embedding=other.one_embedding,
        input_embedding=other.input_embedding,
        output_embedding=other.output_embedding,
        beside_head=other.beside_head,
        lacking=lacking,
        notes=_notes(tree, other, unread=sorted(odd & held), lacking=lacking),
    )


def _held(tree: ModuleTree, other: ModuleTree, config: Mapping[str, Any], stored: Iterable[str]) -> set[str]:
    """The parameters of either tree that the file gives."""
    from estimator.architecture.stored_names import held_parameters

    built = {"architectures": [tree.architecture]}
    both = tree._replace(modules=(*tree.modules, *other.modules), config={**tree.config, **built})
    return held_parameters({**config, **built}, both, stored)


def _notes(tree: ModuleTree, other: ModuleTree, unread: Sequence[str], lacking: Sequence[str]) -> tuple[Note, ...]:
    """What is left to be said: not what the class's formulas size, but what of the file the class does not read, or
    lacks.
    """
    settled = ["made_anew", "missing_tensors"]
    if not _is_open(other):
        settled.append("unsized_buffers")
    kept = (note for note in tree.notes if note.code not in settled)
    name = tree.architecture or ""
    return (*kept, *left_out([(one, 1) for one in unread], name), *made_anew(lacking, name))


def _is_open(tree: ModuleTree) -> bool:
    return any(note.code == "unsized_buffers" for note in tree.notes)


def _merged(module: Module, known: Module, odd: Collection[str], fresh: Collection[str], *, is_open: bool) -> Module:
    """The module as the class builds it, with the parameters and saved buffers that the file holds of it.

    `odd`: parameters that the class does not build; `fresh`: those whose shape is the class's own.
    """
    parameters, buffers = {p.name: p for p in known.parameters}, {b.name: b for b in known.buffers}
    for own in module.parameters:
        name = full_name(module.name, own.name)
        if name not in odd:
            shape = parameters[own.name].shape if name in fresh else own.shape
            parameters[own.name] = own._replace(shape=shape)
    for buffer in module.buffers:
        if buffer.persistent or (is_open and buffer.name not in buffers):
            buffers[buffer.name] = buffer
    return known._replace(parameters=tuple(parameters.values()), buffers=tuple(buffers.values()))


def _other_class(tree: ModuleTree) -> Note:
    message = (
        f"The checkpoint is another class's, and the shapes of {tree.architecture} can't be had from config.json: "
        "what is not stored is concluded from the names and fields that are known."
    )
    return Note("class_not_confirmed", message)
