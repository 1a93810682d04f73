"""The modules that transformers would build from config.json alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from estimator.architecture.borrowed import other_names
from estimator.architecture.by_formulas import Grower, Model
from estimator.architecture.choose import candidates, own_config, section_of
from estimator.architecture.conditions import Place
from estimator.architecture.config_fields import LAYER_KINDS, fields_of, names_in_turn, sections_of, unties
from estimator.architecture.facts import line
from estimator.architecture.formula import NoModel, NoNumber, Unfit, choose, evaluate, met
from estimator.architecture.module import Module, ModuleTree, Parameter, full_name, named_parameters, parameter_shapes
from estimator.architecture.refusals import check_refusals
from estimator.architecture.shapes import shapes_of
from estimator.architecture.structure import Slot
from estimator.architecture.tie_names import expanded, matched
from estimator.dtypes import stated_dtype
from estimator.errors import MalformedConfigError, NoWeightsError


def from_config(config: Mapping[str, Any], *, task: str | None = None, num_labels: int | None = None) -> ModuleTree:
    """The module tree in `named_modules()` order, its shapes by formulas of config fields.

    Raises NoWeightsError where the class has no formulas, or the config leaves the region on which they were tested.
    """
    name, facts, section = _chosen(config, task)
    own = own_config(config, section, name)
    try:
        model = Model(name, facts, own, num_labels)
        check_refusals(model)
        tree, unsized = _grown(model)
        return with_buffers(tree, unsized, model, num_labels) if unsized else tree
    except (NoNumber, NoModel) as error:
        way_out = "correct the field, in config.json or in --set"
        raise MalformedConfigError(f"{error}.", where="config.json", way_out=way_out) from None
    except (Unfit, RecursionError, IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise _needs_headers(name, f" ({error})") from None


def fields_read(config: Mapping[str, Any], task: str | None = None) -> frozenset[str]:
    """The fields on which the shapes depend, by dotted path, under all their names. Raises NoWeightsError."""
    name, facts, section = _chosen(config, task)
    others = other_names(name, (config[section] if section else config).get("model_type"))
    return frozenset(f"{section}.{path}" if section else path for path in (*_names_read(facts), *others))


def _names_read(facts: Mapping[str, Any]) -> set[str]:
    return {*fields_of(facts), *(name for names in facts["aliases"].values() for name in names)}


def winning_names(config: Mapping[str, Any], task: str | None = None) -> Mapping[str, Sequence[str]]:
    """Field, by dotted path -> its other names: what stands under one of them wins. Raises NoWeightsError."""
    name, facts, section = _chosen(config, task)
    before, own = (f"{section}.", config[section]) if section else ("", config)
    fields = {first: later for first, *later in (names_in_turn(facts, path) for path in facts["aliases"])}
    for other, path in other_names(name, own.get("model_type")).items():
        fields[path] = [*fields.get(path, ()), other]
    return {before + first: [before + name for name in later] for first, later in fields.items()}


def grown(
    name: str, facts: Mapping[str, Any], config: Mapping[str, Any], num_labels: int | None = None
) -> tuple[ModuleTree, list[tuple[str, Slot]], Model]:
    """The tree by these formulas, the buffers whose size they do not know, by module, and the model. Raises Unfit."""
    model = Model(name, facts, config, num_labels)
    return (*_grown(model), model)


def _grown(model: Model) -> tuple[ModuleTree, list[tuple[str, Slot]]]:
    grower = Grower(model, stated_dtype(model.config) or "F32")
    grower.module("", len(model.facts["n"]) - 1, Place())
    return _tree(model, grower), grower.unsized


def with_buffers(
    tree: ModuleTree, unsized: Sequence[tuple[str, Slot]], model: Model, num_labels: int | None = None
) -> ModuleTree:
    """The tree with the buffers that no formula sizes, by the rules that serve beside headers.

    What config.json leaves out is as the rules' facts have it, else as the formulas do.
    """
    from estimator.architecture.class_lookup import lookup_for
    from estimator.architecture.facts import class_facts
    from estimator.architecture.fresh import buffer_note, fill_buffers
    from estimator.architecture.rotation import check_rotation
    from estimator.architecture.towers import with_towers

    dtype = stated_dtype(tree.config) or "F32"
    known = class_facts(tree.architecture or "")
    if known is None:
        return tree
    facts, _ = with_towers(known, tree.config)
    modules, places = list(tree.modules), {module.name: at for at, module in enumerate(tree.modules)}
    missing = [(places[module], slot, True) for module, slot in unsized]
    shapes = parameter_shapes(modules)
    plain = lookup_for(tree.config, facts, num_labels)
    sections = sections_of(model.facts)

    def read(path: str) -> Any:
        value = plain(path)
        if value is None and path in sections:
            return {}  # left out: each of its fields is as the class has it
        with suppress(Unfit):  # Gemma 4 makes its last layer one of full attention, whatever layer_types says
            return model.lookup(path) if value is None or path.rpartition(".")[2] in LAYER_KINDS else value
        return value

    left = fill_buffers(modules, missing, shapes, read, dtype)
    check_rotation(modules, read)
    return tree._replace(modules=tuple(modules), notes=(*tree.notes, *buffer_note(left)))


def _needs_headers(name: str, why: str = "") -> NoWeightsError:
    return NoWeightsError(
        f"the shapes of {name} can't be had from config.json alone{why}: headers are needed.",
        where="config.json",
        way_out="name a folder or repository with .safetensors files",
    )


def _chosen(config: Mapping[str, Any], task: str | None) -> tuple[str, Mapping[str, Any], str]:
    """The class that is built, as choose.py has it, its formulas, and the section of config.json that is its config."""
    names = candidates(config, task)
    for name in names:
        facts = shapes_of(name)
        if facts is not None and (section := section_of(config, name)) is not None:
            return name, facts, section
        if facts is not None or line(f"={name}") is not None:
            raise _needs_headers(name)
    raise _needs_headers(next(iter(names), config.get("model_type") or "a model without `architectures`"))


def _tree(model: Model, grower: Grower) -> ModuleTree:
    said = model.said
    here = {module.name for module in grower.modules}
    names = [name for name, _ in named_parameters(grower.modules)]
    tied = _ties(model, names)
    tie = None if said.tie_word_embeddings is None else bool(model.lookup("tie_word_embeddings"))
    return ModuleTree(
        architecture=model.name,
        config=model.config,
        modules=_of_one_shape(grower.modules, tied),
        tied=tied,
        input_embedding=_embedding("in", model, here),
        output_embedding=_embedding("out", model, here),
        one_embedding=tuple(name for name in said.one_embedding if name in here),
        beside_head=said.beside_head,
        declares_ties=said.declares_ties,
        declared_ties=expanded(said.declared_ties, set(names)),
        tie_word_embeddings=tie,
        keep_in_fp32=_of_all("keep_in_fp32", model),
        keep_in_fp32_strict=_of_all("keep_in_fp32_strict", model),
        transposed=tuple(grower.transposed),
        is_composite=said.is_composite,
        shapes="config",
    )


def _of_one_shape(modules: Sequence[Module], tied: Mapping[str, str]) -> tuple[Module, ...]:
    """The modules with tied parameters as large as the one that takes their place (`PreTrainedModel.tie_weights`)."""
    shapes = parameter_shapes(modules)
    other = {name for name, source in tied.items() if shapes[name] != shapes[source]}
    if not other:
        return tuple(modules)

    def of(module: Module, parameter: Parameter) -> Parameter:
        name = full_name(module.name, parameter.name)
        return parameter._replace(shape=shapes[tied[name]]) if name in other else parameter

    return tuple(m._replace(parameters=tuple(of(m, p) for p in m.parameters)) for m in modules)


def _of_all(field: str, model: Model) -> tuple[str, ...]:
    inner = [name for _, part in model.towers.values() for name in _of_all(field, part)]
    return tuple(dict.fromkeys((*getattr(model.said, field), *inner)))


def _embedding(key: str, model: Model, here: set[str]) -> str | None:
    name = choose(model.facts[key], model.lookup, Place())
    for module, (_, part) in model.towers.items():
        if name and name.startswith(f"{module}."):
            inner = _embedding(key, part, {one.removeprefix(f"{module}.") for one in here})
            return inner and f"{module}.{inner}"
    return name if name in here else None


def _ties(model: Model, names: Collection[str]) -> dict[str, str]:
    """Full parameter names; an index in the source is the target's."""
    never = dict(model.said.declared_ties) if unties(model.config, model.facts) else {}
    active = [tie for tie in model.facts["ties"] if tie[0] not in never and met(tie[2], model.lookup, Place())]
    found: dict[str, str] = {}
    for module, (_, part) in model.towers.items():
        before = f"{module}."
        active = [tie for tie in active if not tie[0].startswith(before)]
        inner = _ties(part, [name.removeprefix(before) for name in names if name.startswith(before)])
        found |= {before + target: before + source for target, source in inner.items()}
    known = set(names)
    for target, source, _, *turns in active:
        if turns:
            count = evaluate(turns[0], model.lookup, Place())
            found |= {name: partner for name, partner in _in_turn(target, count, names).items() if partner in known}
            continue
        for name in names:
            partner = matched(name, target, source)
            if partner in known and partner != name:
                found[name] = partner
    return found


def _in_turn(target: str, count: int, names: Collection[str]) -> dict[str, str]:
    """Modules alike but for an index share the first so many of them, one after the other."""
    pattern = re.compile(re.escape(target).replace(r"\*", r"\d+") + r"(?=\.|$)")
    below: dict[str, list[str]] = {}
    for name in names:
        if found := pattern.match(name):
            below.setdefault(found.group(), []).append(name)
    modules = list(below)
    return {
        name: modules[(at - count) % count] + name[len(module) :]
        for at, module in enumerate(modules[count:], count)
        for name in below[module]
    }
