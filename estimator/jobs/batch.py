"""Many requests, one a line; a base that several of them name is read once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from estimator.errors import LoraSizeError, UsageError
from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate
from estimator.report.document import to_document
from estimator.request.request import Request

MAX_LINE_BYTES = 20_000_000
_FIELDS = frozenset(field.name for field in fields(Request)) - {"token", "timeout"}


def answers(lines: Iterable[bytes], *, offline: bool = False) -> Iterator[tuple[str, bool]]:
    """For each line that is not blank: the answer as a line of JSON, and whether it is a result."""
    bases = BaseCache()
    for line in lines:
        if line.strip():
            answer = _answer(line, bases, offline)
            yield json.dumps(answer), "result" in answer


def _answer(line: bytes, bases: BaseCache, offline: bool) -> dict[str, Any]:
    ident: Any = None
    try:
        row = _parse(line)
        ident = row.pop("id", None)
        request = to_request({"offline": offline, **row})
        return {"id": ident, "result": to_document(estimate(request, bases=bases))}
    except LoraSizeError as error:
        message = f"{error.what} ({error.where}) {error.way_out}"
        return {"id": ident, "error": {"code": error.code, "message": message}}


def _parse(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line) if len(line) <= MAX_LINE_BYTES else "over the limit of a line"
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the line is not JSON: {error}.", where="a line", way_out="write one object a line") from error
    if not isinstance(row, dict):
        raise UsageError("the line is not a JSON object.", where="a line", way_out='write {"model": ..., "lora": {...}}')
    return row


def to_request(row: dict[str, Any]) -> Request:
    """Option names with underscores as a Request. Raises UsageError for a name or a value that is none."""
    if unknown := sorted(set(row) - _FIELDS):
        from difflib import get_close_matches

        close = get_close_matches(unknown[0], _FIELDS, n=1)
        way_out = f"did you mean {close[0]}?" if close else "fields of adapter_config.json belong in `lora`"
        raise UsageError(f"there is no option {unknown[0][:100]!r}.", where=unknown[0][:100], way_out=way_out)
    for name, value in row.items():
        _check_type(name, value)
    return Request(**{name: value for name, value in row.items() if value is not None})


_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("offline", "online", "dora", "lora_bias", "double_quant", "prepare_kbit"), bool),
    **dict.fromkeys(("r", "num_labels", "vocab_size"), int),
    **dict.fromkeys(("lora", "set", "rank_pattern"), dict),
    **dict.fromkeys(("modules_to_save", "target_parameters", "skip_modules"), (list, str)),
    "trainable_tokens": (list, dict, str),
}
_CHOICES = {
    "base_precision": ("stored", "fp32", "bf16", "fp16", "int8", "nf4", "fp4"),
    "save_embedding_layers": ("auto", "yes", "no"),
}


def _check_type(name: str, value: Any) -> None:
    wanted = _TYPES.get(name, str)
    right = value is None or (isinstance(value, wanted) and not (isinstance(value, bool) and wanted is not bool))
    if not right or (isinstance(value, str) and value not in _CHOICES.get(name, (value,))):
        names = " or ".join(kind.__name__ for kind in (wanted if isinstance(wanted, tuple) else (wanted,)))
        way_out = "one of " + ", ".join(_CHOICES[name]) if name in _CHOICES else f"give a {names}"
        raise UsageError(f"{name} is {str(value)[:80]!r}.", where=name, way_out=way_out)
