"""Model types whose configs another type's class is built of: internlm3 is Llama with fields of its own.

A line `%internlm3` of the facts: {"as": the class's own type, "names": {another name: the class's field}, "absent":
{field: what it is where config.json leaves it out, and the class has another default}, "transforms": a line of the
type's weight transforms, "release": of transformers, of a type that the stamp's lacks}.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from estimator.architecture.facts import ClassFacts, class_outline, line
from estimator.architecture.shapes import shapes_of


def takes(formulas: Mapping[str, Any], kind: Any) -> bool:
    """Whether the class's formulas hold for a config of this model type, be it read as another's."""
    return kind in formulas["types"] or _row(formulas["types"], kind) is not None


def borrowed(name: str, kind: Any) -> Mapping[str, Any] | None:
    """What is said of a model type as far as this class is built of it; None where the class is its own."""
    formulas = shapes_of(name) if line(f"%{kind}") is not None else None
    return _row(formulas["types"], kind) if formulas is not None else None


def other_names(name: str, kind: Any) -> Mapping[str, str]:
    """The class's field for each name that configs of this model type have for it."""
    names: Mapping[str, str] = (borrowed(name, kind) or {}).get("names", {})
    return names


def _row(types: Collection[str], kind: Any) -> Mapping[str, Any] | None:
    said = line(f"%{kind}")
    return said if isinstance(said, Mapping) and said["as"] in types else None


def as_lender(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The config with the class's fields, its towers' sections too; the model type stays.

    What stands under another name wins (`PreTrainedConfig.__post_init__` sets it last).
    """
    said = borrowed(name, config.get("model_type"))
    if said is not None:
        names = said.get("names", {})
        renamed = {names[key]: value for key, value in config.items() if key in names}
        kept = {key: value for key, value in config.items() if key not in names}
        config = {**said.get("absent", {}), **kept, **renamed}
    outline = class_outline(name)
    for tower in outline.towers if outline is not None else ():
        section = config.get(tower.section)
        kind = section.get("model_type") if isinstance(section, Mapping) else None
        built = tower.class_for(kind) if isinstance(kind, str) and line(f"%{kind}") else None
        if isinstance(section, Mapping) and built is not None:
            config = {**config, tower.section: as_lender(section, built)}
    return config


def with_own_transforms(facts: ClassFacts, config: Mapping[str, Any]) -> ClassFacts:
    """The facts with the weight transforms of the config's model type (`get_model_conversion_mapping` asks for it)."""
    said = borrowed(facts.said.name, config.get("model_type"))
    if said is None:
        return facts
    own = line(said["transforms"]) if "transforms" in said else ()
    return facts._replace(transforms=(*own, *line("$legacy")))
