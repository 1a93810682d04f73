"""The metadata endpoint's answer, taken apart by shards: with a few searches where it is written as the Hub writes it.

    {"headers":{"model-00001-of-00002.safetensors":{...},...},"index":{"metadata":{...}}}

Nothing is held against the model here; that is metadata_endpoint.py's.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from estimator.source.bounded_json import NotUsable, parse_json
from estimator.source.compact import compact
from estimator.source.plain import plain
from estimator.source.stack import Compact

_BEGIN = b'{"headers":{'
_SHARD = b'.safetensors":{'
_NAME = re.compile(rb'"([^"\\\x00-\x1f]{1,512})":')
_INDEX = b',"index":'
_MAX_CUT_BYTES = 14_000_000  # of a tensor's 52 bytes or more: at 730 bytes for each, below bounded_json's limit


class Shard(NamedTuple):
    """A file as the metadata endpoint describes it."""

    name: str
    header: bytes | Mapping[str, Any]  # as sent, or parsed
    compact: Compact | None  # the same, where it is written as safetensors writes it
    data_bytes: int  # where the last tensor ends
    written_bytes: int | None  # of the header as safetensors writes it, without padding; None where it can't be told


class Answered(NamedTuple):
    """The metadata endpoint's answer, taken apart."""

    shards: tuple[Shard, ...]
    index: Mapping[str, Any] | None  # type: ignore[assignment]  # nobody asks a tuple's own index() of it
    twice: str | None = None  # a name that is given twice, where there is one


def taken_apart(body: bytes) -> Answered:
    """The answer by shards. Raises NotUsable where it is no such answer."""
    return _cut(body) or _parsed(body)


def _cut(body: bytes) -> Answered | None:
    """An answer written without a space, headers first; None for any other."""
    if not body.startswith(_BEGIN) or not body.endswith(b"}}") or len(body) > _MAX_CUT_BYTES:
        return None
    tail = body.rfind(_INDEX)
    end = tail if tail > 0 else len(body) - 1  # behind the brace that closes "headers"
    index = _index(body[tail + 1 :]) if tail > 0 else None
    at, shards = len(_BEGIN), []
    begins = [body.rfind(b'"', 0, at) for at in _places(body, _SHARD)]
    if not begins or body[end - 1 : end] != b"}" or (tail > 0 and index is None):
        return None
    for begin, stop in zip(begins, [*(begin - 1 for begin in begins[1:]), end - 1], strict=True):
        named = _NAME.match(body, begin)
        if named is None or begin != at or (stop != end - 1 and body[stop] != ord(",")):
            return None
        header = body[named.end() : stop]
        read = compact(header)
        if read is None:
            return None
        shards.append(Shard(named[1].decode(), header, read, read.data_bytes, len(header)))
        at = stop + 1
    names = {shard.name for shard in shards}
    return Answered(tuple(shards), index) if len(names) == len(shards) else None


def _places(body: bytes, mark: bytes) -> Iterator[int]:
    at = body.find(mark)
    while at >= 0:
        yield at
        at = body.find(mark, at + len(mark))


def _index(text: bytes) -> Mapping[str, Any] | None:
    try:
        index = parse_json(b"{" + text)
    except NotUsable:
        return None
    return index["index"] if list(index) == ["index"] and isinstance(index["index"], dict) else None


def _parsed(body: bytes) -> Answered:
    """Any other answer, by the JSON parser."""
    answer = parse_json(body)
    headers = answer.get("headers") if isinstance(answer, dict) else None
    if not isinstance(headers, dict) or not headers or not all(isinstance(header, dict) for header in headers.values()):
        raise NotUsable("it holds no headers")
    index = answer.get("index")
    lengths = _written_lengths(body, list(headers))
    shards = [Shard(name, header, None, _data_bytes(header), lengths.get(name)) for name, header in headers.items()]
    return Answered(tuple(shards), index if isinstance(index, dict) else None, _given_twice(body, headers))


def _given_twice(body: bytes, headers: Mapping[str, Mapping[str, Any]]) -> str | None:
    """A name that an object of the answer has twice, which a parser does not tell."""
    if body.count(b'"data_offsets"') <= sum(len(header) for header in headers.values()):
        return None
    try:
        json.loads(body, object_pairs_hook=_no_name_twice)
    except ValueError as error:
        return str(error)
    return None


def _no_name_twice(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"{plain(name, 100)!r} is given twice")
        seen.add(name)


def _data_bytes(header: Mapping[str, Any]) -> int:
    """Where the last tensor ends; entries that are none are left to the check of the header."""
    end = 0
    for name, entry in header.items():
        if name != "__metadata__" and isinstance(entry, dict):
            offsets = entry.get("data_offsets")
            if isinstance(offsets, list) and len(offsets) == 2 and type(offsets[1]) is int and offsets[1] > end:
                end = offsets[1]
    return end


def _written_lengths(body: bytes, names: list[str]) -> dict[str, int]:
    """Bytes of each header as safetensors writes it, from where it stands in the answer: compact, without padding."""
    marks: list[int] = []
    for name in names:
        marks.append(body.find(b'"%s"' % name.encode(errors="replace"), marks[-1] + 1 if marks else 0))
    if -1 in marks:
        return {}
    ends = [*marks[1:], _end_of_last(body, marks[-1])]
    return {name: _compact(body[at:end]) for name, at, end in zip(names, marks, ends, strict=True)}


def _compact(text: bytes) -> int:
    """Bytes of the object in `"name":{...},` without the spaces that some writers put behind commas and colons."""
    spaces = text.count(b", ") + text.count(b": ") if b'": ' in text[:1_000] else 0
    return text.rfind(b"}") + 1 - text.find(b"{") - spaces


def _end_of_last(body: bytes, begin: int) -> int:
    """Where the last header ends: before the brace that closes "headers", followed by "index" or by nothing."""
    index = body.rfind(b'"index"')
    close = body.rfind(b"}", 0, index) if index > begin else body.rfind(b"}", 0, len(body.rstrip()) - 1)
    return close if close > begin else len(body)
