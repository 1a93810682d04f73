"""What the model calls a tensor of the checkpoint, where the shapes in its headers cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from estimator.architecture.choose import choose, own_config, section_of
from estimator.architecture.facts import ClassFacts, class_facts
from estimator.architecture.module import ModuleTree, named_parameters
from estimator.architecture.rename import Renamer, Transform, parts_of, read_transform, renamed_in_full
from estimator.architecture.towers import with_towers


def run_time_names(config: Mapping[str, Any], tree: ModuleTree, stored: Iterable[str]) -> dict[str, str]:
    """The run-time name of each stored one, itself where the class renames nothing.

    `tree`: what config.json builds.
    """
    facts = choose(config, None)
    if facts is None:
        return {name: name for name in stored}
    rename = Renamer(transforms_of(config, facts), facts.prefix, _parameters(tree).__contains__)
    return {name: rename(name).name for name in stored}


def splits_weights(tree: ModuleTree) -> bool:
    """Whether the class makes several parameters of any one stored tensor."""
    return _splitting(tree) is not None


def _splitting(tree: ModuleTree) -> ClassFacts | None:
    """The class's facts where it makes several parameters of any one stored tensor."""
    facts = choose(tree.config, None)
    splits = facts is not None and any(len(one.targets) > 1 for one in transforms_of(tree.config, facts))
    return facts if splits else None


def split_weights(tree: ModuleTree, stored: Iterable[str] | None) -> list[tuple[str, ...]]:
    """Parameters that the class makes of one stored tensor, each time several, in the order of its converter.

    stored: the file's names; None: all that the class would make so.
    """
    if stored is not None:
        return sorted(set(parts_by_source(tree, stored).values()))
    facts = _splitting(tree)
    if facts is None:
        return []
    names, transforms = _parameters(tree), transforms_of(tree.config, facts)
    found = {parts_of(transform, name) for name in names for transform in transforms}
    return sorted(parts for parts in found if parts and names.issuperset(parts))


def parts_by_source(tree: ModuleTree, stored: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The same by the name of the stored tensor; `stored` is not looked at where the class splits none."""
    facts = _splitting(tree)
    if facts is None:
        return {}
    names = _parameters(tree)
    rename = Renamer(transforms_of(tree.config, facts), facts.prefix, names.__contains__)
    made = ((name, rename(name)) for name in stored)
    found = {name: parts_of(one.converter, one.name) for name, one in made if one.converter is not None}
    return {name: parts for name, parts in found.items() if parts and names.issuperset(parts)}


def _parameters(tree: ModuleTree) -> set[str]:
    return {name for name, _ in named_parameters(tree.modules)}


def converted_weights(tree: ModuleTree, stored: Iterable[str]) -> dict[str, str]:
    """Parameters that the class's converters make of these tensors, each with the first that is made along with it."""
    facts = choose(tree.config, None)
    transforms = transforms_of(tree.config, facts) if facts is not None else []
    if facts is None or not any(transform.kind == "convert" for transform in transforms):
        return {}
    rename = Renamer(transforms, facts.prefix, _parameters(tree).__contains__)
    made = [(one.name, one.converter) for one in map(rename, stored) if one.converter is not None]
    return {name: first for first, converter in made for name in parts_of(converter, first) or (first,)}


def held_parameters(config: Mapping[str, Any], tree: ModuleTree, stored: Iterable[str]) -> set[str]:
    """Parameters that these tensors give, by their own names or by the class's converters."""
    names = tuple(stored)
    return {*run_time_names(config, tree, names).values(), *converted_weights(tree, names)}


def gathered_weights(tree: ModuleTree, stored: Iterable[str]) -> dict[str, str]:
    """Stored weights of which a converter of the class takes weights alone, each with the first parameter it makes."""
    facts = choose(tree.config, None)
    transforms = transforms_of(tree.config, facts) if facts is not None else []
    taking = {t.number for t in transforms if t.kind == "convert" and all(s.endswith(".weight") for s in t.sources)}
    if facts is None or not taking:
        return {}
    rename = Renamer(transforms, facts.prefix, _parameters(tree).__contains__)
    made = ((name, rename(name)) for name in stored)
    return {name: one.name for name, one in made if one.converter is not None and one.converter.number in taking}


def renamed_alone(tree: ModuleTree, names: Iterable[str]) -> dict[str, str]:
    """Each name after the class's renamings, itself where there are none: no conversion, and no prefix put or taken."""
    facts = class_facts(tree.architecture or "")
    transforms = transforms_of(tree.config, facts) if facts is not None else []
    rename = Renamer([one for one in transforms if one.kind != "convert"], "", lambda _: False)
    return {name: rename(name).name for name in names}


def renamed_modules(config: Mapping[str, Any], stored: Sequence[str]) -> tuple[str, ...]:
    """What a quantiser makes of module names that a checkpoint's config says in its own way.

    transformers 5.23.0, `_normalize_modules_to_not_convert`: every transform, tried on the name with a dot behind it.
    """
    facts = choose(config, None)
    if facts is None:
        return tuple(stored)
    return tuple(renamed_in_full(transforms_of(config, facts), f"{name}.").removesuffix(".") for name in stored)


def by_module(tree: ModuleTree, said: Mapping[str, Any]) -> dict[str, Any]:
    """What is said by module name, run-time names in place of stored ones (LLaVA's `language_model.model.layers`)."""
    known = {module.name for module in tree.modules}
    odd = [name for name in said if name not in known]
    renamed = dict(zip(odd, renamed_modules(tree.config, odd) if odd else (), strict=True))
    return {renamed[name] if renamed.get(name) in known else name: value for name, value in said.items()}


def transforms_of(config: Mapping[str, Any], facts: ClassFacts) -> list[Transform]:
    """What becomes of the class's stored names, those of its towers included."""
    facts, _ = with_towers(facts, own_config(config, section_of(config, facts.said.name) or "", facts.said.name))
    return [read_transform(number, one) for number, one in enumerate(facts.transforms)]
