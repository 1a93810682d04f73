"""The command line's flags as fields of LoraConfig; letters of --targets wait for the model's modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from estimator.errors import UsageError
from estimator.request.request import Request

MAX_LAYER = 100_000


def lora_fields(request: Request) -> dict[str, Any]:
    """Fields of adapter_config.json that the request's flags set; only those that were given.

    `targets` is left out: it is resolved against the model. Raises UsageError for a flag that can't be read.
    """
    fields = {
        "r": request.r,
        "exclude_modules": _names_or_regex(request.exclude),
        "layers_to_transform": parse_layers(request.layers) if request.layers is not None else None,
        "rank_pattern": request.rank_pattern,
        "use_dora": request.dora,
        "bias": request.bias,
        "lora_bias": request.lora_bias,
        "modules_to_save": names_in(request.modules_to_save),
        "target_parameters": names_in(request.target_parameters),
        "trainable_token_indices": _tokens(request.trainable_tokens),
        "task_type": request.task and request.task.upper(),
    }
    return {field: value for field, value in fields.items() if value is not None}


def parse_layers(text: str) -> list[int]:
    """`0-15,31` as a list of layer numbers."""
    layers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            begin = int(first)
            end = int(last) if dash else begin
        except ValueError:
            raise _odd("--layers", text, "write numbers and ranges, such as 0-15,31") from None
        if not 0 <= begin <= end <= MAX_LAYER:
            raise _odd("--layers", text, f"layers count from 0, ranges go upwards, and end at {MAX_LAYER:,}")
        layers.extend(range(begin, end + 1))
    return list(dict.fromkeys(layers))


def parse_rank_pattern(pairs: Sequence[str]) -> dict[str, int]:
    """`K=V` pairs, K as PEFT's rank_pattern has it (a name's end, or a regular expression)."""
    ranks = {}
    for pair in pairs:
        key, equals, value = pair.rpartition("=")
        if not equals or not key or not value.strip().lstrip("-").isdigit() or len(value) > 20:
            raise _odd("--rank-pattern", pair, "write NAME=RANK, such as down_proj=16")
        if key in ranks:
            raise _odd("--rank-pattern", pair, f"{key[:80]} has a rank already: give each name once")
        ranks[key] = int(value)
    return ranks


def parse_set(pairs: Sequence[str]) -> dict[str, Any]:
    """`FIELD=VALUE` pairs; the value is JSON where it can be read as JSON, else text."""
    import json

    values: dict[str, Any] = {}
    for pair in pairs:
        field, equals, text = pair.partition("=")
        if field in values:
            raise _odd("--set", pair, f"{field[:80]} has a value already: give each field once")
        if not equals or not field or "" in field.split("."):
            raise _odd("--set", pair, "write FIELD=VALUE, such as num_hidden_layers=48")
        try:
            values[field] = json.loads(text)
        except (ValueError, RecursionError):
            values[field] = text
    return values


def _odd(option: str, value: str, way_out: str) -> UsageError:
    return UsageError(f"{value[:200]!r} can't be read.", where=option, way_out=way_out)


def names_in(value: Sequence[str] | str | None) -> list[str] | None:
    """Names between commas, or a list as it is; None where nothing is said."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return None if value is None else list(value)


def _names_or_regex(value: str | None) -> list[str] | str | None:
    if value is not None and value.startswith("re:"):
        return value[3:]
    return names_in(value)


def _tokens(value: Any) -> list[int] | Mapping[str, list[int]] | None:
    """`0,1,2`, or `embed_tokens=0,1,2` (several with a semicolon between)."""
    if not isinstance(value, str):
        return value
    if "=" in value:
        by_module: dict[str, list[int]] = {}
        for part in value.split(";"):
            name, _, numbers = part.partition("=")
            if name.strip() in by_module:
                raise _odd("--trainable-tokens", value, f"{name.strip()[:80]} has tokens already: give each name once")
            by_module[name.strip()] = _numbers(numbers, value)
        return by_module
    return _numbers(value, value)


def _numbers(text: str, whole: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",") if number.strip()]
    except ValueError:
        raise _odd("--trainable-tokens", whole, "write token ids, such as 0,1,2 or embed_tokens=0,1,2") from None
