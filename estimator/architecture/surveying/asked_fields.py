"""Which config fields a class's facts ask for, and what they are by default."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import PreTrainedConfig

from estimator.architecture import buffers
from estimator.architecture.structure import ACTIVATION, Structure
from estimator.architecture.surveying import tiny


def paths_of(condition: str) -> set[str]:
    """The config fields that a condition reads."""
    parts = re.split(r" & | / ", condition)
    return {
        path
        for part in parts
        if (found := re.match(r"\^?[?!]?(?:n:)?([A-Za-z_][\w.\-]*)", part))
        for path in found.group(1).split("-")
        if path != "1"
    }


def conditions_of(structure: Structure) -> set[str]:
    """All conditions of the structure, and "?" before a field that it reads otherwise."""
    groups = structure.groups
    found = {f"?{groups}"} if groups and groups != "out" and not groups.isdigit() else set()
    if structure.cls.startswith(ACTIVATION):
        found.add(f"?{structure.cls.removeprefix(ACTIVATION)}")
    for child in structure.children:
        found.add(child.when or "")
        for condition, option in child.options:
            found |= {condition} | conditions_of(option)
    return found


def _own(section: Any) -> Any:
    """The section with nothing but its class's defaults."""
    try:
        return type(section)() if isinstance(section, PreTrainedConfig) else section
    except Exception:
        return section


def _field(holder: Any, name: str) -> Any:
    try:
        return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
    except Exception:  # a field that differs by layer
        return None


def _buffer_paths(config: Any) -> list[str]:
    """The fields that size buffers, in every section of the config."""
    sections = ["", *(f"{section}." for section in tiny.sub_configs(config))]
    return [section + field for section in sections for field in buffers.FIELDS]


def defaults_of(name: str, config: Any, conditions: Iterable[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What a field is where config.json lacks it, and the other name that it may have there.

    In a section that config.json has, what it lacks is as the section's own class has it, not as the model's does.
    """
    try:
        plain = tiny.config_class(name)()
    except Exception:
        plain = config
    defaults, aliases = {}, {}
    paths = sorted({path for condition in conditions for path in paths_of(condition)})
    for path in (*paths, "num_labels", *_buffer_paths(config)):
        *parents, leaf = path.split(".")
        holder = plain
        for parent in parents:
            holder = _own(_field(holder, parent) or _field(config, parent))
        value = _field(holder, leaf)
        if isinstance(value, (bool, int, float, str)) or (isinstance(value, (list, tuple)) and len(value) <= 50):
            defaults[path] = list(value) if isinstance(value, tuple) else value
        for alias, real in getattr(holder, "attribute_map", {}).items():
            if real == leaf:
                aliases[path] = ".".join([*parents, alias])
    return defaults, aliases
