"""Spellings of a config that its class takes too: a section's fields at the top or in a second section, an empty list
for no list, a text for several words, a list that is longer than there are layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from estimator.architecture.config_fields import LAYER_KINDS
from estimator.architecture.learning.fields_used import given, without
from estimator.architecture.learning.fit import values_of
from estimator.architecture.surveying import tiny

_WORDS = {"true": True, "false": False}
_FURTHER = "num_nextn_predict_layers"
_NUMBERS, _ACTIVATIONS = (2, 4, 24, 96), ("gelu", "relu")


def outside(name: str, facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """By section, the fields that the class takes from the top where config.json has no such section.

    A section is left out where that can't be told of each of its fields.
    """
    base = tiny.base_fields(name)
    found = {}
    for section in (key for key, value in base.items() if isinstance(value, Mapping)):
        taken = {leaf: _is_taken(name, base, leaf, path, facts) for leaf, path in _names(section, facts)}
        if taken and None not in taken.values():
            found[section] = sorted(leaf for leaf, is_taken in taken.items() if is_taken)
    return found


def _names(section: str, facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The section's own fields under all their names, each with its path."""
    for path in sorted({*facts["rules"], *facts["seen"]}):
        if path.rpartition(".")[0] == section:
            yield from ((one.rpartition(".")[2], path) for one in (path, *facts["aliases"].get(path, ())))


def _is_taken(name: str, base: Mapping[str, Any], leaf: str, path: str, facts: Mapping[str, Any]) -> bool | None:
    """Whether a value at the top, all others of the section beside it, comes to stand in the section; None: unclear."""
    if leaf == "model_type":
        return False
    section = path.partition(".")[0]
    flat = {**base[section], **without(base, (section,))}
    flat.pop("model_type", None)
    plain = _filled(name, without(flat, (leaf,)))
    made = set()
    for value in () if plain is None else _values(facts["seen"].get(path, ()), plain.get(path)):
        filled = _filled(name, {**flat, leaf: value}) if value != plain.get(path) else None
        made |= set() if filled is None else {filled.get(path) == value}
    return made.pop() if len(made) == 1 else None


def _values(seen: Any, kept: Any) -> Iterator[Any]:
    yield from (_WORDS.get(text, text) for text in seen if text not in ("#", "null"))
    if isinstance(kept, (str, bool)):
        yield from _ACTIVATIONS if isinstance(kept, str) else (not kept,)
    elif not seen or "#" in seen:
        yield from (kept * 2, kept + 1, kept * 3) if isinstance(kept, int) else _NUMBERS


def empty(name: str, facts: Mapping[str, Any]) -> list[str]:
    """The lists that the class fills in where config.json has an empty one, as where it has none."""
    base = tiny.base_fields(name)
    plain = _filled(name, base) or {}
    lists = [path for path in facts["rules"] if plain.get(path) and isinstance(plain[path], list)]
    return [path for path in lists if _is_refilled(name, base, path)]


def _is_refilled(name: str, base: Mapping[str, Any], path: str) -> bool:
    parts = tuple(path.split("."))
    fields = without(base, parts) if given(base, parts) is not None else base
    filled, refilled = _filled(name, fields), _filled(name, tiny.changed(base, parts, []))
    return filled is not None and refilled is not None and bool(filled.get(path)) and refilled.get(path) == filled[path]


def longer(name: str, facts: Mapping[str, Any]) -> list[str]:
    """The lists of the layers' kinds that may have more entries than there are layers: the class drops the others, all
    of them or those of the layers that predict further tokens.
    """
    base = tiny.base_fields(name)
    filled = _filled(name, base) or {}
    found = []
    for path in sorted(facts["seen"]):
        section, _, field = path.rpartition(".")
        before, kinds = (f"{section}." if section else ""), filled.get(path)
        if field in LAYER_KINDS and kinds and filled.get(f"{before}{LAYER_KINDS[0]}"):
            extended = tiny.changed(base, tuple(path.split(".")), [*kinds, kinds[-1]])
            predicting = tiny.changed(extended, (*before.split(".")[:-1], _FURTHER), 1)
            if any(_filled(name, fields) is not None for fields in (extended, predicting)):
                found.append(path)
    return found


def split(name: str, facts: Mapping[str, Any]) -> list[str]:
    """The fields of several words that may be one text, with strokes between them."""
    base, found = tiny.base_fields(name), []
    for path, seen in facts["seen"].items():
        words = [text for text in seen if text not in ("#", "null", *_WORDS)]
        filled = _filled(name, tiny.changed(base, tuple(path.split(".")), "|".join(words))) if len(words) > 1 else None
        if filled is not None and filled.get(path) == words:
            found.append(path)
    return found


def replaced(name: str) -> list[str]:
    """The sections in whose place another stands, called as it and `_dict`, where config.json has that too."""
    base = tiny.base_fields(name)
    return [key for key, value in base.items() if isinstance(value, Mapping) and _is_replaced(name, base, key)]


def _is_replaced(name: str, base: Mapping[str, Any], section: str) -> bool:
    others = {key: value * 2 for key, value in base[section].items() if type(value) is int}
    made = [
        (_part(name, {**base, f"{section}_dict": said}, section), _part(name, {**base, section: said}, section))
        for said in (others, {})
    ]
    return all(one is not None and one == other for one, other in made) and made[0] != made[1]


def _part(name: str, fields: Mapping[str, Any], section: str) -> dict[str, Any] | None:
    filled = _filled(name, fields)
    return None if filled is None else {key: value for key, value in filled.items() if key.startswith(f"{section}.")}


def _filled(name: str, fields: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        return dict(values_of(tiny.make(name, fields).to_dict()))
    except Exception:
        return None
