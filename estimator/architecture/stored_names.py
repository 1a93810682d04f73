"""What the model calls a tensor of the checkpoint, where the shapes in its headers cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from estimator.architecture.choose import choose, own_config, section_of
from estimator.architecture.class_lookup import lookup_for
from estimator.architecture.facts import ClassFacts
from estimator.architecture.load import load
from estimator.architecture.module import ModuleTree
from estimator.architecture.rename import Renamer, Transform, parts_of, read_transform, renamed_in_full
from estimator.architecture.towers import with_towers
from estimator.checkpoint.checkpoint import Tensors
from estimator.source.stack import Stack


def run_time_names(config: Mapping[str, Any], tree: ModuleTree, stored: Iterable[str]) -> dict[str, str]:
    """The run-time name of each stored one, itself where the class renames nothing.

    `tree`: what config.json builds.
    """
    facts = choose(config, None)
    if facts is None:
        return {name: name for name in stored}
    known = {f"{module.name}.{p.name}".lstrip(".") for module in tree.modules for p in module.parameters}
    rename = Renamer(_transforms(config, facts), facts.prefix, known.__contains__)
    return {name: rename(name).name for name in stored}


def loaded_shapes(tree: ModuleTree, stacks: Iterable[Stack]) -> dict[str, tuple[int, ...] | None]:
    """What comes of stored tensors that are named as weights are: each parameter's shape, by its run-time name.

    None where shapes alone can't tell. Raises MalformedHeaderError for shapes that a converter can't take.
    """
    facts = choose(tree.config, None)
    if facts is None:
        return {}
    facts = _with_towers(tree.config, facts)
    lookup = lookup_for(tree.config, facts, None)
    return {name: found.shape for name, found in load(Tensors(stacks), facts, lookup).parameters.items()}


def split_weights(tree: ModuleTree, stored: Iterable[str] | None) -> list[tuple[str, ...]]:
    """Parameters that the class makes of one stored tensor, each time several, in the order of its converter.

    stored: the file's names; None: all that the class would make so.
    """
    facts = choose(tree.config, None)
    transforms = _transforms(tree.config, facts) if facts is not None else []
    if not any(len(transform.targets) > 1 for transform in transforms):
        return []
    names = {f"{module.name}.{p.name}".lstrip(".") for module in tree.modules for p in module.parameters}
    if stored is None:
        found = [parts_of(transform, name) for name in names for transform in transforms]
    else:
        rename = Renamer(transforms, facts.prefix, names.__contains__)
        found = [parts_of(one.converter, one.name) for one in map(rename, stored) if one.converter is not None]
    return sorted({parts for parts in found if parts and names.issuperset(parts)})


def renamed_modules(config: Mapping[str, Any], stored: Sequence[str]) -> tuple[str, ...]:
    """What a quantiser makes of module names that a checkpoint's config says in its own way.

    transformers 5.23.0, `_normalize_modules_to_not_convert`: every transform, tried on the name with a dot behind it.
    """
    facts = choose(config, None)
    if facts is None:
        return tuple(stored)
    return tuple(renamed_in_full(_transforms(config, facts), f"{name}.").removesuffix(".") for name in stored)


def by_module(tree: ModuleTree, said: Mapping[str, Any]) -> dict[str, Any]:
    """What is said by module name, run-time names in place of stored ones (LLaVA's `language_model.model.layers`)."""
    known = {module.name for module in tree.modules}
    odd = [name for name in said if name not in known]
    renamed = dict(zip(odd, renamed_modules(tree.config, odd) if odd else (), strict=True))
    return {renamed[name] if renamed.get(name) in known else name: value for name, value in said.items()}


def _transforms(config: Mapping[str, Any], facts: ClassFacts) -> list[Transform]:
    written = _with_towers(config, facts).transforms
    return [read_transform(number, one) for number, one in enumerate(written)]


def _with_towers(config: Mapping[str, Any], facts: ClassFacts) -> ClassFacts:
    return with_towers(facts, own_config(config, section_of(config, facts.said.name) or "", facts.said.name))[0]
