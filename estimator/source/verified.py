"""Headers from the metadata endpoint held against the files themselves, where a file's size does not prove them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from estimator.errors import MalformedHeaderError
from estimator.source.bounded_json import NotUsable, parse_json
from estimator.source.found import StoredFile
from estimator.source.metadata_endpoint import Described
from estimator.source.place import Place
from estimator.source.plain import plain
from estimator.source.ranges import read_headers
from estimator.source.stack import Compact
from estimator.source.transport import Line

_MOST = 4  # files that are read; a writer that pads its headers in its own way pads them all so


def verified(line: Line, place: Place, told: Described, files: Mapping[str, int], tell: Callable[[str], None]) -> None:
    """Nothing, where the files say what the endpoint says of them. Raises MalformedHeaderError where one does not."""
    unsure = [path[len(place.folder) :] for path in list(told.unsure)[:_MOST]]
    for stored in read_headers(line, place, unsure, files, tell) if unsure else ():
        if fault := _difference(told.unsure[stored.path], stored):
            what = (
                f"the metadata endpoint and the file {plain(stored.path, 100)!r} itself contradict each other: {fault}."
            )
            way_out = "name the commit with --revision, which reads the files themselves"
            raise MalformedHeaderError(what, where=place.where(), way_out=way_out)


def _difference(told: bytes | Mapping[str, Any], stored: StoredFile) -> str | None:
    try:
        header = _read(stored.header)
    except NotUsable as error:
        return f"the file's header can't be read, {error}"
    if not isinstance(header, dict):
        return "the file's header is no object"
    said = _read(told)
    for name in {**said, **header}:
        if name != "__metadata__" and said.get(name) != header.get(name):
            one, other = plain(said.get(name), 90), plain(header.get(name), 90)
            return f"of {plain(name, 100)!r} the endpoint says {one}, the file {other}"
    return None


def _read(header: bytes | Compact | Mapping[str, Any]) -> Any:
    return parse_json(header) if isinstance(header, bytes) else header
