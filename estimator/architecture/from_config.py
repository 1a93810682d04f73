"""The modules that transformers would build from config.json alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from estimator.architecture.conditions import Lookup, Place, written
from estimator.architecture.facts import class_for, line
from estimator.architecture.formula import Unfit, by_default, choose, evaluate, met
from estimator.architecture.fresh import matched
from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.architecture.shapes import shapes_of
from estimator.dtypes import FROM_TORCH
from estimator.errors import NoWeightsError
from estimator.notes import Note

ACTIVATION = "ACT2FN:"
_MISSING = object()


def from_config(config: Mapping[str, Any], *, task: str | None = None, num_labels: int | None = None) -> ModuleTree:
    """The module tree in `named_modules()` order, its shapes by formulas of config fields.

    Raises NoWeightsError where the class has no formulas, or the config leaves the region on which they were tested.
    """
    name, facts = _chosen(config, task)
    lookup = lookup_for(config, facts, num_labels)
    try:
        _check_nesting(facts, config)
        _check_region(facts, lookup)
        grower = _Grower(facts, lookup, _dtype(config))
        grower.module("", len(facts["n"]) - 1, Place())
        return _tree(name, config, facts, lookup, grower)
    except (Unfit, RecursionError, IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise _needs_headers(name, f" of this config.json ({error})") from None


def _needs_headers(name: str, why: str = "") -> NoWeightsError:
    return NoWeightsError(
        f"the shapes of {name} can't be had from config.json alone{why}: headers are needed.",
        where="config.json",
        way_out="name a folder or repository with .safetensors files",
    )


def _chosen(config: Mapping[str, Any], task: str | None) -> tuple[str, Mapping[str, Any]]:
    """The class that is built, as choose.py has it, and its formulas."""
    model_type = config.get("model_type")
    model_type = model_type if isinstance(model_type, str) else None
    named = config.get("architectures")
    named = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else None
    for name in (class_for(model_type, task) if task else None, named, class_for(model_type, None)):
        if name is not None and (name == named or line(f"={name}") is not None):
            facts = shapes_of(name)
            if facts is not None and (model_type is None or model_type in facts["types"]):
                return name, facts
            if facts is not None or line(f"={name}") is not None:
                raise _needs_headers(name)
    raise _needs_headers(named or model_type or "a model without `architectures`")


def lookup_for(config: Mapping[str, Any], facts: Mapping[str, Any], num_labels: int | None = None) -> Lookup:
    """Reads a field as the config class would set it. Raises Unfit where it is missing and no default is known."""
    known: dict[str, Any] = {}
    aliases, rules = facts["aliases"], facts["rules"]

    def lookup(path: str) -> Any:
        if path not in known:
            known[path] = _labels(config, num_labels) if path == "num_labels" else found(path)
        return known[path]

    def found(path: str) -> Any:
        ignored = "ignored" in rules.get(path, ())
        value = _MISSING if ignored else _get(config, path)
        for alias in () if ignored else aliases.get(path, ()):
            value = _get(config, alias) if value is _MISSING else value
        if value is not _MISSING and value is not None:
            return value
        rule = rules.get(path, {}).get("null" if value is None else "absent")
        if rule is None:
            raise Unfit(f"{path} is {'null' if value is None else 'missing'}")
        return by_default(rule, lookup)

    return lookup


def _labels(config: Mapping[str, Any], num_labels: int | None) -> int:
    if num_labels is not None:
        return num_labels
    labels = config.get("id2label")
    count = config.get("num_labels", 2)
    return len(labels) if isinstance(labels, Mapping) else count


def _get(config: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(config, Mapping) or key not in config:
            return _MISSING
        config = config[key]
    return config


def _check_nesting(facts: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Old configs hold a tower's fields at the top: which of them the class would take over was not tried."""
    for path in facts["rules"]:
        parent, _, leaf = path.rpartition(".")
        if parent and leaf in config and _get(config, parent) is _MISSING:
            raise Unfit(f"{parent} is missing, {leaf} stands outside it")


def _check_region(facts: Mapping[str, Any], lookup: Lookup) -> None:
    for path, values in facts["seen"].items():
        value = lookup(path)
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if written(one) not in values:
                raise Unfit(f"{path} is {one!r}, which is not among the values that were tried")


def _dtype(config: Mapping[str, Any]) -> str:
    for section in (config, config.get("text_config")):
        for key in ("dtype", "torch_dtype"):
            value = section.get(key) if isinstance(section, Mapping) else None
            if isinstance(value, str) and value.removeprefix("torch.") in FROM_TORCH:
                return FROM_TORCH[value.removeprefix("torch.")]
    return "F32"


