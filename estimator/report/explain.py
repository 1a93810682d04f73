"""The arithmetic behind the count: one line for each group of modules that are alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from estimator.report.units import printable

_INDEX = re.compile(r"(?<=\.)\d+(?=\.)|(?<=\.)\d+$|^\d+(?=\.)")


def explain(document: Mapping[str, Any]) -> str:
    """Lines of r x (in + out) x how often, which sum to the trainable parameters."""
    adapter = document["adapter"]
    groups: dict[tuple[Any, ...], int] = {}
    for module in adapter["modules"]:
        if module["rank"] is None:
            continue
        name = _INDEX.sub("*", module["name"])
        key = (
            name,
            module["kind"],
            module["in_features"],
            module["out_features"],
            module["rank"],
            module["parameters"],
        )
        groups[key] = groups.get(key, 0) + 1
    lines = ["how the parameters come about: r × (in + out) for each matrix"]
    lines += [_line(*key, count) for key, count in groups.items()]
    in_modules = sum(module["parameters"] for module in adapter["modules"] if module["rank"] is not None)
    if in_modules != adapter["parameters"]:
        lines.append(f"  beside these (saved modules, biases, tokens): {adapter['parameters'] - in_modules:,}")
    lines.append(f"  together: {adapter['parameters']:,}")
    return "\n".join(lines)


def _line(name: str, kind: str, in_features: int, out_features: int, r: int, parameters: int, count: int) -> str:
    shown = f"  {printable(name)} ({kind}): "
    if parameters == r * (in_features + out_features):
        term = f"{r} × ({in_features:,} + {out_features:,}) = {parameters:,}"
    else:
        term = f"{in_features:,} → {out_features:,} at r={r}: {parameters:,}"
    return shown + term + (f", × {count} = {parameters * count:,}" if count > 1 else "")
