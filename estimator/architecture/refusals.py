"""What transformers refuses to build, though shapes could be reckoned: refusals.facts, written by generate_refusals.

A line: a condition that has to hold (formula.py), ` unless` and fields that release from it where config.json states
one of them, a tab, the model types and classes that want it kept. Or "default", a field and what their config class
gives it where config.json has it under none of its names, which follow ` unless`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from estimator.architecture.by_formulas import Model
from estimator.architecture.conditions import Lookup, Place, written
from estimator.architecture.config_fields import MISSING, get
from estimator.architecture.formula import NoModel, NoNumber, Unfit, met

FACTS = Path(__file__).with_name("refusals.facts")
_FIELD = re.compile(r"[a-z_][\w.]*")
_IS_NOT_0 = re.compile(r"\([\w.]+!=0\)")
_LENGTH = re.compile(r"([a-z_][\w.]*)\[\]")
_DEFAULT = "default "


def check_refusals(model: Model) -> None:
    """Raises NoModel where the config breaks what the class, or one that stands in a tower's place, wants kept."""
    exchanged = tuple(f"{tower.section}." for tower, _ in model.towers.values())

    names = model.name, str(model.config.get("model_type"))
    defaults = _defaults(model.config, *names)

    def read(path: str) -> Any:
        try:
            return model.lookup(path)
        except Unfit:
            return defaults.get(path)

    for condition, released in wanted(*names):
        fields = fields_in(condition)
        if any(field.startswith(exchanged) for field in fields):
            continue
        if _states(model.config, released):
            continue
        if _is_null(condition, model.config) or not _holds(condition, read):
            said = " and ".join(f"{field} is {written(read(field))}" for field in fields)
            raise NoModel(f"{said}, of which transformers builds no {model.name}")
    for _, inner in model.towers.values():
        check_refusals(inner)


def _holds(condition: str, read: Lookup) -> bool:
    """Whether it holds, or a field that it compares is not known; a number may stand for a list that is as long as it
    has to be (`attention_window`). Raises NoNumber.
    """
    if any(type(read(field)) is int for field in _LENGTH.findall(condition)):
        return True
    try:
        return met(condition, read, Place())
    except NoNumber:
        raise
    except Unfit:
        return True


def _is_null(condition: str, config: Mapping[str, Any]) -> bool:
    """Whether config.json has null for a number that must not be 0: no class that refuses the one takes the other."""
    return _IS_NOT_0.fullmatch(condition) is not None and get(config, condition[1:-4]) is None


def fields_in(condition: str) -> Sequence[str]:
    """The fields that a condition compares, in order."""
    return list(dict.fromkeys(_FIELD.findall(condition)))


def _states(config: Mapping[str, Any], fields: Sequence[str]) -> bool:
    return any(get(config, field) not in (MISSING, None) for field in fields)


def _defaults(config: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """What fields are that config.json leaves out, of a section that it has: one that it lacks is whole by default."""
    rows = [(row.split()[1:], others) for row, others in _rows(names) if row.startswith(_DEFAULT)]
    left_out = (row for row, others in rows if get(config, row[0]) is MISSING and not _states(config, others))
    return {path: json.loads(value) for path, value in left_out if _has_section(config, path)}


def _has_section(config: Mapping[str, Any], path: str) -> bool:
    return isinstance(get(config, path.rpartition(".")[0]), Mapping)


def wanted(*names: str) -> Iterator[tuple[str, list[str]]]:
    """The conditions of a class and of its model type, each with the fields that release from it."""
    return ((condition, released) for condition, released in _rows(names) if not condition.startswith(_DEFAULT))


def _rows(names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """What the lines of these names say, each with what follows ` unless`."""
    for said, of in _lines():
        if not of.isdisjoint(names):
            row, _, released = said.partition(" unless ")
            yield row, released.split()


@cache
def _lines() -> list[tuple[str, frozenset[str]]]:
    rows = (line.partition("\t") for line in FACTS.read_text(encoding="utf-8").splitlines()[1:])
    return [(said, frozenset(names.split(" "))) for said, _, names in rows]
