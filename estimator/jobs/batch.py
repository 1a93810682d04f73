"""Many requests, one a line; a base that several of them name is read once."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from estimator.errors import LoraSizeError, UsageError, unforeseen
from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate
from estimator.report.document import to_document
from estimator.request.options import to_request
from estimator.source.bounded_json import NotUsable, parse_json
from estimator.source.plain import plain
from estimator.source.progress import patiently

MAX_LINE_BYTES = 20_000_000
MAX_MESSAGE = 1_200  # characters


def answers(lines: Iterable[bytes], *, offline: bool = False) -> Iterator[tuple[str, bool]]:
    """For each line that is not blank: the answer as a line of JSON, and whether it is a result.

    `offline` holds whatever a line says.
    """
    bases = BaseCache()
    with patiently() as tell:
        for number, line in enumerate(lines, 1):
            line = line.removeprefix(BOM_UTF8) if number == 1 else line
            if line.strip():
                tell(where := f"line {number:,}")
                answer = _answer(line, where, bases, offline)
                tell("")
                yield json.dumps(answer), "result" in answer


def lines_of(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a stream; of one that is too long, only as much as shows that it is."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES + 1)
        yield line


def _answer(line: bytes, where: str, bases: BaseCache, offline: bool) -> dict[str, Any]:
    ident: Any = None
    try:
        row = _parse(line, where)
        ident = _identity(row.pop("id", None))
        request = to_request({**row, "offline": True} if offline else row)
        return {"id": ident, "result": to_document(estimate(request, bases=bases))}
    except Exception as fault:  # one bad line never stops the rest
        error = fault if isinstance(fault, LoraSizeError) else unforeseen(fault)
        return {"id": ident, "error": {"code": error.code, "message": plain(error, MAX_MESSAGE)}}


def _identity(value: Any) -> Any:
    """An id, which comes back as it is. Raises UsageError for what JSON can't say, such as 1e400."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise UsageError("the id holds a number that is out of range.", where="id", way_out="give another") from error
    return value


def _parse(line: bytes, where: str) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise UsageError(f"the line has over {MAX_LINE_BYTES:,} bytes.", where=where, way_out="write one object a line")
    try:
        row = parse_json(line.rstrip(b"\r\n"))
    except NotUsable as error:
        what = f"the line can't be used: {error}."
        raise UsageError(what, where=where, way_out="write one object a line") from error
    if not isinstance(row, dict):
        raise UsageError("the line is not a JSON object.", where=where, way_out='write {"model": ..., "lora": {...}}')
    return row
