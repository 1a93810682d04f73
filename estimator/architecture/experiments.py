"""Configs to learn from and the models they make, on the meta device. Only generators import this file."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from estimator.architecture import tiny
from estimator.architecture.conditions import Place
from estimator.architecture.discover import Setting, flatten
from estimator.architecture.fit import Observation, values_of
from estimator.architecture.observe import Seen, embeddings_of, observe, ties_of

_SECONDS = 3
_LIMIT = 1 << 40
_SIZE = re.compile(r"dim|size|rank|heads|inner|num_|window")
_NEVER = ("_token_id", "_token_index", "_ids", "_index", "num_labels", "pretraining_tp", "problem_type")


class Build(NamedTuple):
    fields: Mapping[str, Any]  # keyword arguments: what config.json would hold
    at: Observation
    seen: Seen
    ties: Mapping[str, str]
    embeddings: tuple[str | None, str | None]


def observation_of(config: Any) -> Observation:
    """The config as its class has filled it in."""
    said = config.to_dict() | {"num_labels": getattr(config, "num_labels", None)}
    return Observation(values_of(said), Setting(*flatten(said), Place()))


def build(name: str, fields: Mapping[str, Any]) -> Build | None:
    """None where the class refuses, or takes long."""
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(_SECONDS)
    try:
        config = tiny.make(name, fields)
        at = observation_of(config)
        model = tiny.build(name, config)
        return Build(fields, at, observe(model), ties_of(model), embeddings_of(model))
    except Exception:
        return None
    finally:
        signal.alarm(0)


def _too_long(*_: Any) -> None:
    raise TimeoutError


def numbers(name: str, base: Mapping[str, Any]) -> list[list[tuple[tuple[str, ...], int]]]:
    """Integer fields with their values; those of one (nested) config that are equal stand together."""
    groups: dict[Any, list[tuple[tuple[str, ...], int]]] = {}
    for path, value in _integers(tiny.make(name, base), ()):
        groups.setdefault((path[:-1], value if value > 4 else path), []).append((path, value))
    return list(groups.values())


def _integers(config: Any, prefix: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    for key, value in vars(config).items():
        if key.startswith("_") or key.endswith(_NEVER):
            continue
        if hasattr(value, "to_dict"):
            yield from _integers(value, (*prefix, key))
        elif type(value) is int and 0 < value < 1 << 20:
            yield (*prefix, key), value


def other(value: int, key: str, chance: random.Random) -> int:
    """Another value of the same size."""
    if value <= 4 or "layers" in key:
        return chance.choice([1, 2, 3, 4, 5, 6])
    if "vocab" in key or "position" in key or value % 2:
        return value + chance.randint(1, 60)
    return chance.choice([value * 2, value * 3, value * 4, value + 8, value + 16, value // 2, value + value // 2])


def changed_numbers(
    base: Mapping[str, Any], groups: list[list[tuple[tuple[str, ...], int]]], chance: random.Random
) -> dict[str, Any]:
    """Some of the numbers set anew, those that were equal mostly together."""
    fields = dict(base)
    for group in groups:
        together = chance.random() < 0.6
        value = other(group[0][1], group[0][0][-1], chance)
        for path, old in group:
            if together or chance.random() < 0.5:
                fields = tiny.changed(fields, path, value if together else other(old, path[-1], chance))
    return fields


def experiments(name: str, seconds: float, wanted: int) -> list[Build]:
    """The base, each group of numbers moved, every switch that shows, random mixes of all."""
    base = tiny.base_fields(name)
    first = build(name, base)
    if first is None:
        raise RuntimeError("the base does not build")
    start, chance = time.monotonic(), random.Random(name)
    builds, effective = [first], []
    groups = numbers(name, base)
    for path, value in [*_hidden(base_config := tiny.make(name, base)), *tiny.changes(base_config)]:
        if time.monotonic() - start > seconds / 2:
            break
        if value is True and _SIZE.search(path[-1]) or value == [1]:
            continue
        one = build(name, tiny.changed(base, path, value))
        if one is not None and (one.seen, one.ties, one.embeddings) != (first.seen, first.ties, first.embeddings):
            builds.append(one)
            effective.append((path, value))
    useful = []
    for group in groups:
        for path, value in group:
            if time.monotonic() - start > seconds * 0.7:
                break
            one = build(name, tiny.changed(base, path, value * 2 if value > 4 else value + 1))
            if one is None or one.seen != first.seen:
                useful.append(path)
            if one is not None and one.seen != first.seen:
                builds.append(one)
    groups = [kept for group in groups if (kept := [pair for pair in group if pair[0] in useful])]
    builds += mixes(name, base, groups, effective, wanted, start + seconds, chance)
    plain = next(iter(list(tiny.other_bases(name))[-1:]), None)
    if plain is not None and (one := build(name, plain)) is not None:
        builds.append(one)
    return builds


def _hidden(config: Any, prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Changes that a look at the fields does not suggest: gates, lists of layers, fields that only models read."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for key, value in vars(config).items():
        if hasattr(value, "to_dict"):
            found += _hidden(value, (*prefix, key))
        elif key == "feed_forward_proj":
            found += [((*prefix, key), f"gated-{kind}") for kind in ("gelu", "silu")]
        elif value == [] and "layers" in key:
            found += [((*prefix, key), layers) for layers in ([0], [1], [0, 2])]
    if not hasattr(config, "head_dim") and "head_dim" not in getattr(config, "attribute_map", {}):
        found.append(((*prefix, "head_dim"), 2))
    return found


def mixes(
    name: str, base: Mapping[str, Any], groups: Any, effective: Any, wanted: int, until: float, chance: random.Random
) -> list[Build]:
    """Random configs that build."""
    found: list[Build] = []
    for attempt in range(wanted * 8):
        if len(found) >= wanted or time.monotonic() > until:
            break
        some = chance.sample(groups, min(len(groups), chance.randint(1, 3) if attempt % 4 == 0 else len(groups)))
        fields = changed_numbers(base, some, chance)
        if effective and attempt % 3:
            turn = effective[attempt * 2 // 3 % len(effective)]
            for path, value in [turn, *chance.sample(effective, chance.randint(0, 1))]:
                moved = (
                    chance.choice([value, 16, 24, 40, 56])
                    if type(value) is int and value == 2 and _SIZE.search(path[-1])
                    else value
                )
                fields = tiny.changed(fields, path, moved)
        one = build(name, fields)
        if one is not None:
            one.at.mixed = True
            found.append(one)
    chance.shuffle(found)
    return found
