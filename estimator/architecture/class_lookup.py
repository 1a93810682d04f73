"""config.json's fields as a class sees them: what config.json leaves out is the class's default, or worked out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from estimator.architecture.conditions import Lookup, lookup_in
from estimator.architecture.config_fields import TIE, get, labels_of, tie_of
from estimator.architecture.config_fields import lookup_for as lookup_of_config
from estimator.architecture.facts import ClassFacts
from estimator.architecture.formula import Unfit
from estimator.architecture.shapes import shapes_of


def lookup_for(config: Mapping[str, Any], facts: ClassFacts, num_labels: int | None = None) -> Lookup:
    """Reads the config's fields as the class would see them."""
    shapes = shapes_of(facts.said.name)
    made = worked_out(config, shapes, facts.defaults)
    plain = lookup_in(config, {**facts.defaults, **made}, facts.aliases)
    tie = tie_of(config, shapes)

    def lookup(path: str) -> Any:
        if path == "num_labels":
            return labels_of(config, num_labels, facts.defaults.get(path) or 2)
        if path == TIE and tie is not None:
            return tie
        is_null = path.rpartition(".")[2] == "head_dim" and path not in made and get(config, path) is None
        return None if is_null else plain(path)  # classes take no head_dim for width // heads, default or none

    return lookup


def worked_out(
    config: Mapping[str, Any], shapes: Mapping[str, Any] | None, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Defaults that the config class works out from other fields: Llama's head_dim is 128 for its own sizes alone, GLM
    4.7 Flash's is another name of qk_rope_head_dim (`attribute_map`), T5's decoder has as many layers as its encoder.
    """
    rules, aliases = (shapes["rules"], shapes["aliases"]) if shapes else ({}, {})
    names = {alias for path in aliases for alias in aliases[path]}
    sized = [path for path in defaults if path in names or "size" in (rules.get(path, {}).get("absent") or {})]
    found: dict[str, Any] = {}
    if not shapes or not sized:
        return found
    with contextlib.suppress(Unfit):
        lookup = lookup_of_config(config, shapes)
        for path in sized:
            with contextlib.suppress(Unfit):
                found[path] = lookup(path)
    return found
