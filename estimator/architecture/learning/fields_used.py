"""Which fields of config.json a class's formulas read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from estimator.architecture.structure import ACTIVATION

_WORD = re.compile(r"(?<![\w.])[A-Za-z_][\w.]*")
_FUNCTIONS = {"ceil", "floor", "int", "round", "max", "min", "sum", "prod", "log2"}


def paths_of(value: Any) -> set[str]:
    """The config fields that nodes, ties, options or rules read."""
    found: set[str] = set()
    for condition in _conditions(value):
        for part in re.split(r" & | / ", condition):
            part = part.removeprefix("not ").lstrip("^")
            if part.startswith("("):
                found |= _words(part)
            elif part.startswith(("has ", "in ", "out ")):
                found.add(part.split(" ")[1])
            elif part and not part.startswith("#"):
                found |= _words(re.split(r"(?<=.)[=~@<>]", part.lstrip("?!"))[0])
    for size in _sizes(value):
        found |= _words(size)
    return found


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text)) - _FUNCTIONS


def _conditions(value: Any) -> set[str]:
    found: set[str] = set()
    if isinstance(value, dict):
        if "n" in value:
            for node in value["n"]:
                for slot in (*node[2], *node[3]):
                    found.add(slot[1])
                    found |= {option[0] for size in slot[2] if isinstance(size, list) for option in size}
                if isinstance(node[4], list):
                    found |= {option[0] for option in node[4]}
                for child, when, options in node[6]:
                    if isinstance(when, list):
                        found |= {option[0] for option in when}
                    elif isinstance(when, str) and not child.endswith("*"):
                        found.add(when)
                    found |= {option[0] for option in options}
            found |= {tie[2] for tie in value["ties"]}
            found |= {option[0] for key in ("in", "out") for option in value[key]}
        for rule in value.values():
            if isinstance(rule, dict):
                found |= {option[0] for key in ("size", "items", "choice", "either") for option in rule.get(key, ())}
                found |= {one for _, inner in rule.get("either", ()) for one in _conditions({"": inner})}
                found.add(rule.get("where", ""))
    return found


def _sizes(value: Any) -> set[str]:
    found: set[str] = set()

    def add(size: Any) -> None:
        for one in [option[1] for option in size] if isinstance(size, list) else [size]:
            if isinstance(one, str):
                found.add(one)

    for node in value.get("n", ()):
        for slot in (*node[2], *node[3]):
            for size in slot[2]:
                add(size)
        add(node[4])
        for child, when, _ in node[6]:
            if child.endswith("*"):
                for size in when.values() if isinstance(when, dict) else (when,):
                    add(size)
        if node[0].startswith(ACTIVATION):
            found.add(node[0].removeprefix(ACTIVATION))
    for tie in value.get("ties", ()):
        add(tie[3] if len(tie) > 3 else 0)
    for rule in value.values() if "n" not in value else ():
        if isinstance(rule, dict):
            add(rule.get("size", []))
            add(rule.get("length", 0))
            add(rule.get("letters", 0))
            add(rule.get("most", 0))
            found |= {one for _, inner in rule.get("either", ()) for one in _sizes({"": inner})}
    return found


def given(fields: Any, parts: Sequence[str]) -> Any:
    for key in parts:
        fields = fields.get(key) if isinstance(fields, Mapping) else None
    return fields


def without(fields: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    key, *rest = parts
    if not rest:
        return {name: value for name, value in fields.items() if name != key}
    inner = fields.get(key)
    return {**fields, key: without(inner, rest)} if isinstance(inner, Mapping) else dict(fields)


def only_types(base: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """The sections on the way to a field, with no more than their model types."""
    found: dict[str, Any] = {}
    for at in range(len(path) - 1, 0, -1):
        model_type = given(base, (*path[:at], "model_type"))
        found = {path[at - 1]: {**({"model_type": model_type} if model_type else {}), **found}}
    return found
