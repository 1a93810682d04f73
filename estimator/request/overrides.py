"""Overrides of a Hydra program's command line: `a.b=1`, `+a.b=[x,y]` (hydra 1.3: basic override syntax)."""

from __future__ import annotations

import re
from typing import Any

_OVERRIDE = re.compile(r"\+{0,2}([A-Za-z_]\w*(?:\.\w+)*)=(.*)", re.DOTALL)


def is_override(word: str) -> bool:
    """Whether the word sets a value by its dotted name."""
    return _OVERRIDE.fullmatch(word) is not None


def nested(words: list[str]) -> dict[str, Any]:
    """The values as the sections that they lie in; the last one of a name counts."""
    values: dict[str, Any] = {}
    for word in words:
        match = _OVERRIDE.fullmatch(word)
        if match is None:
            continue
        *sections, name = match[1].split(".")
        inner = values
        for section in sections:
            if not isinstance(inner.get(section), dict):
                inner[section] = {}
            inner = inner[section]
        inner[name] = _value(match[2])
    return values


def _value(text: str) -> Any:
    """What the text says; a list's items, quotes and null are written as in YAML. A text that is none stays one."""
    import yaml

    try:
        return yaml.safe_load(text) if text else ""
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
