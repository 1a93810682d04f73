"""The arithmetic behind the count: one line for each group of modules that are alike."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from estimator.source.plain import plain

_INDEX = re.compile(r"(?<=\.)\d+(?=\.)|(?<=\.)\d+$|^\d+(?=\.)")


def explain(document: Mapping[str, Any]) -> str:
    """Lines of r x (in + out) x how often, which sum to the trainable parameters."""
    adapter = document["adapter"]
    groups = Counter(_group(module) for module in adapter["modules"] if module["rank"] is not None)
    lines = ["how the parameters come about: r × (in + out) for each matrix"]
    vector = "magnitudes" if document["lora"].get("use_dora") else "bias"
    lines += [_line(group, count, vector) for group, count in groups.items()]
    in_modules = sum(module["parameters"] for module in adapter["modules"] if module["rank"] is not None)
    if in_modules != adapter["parameters"]:
        lines.append(f"  beside these (saved modules, biases, tokens): {adapter['parameters'] - in_modules:,}")
    lines.append(f"  together: {adapter['parameters']:,}")
    return "\n".join(lines)


class _Group(NamedTuple):
    name: str  # numbers of layers as "*"
    kind: str
    in_features: int
    out_features: int
    rank: int
    parameters: int  # of each module


def _group(module: Mapping[str, Any]) -> _Group:
    return _Group(_INDEX.sub("*", module["name"]), *(module[field] for field in _Group._fields[1:]))


def _line(group: _Group, count: int, vector: str) -> str:
    shown = f"  {plain(group.name)} ({group.kind}): {_term(group, vector)}"
    return shown + (f", × {count} = {group.parameters * count:,}" if count > 1 else "")


def _term(group: _Group, vector: str) -> str:
    """The sum for one module: once for each expert of a layer, a vector of the out features where it has one.

    A convolution's kernel is no part of its features: without it there is no sum to show.
    """
    _, kind, in_features, out_features, r, parameters = group
    matrices = r * (in_features + out_features)
    times, rest = divmod(parameters, matrices)
    product = f"{r} × ({in_features:,} + {out_features:,})"
    if rest == 0 and (times == 1 or not kind.startswith("Conv")):
        return f"{'' if times == 1 else f'{times} × '}{product} = {parameters:,}"
    if parameters == matrices + out_features:
        return f"{product} + {out_features:,} ({vector}) = {parameters:,}"
    return f"{in_features:,} → {out_features:,} at r={r}: {parameters:,}"
