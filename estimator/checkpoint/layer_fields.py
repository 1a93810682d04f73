"""Fields of `quantization_config` that hold for single layers, where one file mixes widths or leaves layers out.

    gptq         dynamic          {pattern: {bits, group_size}}; "-:" before it leaves the layers out, "+:" says nothing
    auto-round   extra_config     {layer: {bits, group_size}}; more than 8 bits leave it out
    mlx          the layer's name {bits, group_size}, or false
    compressed   config_groups    each with targets

As gptqmodel (`dynamic_get`: the first pattern that matches from the name's start), auto-round (`convert_hf_model`) and
mlx-lm (`class_predicate`) read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from estimator.errors import MalformedConfigError
from estimator.request.patterns import Pattern, matching

Fields = Mapping[str, Any]
_WHERE = "quantization_config in config.json"
_MOST_BITS = 8  # of an integer that AutoRound packs


def gptq_by_layer(fields: Fields, names: Sequence[str]) -> dict[str, Fields | None]:
    """The fields of each layer that `dynamic` names, None for one that it leaves out.

    Raises MalformedConfigError for a pattern that is none, or that is endless.
    """
    dynamic = fields.get("dynamic") or {}
    patterns = [Pattern(one.removeprefix("-:").removeprefix("+:"), one) for one in dynamic]
    found: dict[str, Fields | None] = {}
    for one, matched in zip(
        dynamic, matching(patterns, names, where=_WHERE, refusal=MalformedConfigError), strict=True
    ):
        own = None if one.startswith("-:") or not isinstance(dynamic[one], Mapping) else _over(fields, dynamic[one])
        found = dict.fromkeys(matched, own) | found
    return found


def auto_round_by_layer(fields: Fields, names: Sequence[str]) -> dict[str, Fields | None]:
    """The fields of each layer that `extra_config` names, None for one that it leaves out."""
    extra = fields.get("extra_config") or {}
    found = {name: _over(fields, extra[name]) for name in names if isinstance(extra.get(name), Mapping)}
    return {name: own if int(own.get("bits") or 0) <= _MOST_BITS else None for name, own in found.items()}


def mlx_by_layer(fields: Fields, names: Sequence[str]) -> dict[str, Fields | None]:
    """The fields of each layer that is named, None for one that is left out."""
    found = {name: fields[name] for name in names if name in fields}
    return {
        name: _over(fields, own) if isinstance(own, Mapping) else None for name, own in found.items() if own is not True
    }


def compressed_by_layer(fields: Fields, names: Sequence[str]) -> dict[str, Fields]:
    """What each layer's group says of weights."""
    return {name: group["weights"] for name, group in compressed_groups(fields, names).items()}


def _over(fields: Fields, own: Fields) -> Fields:
    return {**fields, **{name: value for name, value in own.items() if value is not None}}


def compressed_groups(fields: Fields, names: Sequence[str]) -> dict[str, Fields]:
    """compressed-tensors' config group of each Linear whose weights one quantises.

    A target that is the name goes before patterns, these, in alphabetical order, before the class; of two groups with
    one target the last counts (compressed-tensors 0.20, `apply_quantization_config` and `match_targets`).
    Raises MalformedConfigError for a pattern that is none, or that is endless.
    """
    groups = [group for group in (fields.get("config_groups") or {}).values() if isinstance(group, Mapping)]
    of_target = {target: group for group in groups for target in group.get("targets") or ()}
    found = dict.fromkeys(names, of_target["Linear"]) if "Linear" in of_target else {}
    expressions = sorted((one for one in of_target if one.startswith("re:")), reverse=True)
    for one, matched in zip(expressions, _matches(expressions, names), strict=True):
        found |= dict.fromkeys(matched, of_target[one])
    found |= {name: of_target[name] for name in names if name in of_target}
    return {name: group for name, group in found.items() if isinstance(group.get("weights"), Mapping)}


def named(targets: Sequence[str], names: Sequence[str], cls: str) -> set[str]:
    """The names that compressed-tensors' `is_match` takes: `re:` and a pattern from the name's start, a full name, or
    all where the class is a target.

    Raises MalformedConfigError for a pattern that is none, or that is endless.
    """
    if cls in targets:
        return set(names)
    expressions = [one for one in dict.fromkeys(targets) if one.startswith("re:")]
    return set(targets).intersection(names).union(*_matches(expressions, names))


def _matches(expressions: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    patterns = [Pattern(one.removeprefix("re:"), one) for one in expressions]
    return matching(patterns, names, where=_WHERE, refusal=MalformedConfigError)
