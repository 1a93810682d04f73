"""Fields of `quantization_config` that hold for single layers, where one file mixes widths or leaves layers out.

    gptq         dynamic          {pattern: {bits, group_size}}; "-:" before it leaves the layers out, "+:" says nothing
    auto-round   extra_config     {layer or pattern: {bits, group_size}}; more than 8 bits leave it out; and `dynamic`
    mlx          the layer's name {bits, group_size}, or false
    compressed   config_groups    each with targets

As gptqmodel (`dynamic_get`: the first pattern that matches from the name's start), auto-round (`get_layer_config`) and
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
_LEFT_OUT: Fields = {"bits": 16}  # as AutoRound writes it


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
        found = {**dict.fromkeys(matched, own), **found}
    return found


def auto_round_by_layer(fields: Fields, names: Sequence[str], others: Sequence[str] = ()) -> dict[str, Fields | None]:
    """The fields of each layer that has its own, None for one that is left out. `others` lie outside the blocks.

    A name of `extra_config` goes first, then what leaves layers out, then the patterns of `dynamic`, in gptqmodel's
    form, then those of `extra_config`: each is found anywhere in a name, outside the blocks only where it is in none.
    Raises MalformedConfigError for a pattern that is none, or that is endless.
    """
    every = {*names, *others}
    extra = {key: own for key, own in (fields.get("extra_config") or {}).items() if isinstance(own, Mapping)}
    found = {name: extra[name] for name in (*names, *others) if name in extra}
    inner = [one for group in fields.get("modules_in_block_to_quantize") or () for one in group]
    inside = {name for taken in _found_in(inner, names) for name in taken}
    found |= dict.fromkeys((name for name in names if inner and name not in inside), _LEFT_OUT)
    for pattern, own in {**_of_dynamic(fields), **{key: own for key, own in extra.items() if own}}.items():
        if pattern not in every:
            taken = _found_in([pattern], names)[0] or _found_in([pattern], others)[0]
            found = dict.fromkeys(taken, own) | found
    spared = [one for one in fields.get("modules_to_not_convert") or () if isinstance(one, str)]
    found |= {name: _LEFT_OUT for taken in _found_in(spared, names) for name in taken}
    own = {name: _over(fields, said) for name, said in found.items()}
    return {name: said if int(said.get("bits") or 0) <= _MOST_BITS else None for name, said in own.items()}


def _of_dynamic(fields: Fields) -> dict[str, Fields]:
    """gptqmodel's patterns as AutoRound reads them: one without "+:" or "-:" before it says nothing."""
    dynamic = fields.get("dynamic") or {}
    more = {one[2:]: own for one, own in dynamic.items() if one.startswith("+:") and isinstance(own, Mapping) and own}
    return {one[2:]: more.get(one[2:], _LEFT_OUT) for one in dynamic if one.startswith("-:") or one[2:] in more}


def _found_in(patterns: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    """For each pattern the names in which `re.search` finds it."""
    anywhere = [Pattern(rf"(?s:.*?)(?:{one})", one) for one in patterns]
    return matching(anywhere, names, where=_WHERE, refusal=MalformedConfigError)


def mlx_by_layer(fields: Fields, names: Sequence[str]) -> dict[str, Fields | None]:
    """The fields of each layer that is named, None for one that is left out."""
    found = {name: fields[name] for name in names if name in fields}
    return {
        name: _over(fields, own) if isinstance(own, Mapping) else None for name, own in found.items() if own is not True
    }


def compressed_by_layer(fields: Fields, names: Sequence[str]) -> dict[str, Fields]:
    """What each layer's group says of weights."""
    groups = compressed_groups(fields, dict.fromkeys(names, ("Linear",)))
    return {name: group["weights"] for name, group in groups.items() if isinstance(group.get("weights"), Mapping)}


def _over(fields: Fields, own: Fields) -> Fields:
    return {**fields, **{name: value for name, value in own.items() if value is not None}}


def compressed_groups(fields: Fields, classes: Mapping[str, Sequence[str]]) -> dict[str, Fields]:
    """compressed-tensors' config group of each module that one targets.

    classes: each module's own class and those that it is derived from, by the module's name. A target that is the name
    goes before patterns, these, in alphabetical order, before classes, in that order too; of two groups with one target
    the last counts (compressed-tensors 0.20, `apply_quantization_config` and `match_targets`).
    Raises MalformedConfigError for a pattern that is none, or that is endless.
    """
    groups = [group for group in (fields.get("config_groups") or {}).values() if isinstance(group, Mapping)]
    of_target = {target: group for group in groups for target in group.get("targets") or ()}
    found: dict[str, Fields] = {}
    for cls in sorted(of_target.keys() & {cls for own in classes.values() for cls in own}, reverse=True):
        found |= dict.fromkeys((name for name, own in classes.items() if cls in own), of_target[cls])
    expressions = sorted((one for one in of_target if one.startswith("re:")), reverse=True)
    for one, matched in zip(expressions, _matches(expressions, tuple(classes)), strict=True):
        found |= dict.fromkeys(matched, of_target[one])
    return found | {name: of_target[name] for name in classes if name in of_target}


def named(targets: Sequence[str], classes: Mapping[str, Sequence[str]]) -> set[str]:
    """The names that compressed-tensors' `is_match` takes: `re:` and a pattern from the name's start, a full name, or
    all of a class. classes: as of `compressed_groups`.

    Raises MalformedConfigError for a pattern that is none, or that is endless.
    """
    expressions = [one for one in dict.fromkeys(targets) if one.startswith("re:")]
    of_class = (name for name, own in classes.items() if not set(targets).isdisjoint(own))
    return {*of_class, *(set(targets) & classes.keys())}.union(*_matches(expressions, tuple(classes)))


def _matches(expressions: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    patterns = [Pattern(one.removeprefix("re:"), one) for one in expressions]
    return matching(patterns, names, where=_WHERE, refusal=MalformedConfigError)
