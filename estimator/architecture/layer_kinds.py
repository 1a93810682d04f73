"""Lists of the layers' kinds are as long as there are layers, or transformers builds nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from estimator.architecture.conditions import Lookup
from estimator.architecture.config_fields import LAYER_KINDS, MISSING, gathered, get, lookup_for, sections_of
from estimator.architecture.formula import NoModel, Unfit

_COUNT = "num_hidden_layers"


def check_layer_kinds(config: Mapping[str, Any], facts: Mapping[str, Any], lookup: Lookup | None = None) -> None:
    """Raises NoModel where a list of the layers' kinds is not as long as there are layers, in any of the sections, and
    Unfit where a class that reads such a list has a number by default that is not known (Zamba).

    transformers 5.23.0, `PreTrainedConfig.validate_layer_type`: of the MLPs' kinds too where attention's are said. Some
    classes drop what is too many (DeepSeek V4), NemotronH has as many layers as its list says, whatever their number
    is. Either may stand under its other name, and the number may be a default.
    """
    config = gathered(config, facts)
    for section in sections_of(facts):
        before, held = f"{section}." if section else "", get(config, section)
        if not isinstance(_stated(held, before, LAYER_KINDS[0], facts)[1], list):
            continue
        called, count = _count(config, held, before, facts, lookup)
        rule = None if _reads(before, _COUNT, facts) else _reads(before, LAYER_KINDS[0], facts)
        if rule is not None and _has_one_list(rule):
            continue
        if rule is not None and count is MISSING:
            raise Unfit(f"{before}{called} is missing")
        for field in LAYER_KINDS:
            name, said = _stated(held, before, field, facts)
            if not isinstance(said, list) or type(count) is not int or len(said) == count:
                continue
            if len(said) < count or before + field not in facts.get("longer", ()):
                entries = "1 entry" if len(said) == 1 else f"{len(said):,} entries"
                what = f"{before}{name} has {entries}, and {before}{called} is {count:,}"
                raise NoModel(f"{what}, which transformers refuses")


def _count(
    config: Mapping[str, Any], held: Any, before: str, facts: Mapping[str, Any], lookup: Lookup | None
) -> tuple[str, Any]:
    """How many layers there are, and what config.json calls their number; MISSING where the class has no such field."""
    name, count = _stated(held, before, _COUNT, facts)
    if count is MISSING:
        with suppress(Unfit):
            return name, (lookup or lookup_for(config, facts))(before + name)
    return name, count


def _reads(before: str, field: str, facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The rule by which the formulas read a field, under any of its names; None where they do not."""
    rules = (facts["rules"].get(before + name) for name in _names(before, field, facts))
    return next((rule for rule in rules if rule is not None), None)


def _has_one_list(rule: Mapping[str, Any]) -> bool:
    """Whether the class has one certain list where config.json has none: its layers are counted by nothing else."""
    default = rule.get("absent", rule.get("alone", {}))
    return isinstance((default["either"][-1][1] if "either" in default else default).get("is"), list)


def _stated(held: Any, before: str, field: str, facts: Mapping[str, Any]) -> tuple[str, Any]:
    """The field's name and value as the section has them, under any of its names; the last name where it has none."""
    name, value = field, get(held, field)
    for name in _names(before, field, facts):
        value = get(held, name)
        if value is not MISSING:
            break
    return name, value


def _names(before: str, field: str, facts: Mapping[str, Any]) -> Iterator[str]:
    aliases, path = facts["aliases"], before + field
    yield field
    for name in (*aliases.get(path, ()), *(own for own, names in aliases.items() if path in names)):
        yield name.removeprefix(before)
