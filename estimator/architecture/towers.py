"""Parts of a model that an Auto class chooses: a language model behind a vision tower, a backbone behind a detector.

transformers 5.23.0, `AutoModel.from_config(config.text_config)` and its kin build the class that belongs to the
section's model type. The facts of a class know the part that stands there by default; where config.json names another
model type, the facts of that type's class take its place, their fields looked up in the section.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from estimator.architecture.borrowed import with_own_transforms
from estimator.architecture.class_lookup import worked_out
from estimator.architecture.conditions import under
from estimator.architecture.facts import ClassFacts, Tower, class_facts
from estimator.architecture.shapes import shapes_of
from estimator.architecture.structure import ACTIVATION, Child, Structure


def with_towers(facts: ClassFacts, config: Mapping[str, Any]) -> tuple[ClassFacts, tuple[str, ...]]:
    """The facts with the parts that config.json names, and the paths of those whose model type has no facts."""
    facts, unknown = with_own_transforms(facts, config), []
    for tower in facts.said.towers:
        section: Any = config
        for key in tower.section.split("."):
            section = section.get(key) if isinstance(section, Mapping) else None
        model_type = section.get("model_type") if isinstance(section, Mapping) else None
        if model_type in (None, tower.model_type):
            continue
        name = tower.class_for(model_type)
        known = class_facts(name) if name else None
        part = None if known is None else with_own_transforms(known, section)
        if part is None:
            unknown.append(tower.module)
        elif name != _class_at(facts.root, tower.module):
            made = worked_out(section, shapes_of(part.said.name), part.defaults)
            part = part._replace(defaults={**part.defaults, **made})
            facts = _replaced(facts, tower, with_towers(part, section)[0])
        else:  # the same class, whose names are converted by the model type all the same (MaskFormer's Swin)
            facts = facts._replace(transforms=_transforms(facts, tower, part))
    return facts, tuple(unknown)


def opened(facts: ClassFacts, module: str) -> ClassFacts:
    """The facts with nothing known of a part: the checkpoint's names and shapes tell what stands there."""
    part = Structure(_class_at(facts.root, module) or "Module", "other", is_open=True)
    return facts._replace(root=_put(facts.root, module.split("."), part))


def _class_at(root: Structure, module: str) -> str | None:
    options = [root]
    for name in module.split("."):
        options = [o for s in options for child in s.children if child.name == name for _, o in child.options]
    return options[0].cls if options else None


def _replaced(facts: ClassFacts, tower: Tower, part: ClassFacts) -> ClassFacts:
    before, section = f"{tower.module}.", tower.section
    own = {key: value for key, value in facts.defaults.items() if not key.startswith(f"{section}.")}
    aliases = {key: value for key, value in facts.aliases.items() if not key.startswith(f"{section}.")}
    ties = [tie for tie in facts.ties if not tie[0].startswith(before)]
    declared = [tie for tie in facts.said.declared_ties if not tie[0].startswith(before)]
    said = facts.said._replace(
        declared_ties=(*declared, *((before + target, before + source) for target, source in part.said.declared_ties)),
        input_embedding=_moved(facts.said.input_embedding, before, part.said.input_embedding),
        output_embedding=_moved(facts.said.output_embedding, before, part.said.output_embedding),
        keep_in_fp32=tuple(dict.fromkeys((*facts.said.keep_in_fp32, *part.said.keep_in_fp32))),
        keep_in_fp32_strict=tuple(dict.fromkeys((*facts.said.keep_in_fp32_strict, *part.said.keep_in_fp32_strict))),
    )
    return facts._replace(
        said=said,
        root=_put(facts.root, tower.module.split("."), _Under(section).structure(part.root)),
        transforms=_transforms(facts, tower, part),
        ties=(*ties, *((before + t, before + s, under(condition, section)) for t, s, condition in part.ties)),
        fresh={**facts.fresh, **{before + name: _sized(shape, section) for name, shape in part.fresh.items()}},
        defaults={**own, **{f"{section}.{key}": value for key, value in part.defaults.items()}},
        aliases={**aliases, **{f"{section}.{key}": f"{section}.{value}" for key, value in part.aliases.items()}},
        ignored_unexpected=(*facts.ignored_unexpected, *part.ignored_unexpected),
    )


def _transforms(facts: ClassFacts, tower: Tower, part: ClassFacts) -> tuple[Sequence[Any], ...]:
    """The class's own, with the part's in place of those of the part that stood there."""
    scope = f"{tower.module}.".removeprefix(f"{facts.prefix}.")
    own = (t for t in facts.transforms if not _scope(t).startswith(scope))
    return *own, *(_scoped(t, tower.module, facts.prefix) for t in part.transforms if t not in facts.transforms)


def _put(structure: Structure, path: list[str], part: Structure) -> Structure:
    """The structure with another one at a path, under every option that leads there."""
    if not path:
        return part
    children = tuple(
        child._replace(options=tuple((condition, _put(option, path[1:], part)) for condition, option in child.options))
        if child.name == path[0]
        else child
        for child in structure.children
    )
    return structure._replace(children=children)


def _scope(transform: Any) -> str:
    return f"{transform[4]}." if len(transform) > 4 and transform[4] else ""


def _scoped(transform: Any, module: str, prefix: str) -> list[Any]:
    """The transform as it applies to what lies below a part (`get_model_conversion_mapping`)."""
    written = [*transform, *("", [], [], [], None, None, 0)[len(transform) :]]
    scope = module.removeprefix(prefix).removeprefix(".")
    written[4], written[5] = f"{scope}.{written[4]}" if written[4] else scope, prefix
    return written


def _sized(shape: Any, section: str) -> list[Any]:
    return [part if isinstance(part, int) else f"{section}.{part}" for part in shape]


def _moved(name: str | None, before: str, inner: str | None) -> str | None:
    if name is None or not name.startswith(before):
        return name
    return before + inner if inner else None


class _Under:
    """Rewrites structures so that their conditions read a section; what is shared stays shared."""

    def __init__(self, section: str) -> None:
        self.section = section
        self.done: dict[int, tuple[Structure, Structure]] = {}

    def structure(self, structure: Structure) -> Structure:
        if id(structure) not in self.done:
            self.done[id(structure)] = structure, self._rewritten(structure)
        return self.done[id(structure)][1]

    def _rewritten(self, structure: Structure) -> Structure:
        cls, groups = structure.cls, structure.groups
        if cls.startswith(ACTIVATION):
            cls = f"{ACTIVATION}{self.section}.{cls.removeprefix(ACTIVATION)}"
        if groups and groups != "out" and not groups.isdigit():
            groups = f"{self.section}.{groups}"
        return structure._replace(cls=cls, groups=groups, children=tuple(map(self._child, structure.children)))

    def _child(self, child: Child) -> Child:
        when = child.when and under(child.when, self.section)
        options = tuple((under(condition, self.section), self.structure(option)) for condition, option in child.options)
        return Child(child.name, when, options)
