"""The Hub's answer that holds every header of a sharded model at once.

`/api/models/{id}/safetensors-metadata/{index}` answers, of the default revision,

    {"headers": {shard: header, ...}, "index": {"metadata": {...}}}

without the index's weight_map, which repeats the names in the headers (huggingface_hub 2.4.0, hf_api.py,
`get_sharded_safetensors_metadata`). It does not say which commit it read, nor the files' sizes: both are checked
against the list of files of a known commit, where 8 + header + data must be the size of each file, to the byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from estimator.errors import MalformedHeaderError
from estimator.source.bounded_json import NotUsable, parse_json
from estimator.source.found import StoredFile
from estimator.source.framing import LENGTH_BYTES, MAX_HEADER_BYTES
from estimator.source.place import Place
from estimator.source.plain import plain
from estimator.source.shard_names import check_shard_names

MAX_BYTES = 64_000_000
_ALIGNMENT = 8  # safetensors pads the header with spaces, so that the data begins at a multiple of 8 bytes


class Described(NamedTuple):
    files: tuple[StoredFile, ...]  # paths as the repository has them
    index: Mapping[str, Any] | None
    unsure: tuple[str, ...]  # paths of files whose size does not prove their header


def described(body: bytes, place: Place, sizes: Mapping[str, int] | None) -> Described:
    """What the endpoint's answer says of the model at `place`.

    Raises NotUsable where it is not such an answer, MalformedHeaderError where it contradicts the files' `sizes`.
    """
    headers, index = _taken_apart(parse_json(body))
    _check_single(body, headers, place)
    check_shard_names(headers, place)
    lengths = _written_lengths(body, list(headers))
    files = [_stored(place, name, header, sizes, lengths.get(name)) for name, header in headers.items()]
    if sizes is not None:
        _check_complete(files, place, sizes)
    unsure = tuple(file.path for file in files if sizes is not None and file.header_length is None)
    return Described(tuple(files), index, unsure)


def _taken_apart(answer: Any) -> tuple[dict[str, dict[str, Any]], dict[str, Any] | None]:
    headers = answer.get("headers") if isinstance(answer, dict) else None
    if not isinstance(headers, dict) or not headers or not all(isinstance(header, dict) for header in headers.values()):
        raise NotUsable("it holds no headers")
    index = answer.get("index")
    return headers, index if isinstance(index, dict) else None


def _check_single(body: bytes, headers: Mapping[str, Mapping[str, Any]], place: Place) -> None:
    """Raises MalformedHeaderError where a name is given twice, which a parser does not tell."""
    tensors = sum(len(header) for header in headers.values())
    if body.count(b'"data_offsets"') > tensors:
        try:
            json.loads(body, object_pairs_hook=_no_name_twice)
        except ValueError as error:
            raise _contradiction(f"in the metadata endpoint's answer, {error}.", place) from error


def _no_name_twice(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"{plain(name, 100)!r} is given twice")
        seen.add(name)


def _written_lengths(body: bytes, names: list[str]) -> dict[str, int]:
    """Bytes of each header as safetensors writes it, from where it stands in the answer: compact, without padding."""
    marks = []
    for name in names:
        marks.append(body.find(b'"%s"' % name.encode(), marks[-1] + 1 if marks else 0))
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
    close = body.rfind(b"}", 0, index) if index > begin else body.rfind(b"}", 0, body.rstrip().__len__() - 1)
    return close if close > begin else len(body)


def _stored(
    place: Place, name: str, header: Mapping[str, Any], sizes: Mapping[str, int] | None, written: int | None
) -> StoredFile:
    path = place.folder + name
    if sizes is None:
        return StoredFile(path, header, None, None)
    if path not in sizes:
        what = f"the metadata endpoint describes {plain(name, 100)!r}; the list of files has no such file."
        raise _contradiction(what, place)
    data_bytes = _data_bytes(header)
    gap = sizes[path] - LENGTH_BYTES - data_bytes
    if not 2 <= gap <= MAX_HEADER_BYTES:
        what = (
            f"the metadata endpoint describes {data_bytes:,} bytes of tensors in {plain(name, 100)!r}; "
            f"the list of files gives it {sizes[path]:,} bytes in all."
        )
        raise _contradiction(what, place)
    proven = written is not None and gap == -(-written // _ALIGNMENT) * _ALIGNMENT
    return StoredFile(path, header, gap if proven else None, sizes[path])


def _data_bytes(header: Mapping[str, Any]) -> int:
    """Where the last tensor ends; entries that are none are left to the check of the header."""
    end = 0
    for name, entry in header.items():
        if name != "__metadata__" and isinstance(entry, dict):
            offsets = entry.get("data_offsets")
            if isinstance(offsets, list) and len(offsets) == 2 and type(offsets[1]) is int and offsets[1] > end:
                end = offsets[1]
    return end


def _check_complete(files: list[StoredFile], place: Place, sizes: Mapping[str, int]) -> None:
    """A shard that lies beside the described ones, numbered as one of them, must be described too."""
    there = {file.path for file in files}
    endings = {path.rpartition("-of-")[2] for path in there if "-of-" in path}
    stems = {path.rpartition("-of-")[0].rpartition("-")[0] for path in there}
    for path in sizes:
        head, of, ending = path.rpartition("-of-")
        if of and ending in endings and head.rpartition("-")[0] in stems and path not in there:
            what = (
                f"the list of files has the shard {plain(path, 100)!r}, which the metadata endpoint does not describe."
            )
            raise _contradiction(what, place)


def _contradiction(what: str, place: Place) -> MalformedHeaderError:
    way_out = (
        "try again, in case it was just changed; or name a commit with --revision, which reads the files themselves"
    )
    return MalformedHeaderError(what, where=place.where(), way_out=way_out)
