"""Overrides of a Hydra program's command line: `a.b=1`, `+a.b=[x,y]`, `~a.b` (hydra 1.3: basic override syntax)."""

from __future__ import annotations

import re
from typing import Any

from estimator.errors import UsageError

_NAME = r"([A-Za-z_]\w*(?:\.\w+)*)"
_OVERRIDE = re.compile(rf"\+{{0,2}}{_NAME}=(.*)", re.DOTALL)
_DELETION = re.compile(rf"~{_NAME}(?:=(.*))?", re.DOTALL)


def is_override(word: str) -> bool:
    """Whether the word sets or deletes a value by its dotted name."""
    return _OVERRIDE.fullmatch(word) is not None or _DELETION.fullmatch(word) is not None


def nested(words: list[str]) -> dict[str, Any]:
    """The values as the sections that they lie in; the last one of a name counts, and one that is deleted is not there.

    Raises UsageError where a deletion names another value than is set, as Hydra does.
    """
    values: dict[str, Any] = {}
    for word in words:
        if (match := _OVERRIDE.fullmatch(word)) is not None:
            *sections, name = match[1].split(".")
            inner = values
            for section in sections:
                if not isinstance(inner.get(section), dict):
                    inner[section] = {}
                inner = inner[section]
            inner[name] = _value(match[2])
        elif (match := _DELETION.fullmatch(word)) is not None:
            _delete(values, match[1], match[2], word)
    return values


def _delete(values: dict[str, Any], dotted: str, said: str | None, word: str) -> None:
    *sections, name = dotted.split(".")
    inner: Any = values
    for section in sections:
        inner = inner.get(section) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or name not in inner:
        return
    if said is not None and inner[name] != _value(said):
        what = f"{dotted[:80]} is {str(inner[name])[:80]!r}, and is to be deleted as {said[:80]!r}: Hydra refuses."
        raise UsageError(what, where=word[:200], way_out=f"~{dotted[:80]} deletes it whatever it is")
    del inner[name]


def _value(text: str) -> Any:
    """What the text says; a list's items, quotes and null are written as in YAML. A text that is none stays one."""
    import yaml

    try:
        return yaml.safe_load(text) if text else ""
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