class _Child(NamedTuple):
    name: str
    place: Place


class _Grower:
    def __init__(self, facts: Mapping[str, Any], lookup: Lookup, dtype: str) -> None:
        self.nodes, self.lookup, self.dtype = facts["n"], lookup, dtype
        self.modules: list[Module] = []
        self.transposed: list[str] = []
        self.unsized: list[str] = []

    def module(self, name: str, number: int, place: Place) -> None:
        """Adds the module and all below it."""
        cls, kind, parameters, buffers, groups, transposed, children = self.nodes[number]
        kept = tuple(self._tensor(slot, place) for slot in parameters if met(slot[1], self.lookup, place))
        held = self._buffers(name, buffers, place)
        self.modules.append(Module(name, self._class(cls), kind, kept, held, self._size(groups, place)))
        before = f"{name}." if name else ""
        if transposed:
            self.transposed += [f"{before}{parameter.name}" for parameter in kept]
        for child, when, options in children:
            for at in self._children(child, when, place):
                self.module(before + at.name, choose(options, self.lookup, at.place), at.place)

    def _buffers(self, name: str, slots: Sequence[Any], place: Place) -> tuple[Parameter, ...]:
        """Those whose size is known; the others' names are kept for a note."""
        found = []
        for slot in slots:
            if met(slot[1], self.lookup, place):
                try:
                    found.append(self._tensor(slot, place))
                except Unfit:
                    self.unsized.append(f"{name}.{slot[0]}".lstrip("."))
        return tuple(found)

    def _children(self, child: str, when: Any, place: Place) -> Sequence[_Child]:
        if not child.endswith("*"):
            return [_Child(child, place)] if met(when, self.lookup, place) else []
        count = self._size(when, place)
        if count > 10_000:
            raise Unfit(f"{child} {count} times")
        return [_Child(f"{child[:-1]}{index}", place.inner(index, count)) for index in range(count)]

    def _class(self, cls: str) -> str:
        if not cls.startswith(ACTIVATION):
            return cls
        return line("$activations").get(str(self.lookup(cls.removeprefix(ACTIVATION))), "Activation")

    def _tensor(self, slot: Sequence[Any], place: Place) -> Parameter:
        shape = tuple(self._size(size, place) for size in slot[2])
        dtype = slot[3]
        return Parameter(slot[0], shape, dtype or self.dtype, dtype is not None, slot[4] if len(slot) > 4 else True)

    def _size(self, size: Any, place: Place) -> int:
        return evaluate(choose(size, self.lookup, place) if isinstance(size, list) else size, self.lookup, place)


def _tree(
    name: str, config: Mapping[str, Any], facts: Mapping[str, Any], lookup: Lookup, grower: _Grower
) -> ModuleTree:
    tie = facts["tie"]
    here = {module.name for module in grower.modules}
    return ModuleTree(
        architecture=name,
        config=config,
        modules=tuple(grower.modules),
        tied=_ties(facts["ties"], grower.modules, lookup),
        input_embedding=_named(facts["in"], lookup, here),
        output_embedding=_named(facts["out"], lookup, here),
        declares_ties=facts["declares"],
        tie_word_embeddings=None if tie is None else bool(lookup("tie_word_embeddings")),
        keep_in_fp32=tuple(facts["fp32"]),
        keep_in_fp32_strict=tuple(facts["fp32s"]),
        transposed=tuple(grower.transposed),
        is_composite=facts["composite"],
        shapes="config",
        notes=buffer_note(grower.unsized),
    )


def buffer_note(unsized: Sequence[str]) -> tuple[Note, ...]:
    """A note on buffers that no formula sizes."""
    if not unsized:
        return ()
    message = f"{len(unsized):,} buffers, {unsized[0]} first, are of unknown size: footprints leave them out."
    return (Note("unsized_buffers", message),)


def _named(options: Sequence[Any], lookup: Callable[[str], Any], here: set[str]) -> str | None:
    name = choose(options, lookup, Place())
    return name if name in here else None


def _ties(ties: Sequence[Sequence[str]], modules: Sequence[Module], lookup: Lookup) -> dict[str, str]:
    """Full parameter names; an index in the source is the target's."""
    active = [(target, source) for target, source, condition in ties if met(condition, lookup, Place())]
    names = [f"{m.name}.{p.name}".lstrip(".") for m in modules for p in m.parameters] if active else []
    known, found = set(names), {}
    for target, source in active:
        for name in names if "*" in target else [target]:
            partner = matched(name, target, source)
            if name in known and partner in known and partner != name:
                found[name] = partner
    return found
