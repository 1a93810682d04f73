"""What config.json alone says of a model whose headers are read as well: what they leave open, and a second opinion."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from estimator.architecture.build import left_out
from estimator.architecture.module import Module, ModuleTree, full_name, parameter_shapes
from estimator.checkpoint.quantization import quantization_of
from estimator.errors import LoraSizeError, NoWeightsError
from estimator.notes import Note

_KEPT = 8
_made: dict[tuple[Any, ...], tuple[Mapping[str, Any], ModuleTree | LoraSizeError]] = {}
_LEFT_OPEN = ("unsized_buffers", "missing_tensors")


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

    The headers have answered already: a config.json that nothing can be computed from is worth a word, not the answer.
    """
    if tree.basis != "exact":
        return None, ()
    try:
        other = by_config(config, task, num_labels)
    except NoWeightsError:
        return None, ()
    except LoraSizeError as error:
        return None, (Note("config_not_compared", f"The headers could not be held against config.json: {error.what}"),)
    return (other if other.architecture == tree.architecture else None), ()


def features_of(config: Mapping[str, Any], layers: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Out and in features of layers that config.json's class builds, by stored name, as a quantiser keeps them."""
    from estimator.architecture.stored_names import run_time_names

    try:
        tree = by_config(config, None, None)
    except LoraSizeError:
        return {}
    weights = {m.name: (m, m.parameters[0].shape) for m in tree.modules if m.kind in ("Linear", "Conv1D")}
    shapes = {name: shape[::-1] if m.kind == "Conv1D" else shape for name, (m, shape) in weights.items()}
    names = run_time_names(config, tree, [f"{layer}.weight" for layer in layers])
    built = {layer: names[f"{layer}.weight"].removesuffix(".weight") for layer in layers}
    return {layer: shapes[name] for layer, name in built.items() if name in shapes}


def with_sized(
    tree: ModuleTree, config: Mapping[str, Any], task: str | None, num_labels: int | None, stored: Iterable[str] = ()
) -> ModuleTree:
    """The tree with the parameters and buffers that no header holds and no rule sizes, where the class's formulas size
    them all: what a checkpoint fuses is split by the model's own sizes (transformers 5.23.0, Split), say. A class has
    its parts whether they are stored or not, in its own shapes, be it a task's or one whose file is not whole; without
    formulas a task's are inferred. A list of layers that is cut short stays so. `stored`: the file's names.
    """
    other_class = task is not None and tree.architecture not in (config.get("architectures") or ())
    other, _ = second_opinion(tree, config, task, num_labels)
    if other is None and other_class and tree.basis == "exact":
        return tree._replace(basis="inferred", notes=(*tree.notes, _other_class(tree)))
    if other is None or any(note.code in _LEFT_OPEN for note in other.notes):
        return tree
    anothers = not other_class and _is_anothers(tree, other)
    anew = not other_class and (bool(tree.lacking) or _lacks(tree, other))
    if not anothers and (other_class or anew or quantization_of(config) is None):
        tree = _without_unbuilt(tree, other, config, stored)
    if not other_class and not anew and not any(note.code in _LEFT_OPEN for note in tree.notes):
        return _as_built(tree, other)
    before = parameter_shapes(tree.modules).keys()
    if other_class or anew:
        tree = tree if anothers else _with_parts(tree, other)
        tree = _with_fresh_shapes(tree, other, config, stored)
    known = {module.name: module for module in other.modules}
    filled = (_filled(module, known.get(module.name)) for module in tree.modules)
    modules = tuple(_of_class(module, known.get(module.name)) for module in filled)
    now = parameter_shapes(modules).keys()
    fresh = {name: root for name, root in other.tied.items() if {name, root} <= now and not {name, root} <= before}
    tree = tree._replace(
        modules=modules,
        tied={**fresh, **tree.tied},  # what is stored may hold values of its own
        notes=tuple(note for note in tree.notes if note.code not in _LEFT_OPEN),
    )
    return _telling(tree, [name for name in now if name not in before], config, stored) if anew else tree


def _as_built(tree: ModuleTree, other: ModuleTree) -> ModuleTree:
    """The tree with what no header tells of modules whose shapes config.json confirms: classes, and the buffers that
    are never stored, which the class's formulas size and its rules only guess.
    """
    known = {module.name: module for module in other.modules}
    return tree._replace(modules=tuple(_of_class(module, known.get(module.name)) for module in tree.modules))


def _of_class(module: Module, known: Module | None) -> Module:
    if known is None or module.kind != known.kind or parameter_shapes([module]) != parameter_shapes([known]):
        return module
    made = {buffer.name: buffer.shape for buffer in known.buffers}
    kept = (buffer for buffer in module.buffers if buffer.persistent or buffer.name in made)
    buffers = (buffer if buffer.persistent else buffer._replace(shape=made[buffer.name]) for buffer in kept)
    return module._replace(cls=known.cls, buffers=tuple(buffers))


def _lacks(tree: ModuleTree, other: ModuleTree) -> bool:
    """Whether the class has parameters that the headers lack, beside layers at the end of a list."""
    from estimator.architecture.difference import compare

    return any(difference.code == "missing" for difference in compare(tree, other))


def _telling(tree: ModuleTree, put: Sequence[str], config: Mapping[str, Any], stored: Iterable[str]) -> ModuleTree:
    """The tree, which says what its file lacks: of the parameters that were put in those that nothing stored gives."""
    from estimator.architecture.build import made_anew
    from estimator.architecture.stored_names import held_parameters

    held = {*tree.tied, *tree.lacking, *(held_parameters(config, tree, stored) if put else ())}
    lacking = (*tree.lacking, *(name for name in put if name not in held))
    notes = (note for note in tree.notes if note.code != "made_anew")
    return tree._replace(lacking=lacking, notes=(*notes, *made_anew(lacking, tree.architecture or "")))


def _is_anothers(tree: ModuleTree, other: ModuleTree) -> bool:
    """Whether a file that is said to hold this very class lacks most of it: it is another model's."""
    stored = {module.name for module in tree.modules}
    lacking = sum(1 for module in other.modules if module.name not in stored and module.parameters)
    return lacking > sum(1 for module in tree.modules if module.parameters)


def _with_parts(tree: ModuleTree, other: ModuleTree) -> ModuleTree:
    """The tree with what its class has beside what is stored: the decoder of an encoder's, made fresh."""
    stored = {module.name: module for module in tree.modules}
    if not stored.keys() <= {module.name for module in other.modules}:
        return tree
    return _laid_out(tree, other, tuple(stored.get(module.name, module) for module in other.modules))


def _laid_out(tree: ModuleTree, other: ModuleTree, modules: tuple[Module, ...]) -> ModuleTree:
    """The tree with these modules, and what its class declares of them."""
    return tree._replace(
        modules=modules,
        declared_ties=other.declared_ties,
        one_embedding=other.one_embedding,
        input_embedding=other.input_embedding,
        output_embedding=other.output_embedding,
        beside_head=other.beside_head,
    )


def _without_unbuilt(
    tree: ModuleTree, other: ModuleTree, config: Mapping[str, Any], stored: Iterable[str]
) -> ModuleTree:
    """The tree without modules that the class does not build of this config.json: the file does not lack them, and what
    it holds of them is not loaded. A file that is stored quantised may have others in their place.
    """
    from estimator.architecture.stored_names import run_time_names

    built = {module.name for module in other.modules}
    odd = tuple(f"{module.name}." for module in tree.modules if module.name not in built)
    names = run_time_names(config, tree, stored).values() if odd else ()
    held = sorted(name for name in names if name.startswith(odd))
    if held and quantization_of(config) is not None:
        odd = tuple(module for module in odd if not any(name.startswith(module) for name in held))
        held = []
    if not odd:
        return tree
    kept = tuple(module for module in tree.modules if not f"{module.name}.".startswith(odd))
    return _laid_out(tree, other, kept)._replace(
        tied={name: root for name, root in tree.tied.items() if not name.startswith(odd) and not root.startswith(odd)},
        lacking=tuple(name for name in tree.lacking if not name.startswith(odd)),
        notes=(*tree.notes, *left_out([(name, 1) for name in held], tree.architecture or "")),
    )


def _other_class(tree: ModuleTree) -> Note:
    message = (
        f"The checkpoint is another class's, and the shapes of {tree.architecture} can't be had from config.json: "
        "what is not stored is concluded from the names and fields that are known."
    )
    return Note("class_not_confirmed", message)


def _with_fresh_shapes(
    tree: ModuleTree, other: ModuleTree, config: Mapping[str, Any], stored: Iterable[str]
) -> ModuleTree:
    """The tree with the class's own shapes for what no file holds: a head made fresh, say."""
    from estimator.architecture.stored_names import run_time_names

    shapes, found = parameter_shapes(other.modules), parameter_shapes(tree.modules)
    odd = {name for name, shape in found.items() if shapes.get(name, shape) != shape} - tree.tied.keys()
    odd -= set(run_time_names(config, tree, stored).values()) if odd else set()
    return tree._replace(modules=tuple(_reshaped(m, odd, shapes) for m in tree.modules)) if odd else tree


def _reshaped(module: Module, odd: Collection[str], shapes: Mapping[str, tuple[int, ...]]) -> Module:
    names = [(p, full_name(module.name, p.name)) for p in module.parameters]
    return module._replace(parameters=tuple(p._replace(shape=shapes[n]) if n in odd else p for p, n in names))


def _filled(module: Module, known: Module | None) -> Module:
    """The module with all that is known of it; its kind as well where nothing stored tells that of a fresh head."""
    if known is None:
        return module
    if not module.parameters:
        module = module._replace(kind=known.kind)
    buffers, parameters = {b.name for b in module.buffers}, {p.name: p for p in module.parameters}
    return module._replace(
        parameters=tuple(({p.name: p for p in known.parameters} | parameters).values()),
        buffers=(*module.buffers, *(buffer for buffer in known.buffers if buffer.name not in buffers)),
    )
