"""Other values for the fields of a config: what a class might build differently for."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from estimator.architecture.learning.remembering import How
from estimator.architecture.surveying import tiny

NEVER = ("_token_id", "_token_index", "_ids", "_index", "num_labels", "pretraining_tp", "problem_type")  # size nothing
_STAGES, _SHORTER, _LARGE = 16, 0.2, 100
SIZE = re.compile(r"dim|size|rank|heads|inner|num_|window")
_WIDTH = re.compile(r"(dim|size|rank)$")


def numbers(name: str, base: Mapping[str, Any]) -> list[list[tuple[tuple[str, ...], int]]]:
    """Integer fields with their values; those of one (nested) config that are equal stand together."""
    groups: dict[Any, list[tuple[tuple[str, ...], int]]] = {}
    for path, value in _integers(tiny.make(name, base), ()):
        groups.setdefault((path[:-1], value if value > 4 else path), []).append((path, value))
    return list(groups.values())


def _integers(config: Any, prefix: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    for key, value in vars(config).items():
        if key.startswith("_") or key.endswith(NEVER):
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


def lists(config: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[int]]]:
    """Short lists of whole numbers: one for each stage of a model."""
    for key, value in vars(config).items():
        if hasattr(value, "to_dict"):
            yield from lists(value, (*prefix, key))
        elif isinstance(value, (list, tuple)) and 1 < len(value) <= _STAGES and not key.startswith(("_", "out_")):
            whole = all(type(one) is int and one >= 0 for one in value)
            yield from [((*prefix, key), list(value))] if whole else []


def changed_lists(
    fields: dict[str, Any], found: Sequence[tuple[tuple[str, ...], list[int]]], chance: random.Random
) -> dict[str, Any]:
    """Other numbers for each stage; sometimes all lists that are as long are a stage shorter."""
    shorter = chance.random() < _SHORTER
    for path, values in found:
        if chance.random() < 0.7:
            small = max(values) <= 16
            values = [max(1, chance.choice([one, one + 1, one + 2]) if small else one + 8 * chance.randint(0, 4))
                      for one in values]  # fmt: skip
        fields = tiny.changed(fields, path, values[:-1] if shorter and len(values) > 2 else values)
    return fields


def changed_numbers(
    base: Mapping[str, Any], groups: Iterable[list[tuple[tuple[str, ...], int]]], chance: random.Random
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


def missing(reads: Collection[str], before: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Fields that the model asks for and the config class does not have."""
    for path in list(reads):
        leaf = path.rpartition(".")[2]
        asked = path not in before and not any(known.startswith(f"{path}.") for known in before)
        if asked and not leaf.endswith(NEVER):
            yield from ((tuple(path.split(".")), value) for value in (2, True, False))


def shortened(name: str, base: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A stage less: all lists of one length, cut."""
    stages = [pair for pair in lists(tiny.make(name, base)) if len(pair[1]) > 2]
    for length in sorted({len(values) for _, values in stages}):
        fields = dict(base)
        for path, values in stages:
            fields = tiny.changed(fields, path, values[:-1] if len(values) == length else values)
        yield fields


def compared(comparisons: Collection[How], before: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Values on either side of what the class compares a field, or an element of a list, with."""
    for _, one, other in list(comparisons):
        value = _value(one, before)
        if value is None or _path(one).endswith(NEVER):
            continue
        if type(other) is int and 0 <= other < _LARGE and isinstance(one, str):
            beside = sorted({other, other + 1, max(other - 1, 0)} - {value})
            yield from ((tuple(one.split(".")), number) for number in beside)
        elif one != other and (with_which := _value(other, before)) is not None:
            number = with_which if with_which != value else 2 * value
            path = _path(one)
            if isinstance(one, str):
                yield tuple(path.split(".")), number
            else:
                held = list(before[path])
                yield tuple(path.split(".")), [*held[: one[2]], number, *held[one[2] + 1 :]]


def brought_in(reads: Iterable[str], before: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Numbers for what is 0 and the class reads: layers, and widths that may be any."""
    for path in [path for path in reads if before.get(path) == 0]:
        numbers = (2, 4) if "layers" in path else (16, 24) if _WIDTH.search(path) else ()
        yield from ((tuple(path.split(".")), number) for number in numbers)


def _path(how: How) -> str:
    """The field that is compared, or of which an element is."""
    return how if isinstance(how, str) else how[1] if how[0] == "item" else ""


def _value(how: How, before: Mapping[str, Any]) -> int | None:
    """The whole number that a field, or an element of a list field, has; None for all else."""
    if isinstance(how, str):
        value = before.get(how)
    elif isinstance(how, tuple) and how[0] == "item" and isinstance(how[1], str) and isinstance(how[2], int):
        held = before.get(how[1])
        value = held[how[2]] if isinstance(held, (list, tuple)) and how[2] < len(held) else None
    else:
        value = None
    return value if type(value) is int else None


def literals(config: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The texts that a config class's types allow, or a list of it that is called as the field (`layer_types`)."""
    for key, value in vars(config).items():
        if hasattr(value, "to_dict"):
            yield from literals(value, (*prefix, key))
            continue
        kind = next(
            (c.__annotations__[key] for c in type(config).__mro__ if key in vars(c).get("__annotations__", {})), ""
        )
        allowed = re.findall(r"['\"]([^'\"]+)['\"]", str(kind)) if "Literal" in str(kind) else ()
        listed = getattr(type(config), f"{key}s", None)
        if isinstance(value, str) and isinstance(listed, (list, tuple)) and value in listed:
            allowed = listed
        yield from (((*prefix, key), text) for text in allowed)


def hidden(config: Any, prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Changes that a look at the fields does not suggest: gates, lists of layers, fields that only models read."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for key, value in vars(config).items():
        if hasattr(value, "to_dict"):
            found += hidden(value, (*prefix, key))
        elif key == "feed_forward_proj":
            found += [((*prefix, key), f"gated-{kind}") for kind in ("gelu", "silu")]
        elif value == [] and "layers" in key:
            found += [((*prefix, key), layers) for layers in ([0], [1], [0, 2])]
    if "head_dim" not in vars(config) and "head_dim" not in getattr(config, "attribute_map", {}):
        found.append(((*prefix, "head_dim"), 2))
    return found


def with_new(fields: dict[str, Any], whole: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, and what another config has beside the base."""
    for key, value in whole.items():
        if isinstance(value, dict):
            fields = {**fields, key: with_new(dict(fields.get(key) or {}), value, base.get(key) or {})}
        elif key not in base and key not in fields:
            fields = {**fields, key: value}
    return fields


def moved(path: tuple[str, ...], value: Any, chance: random.Random) -> Any:
    is_size = type(value) is int and value == 2 and SIZE.search(path[-1])
    return chance.choice([value, 16, 24, 40, 56]) if is_size else value


def turned(name: str, base: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """The base with a list in turned order."""
    config = tiny.make(name, base)
    for key in path:
        config = getattr(config, key, None)
    return tiny.changed(base, path, list(config or ())[::-1])


def is_word(value: Any) -> bool:
    return value is None or isinstance(value, (bool, str))


def are_words(value: Any) -> bool:
    """Whether it is a word, or a list of words: a kind for each layer."""
    return is_word(value) or (isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value))
