"""What transformers refuses to build, though shapes could be reckoned: refusals.facts, written by generate_refusals.

A line: a condition that has to hold (formula.py), ` unless` and fields that release from it where config.json states
one of them, a tab, the model types and classes that want it kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from estimator.architecture.by_formulas import Model
from estimator.architecture.conditions import Place, written
from estimator.architecture.config_fields import MISSING, get
from estimator.architecture.formula import NoModel, Unfit, met

FACTS = Path(__file__).with_name("refusals.facts")
_FIELD = re.compile(r"[a-z_][\w.]*")


def check_refusals(model: Model) -> None:
    """Raises NoModel where the config breaks what the class, or one that stands in a tower's place, wants kept."""
    exchanged = tuple(f"{tower.section}." for tower, _ in model.towers.values())

    def read(path: str) -> Any:
        try:
            return model.lookup(path)
        except Unfit:
            return None

    for condition, released in wanted(model.name, str(model.config.get("model_type"))):
        fields = dict.fromkeys(_FIELD.findall(condition))
        if any(field.startswith(exchanged) for field in fields):
            continue
        if any(get(model.config, field) not in (MISSING, None) for field in released):
            continue
        if not _holds(condition, read):
            said = " and ".join(f"{field} is {written(read(field))}" for field in fields)
            raise NoModel(f"{said}, of which transformers builds no {model.name}")
    for _, inner in model.towers.values():
        check_refusals(inner)


def _holds(condition: str, read: Any) -> bool:
    """Whether it holds, or a field that it compares is not known."""
    try:
        return met(condition, read, Place())
    except Unfit:
        return True


def wanted(*names: str) -> Iterator[tuple[str, list[str]]]:
    """The conditions of a class and of its model type, each with the fields that release from it."""
    for said, of in _lines():
        if not of.isdisjoint(names):
            condition, _, released = said.partition(" unless ")
            yield condition, released.split()


@cache
def _lines() -> list[tuple[str, frozenset[str]]]:
    rows = (line.partition("\t") for line in FACTS.read_text(encoding="utf-8").splitlines()[1:])
    return [(said, frozenset(names.split(" "))) for said, _, names in rows]
