"""Names of shards, as an index or the Hub gives them: nothing that leads out of the folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from estimator.errors import MalformedHeaderError
from estimator.source.bounded_json import NotUsable, parse_json
from estimator.source.place import Place
from estimator.source.plain import plain
from estimator.source.siblings import unnamed_shard

_ENDING = ".safetensors"
_ENCODED = re.compile("%(2e|2f|5c|00)", re.IGNORECASE)


def shards_of(text: bytes, place: Place, *, name: str) -> tuple[list[str], Mapping[str, Any]]:
    """The shards that an index names, in its order, and the index. Raises MalformedHeaderError where it is none."""
    try:
        index = parse_json(text)
    except NotUsable as error:
        raise _malformed(f"the index can't be read: {plain(error)}.", place, name) from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise _malformed("the index has no weight_map.", place, name)
    if not isinstance(index.get("metadata", {}), dict | None):
        raise _malformed(f"the index's metadata is {plain(index['metadata'], 40)!r}, not an object.", place, name)
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str):
            what = f"the index puts tensor {plain(tensor, 100)!r} into {plain(shard, 40)!r}, which is no file name."
            raise _malformed(what, place, name)
    shards = list(dict.fromkeys(weight_map.values()))
    check_shard_names(shards, place)
    return shards, index


def check_shard_names(names: Iterable[str], place: Place) -> None:
    """Raises MalformedHeaderError where a name is no path of a safetensors file below the folder."""
    for name in names:
        if fault := _fault(name):
            raise _malformed(f"the index names the shard {plain(name, 100)!r}, {fault}.", place, "")


def _fault(name: str) -> str | None:
    parts = name.split("/")
    if not name.isprintable() or not name.isascii() and name.encode(errors="replace").decode() != name:
        return "which holds characters that no file name has"
    if "\\" in name or ":" in name or _ENCODED.search(name) or any(part in ("", ".", "..") for part in parts):
        return "which is no path inside the repository"
    if not name.endswith(_ENDING):
        return "which is no safetensors file"
    return "whose name is too long" if len(name) > 512 else None


def _malformed(what: str, place: Place, name: str) -> MalformedHeaderError:
    return MalformedHeaderError(what, where=place.where(name), way_out="fetch or write the index again")


def check_against_list(named: list[str], files: Mapping[str, int], place: Place) -> None:
    """Raises MalformedHeaderError where an index names shards that the list of files lacks, or leaves out one of it."""
    if missing := [name for name in named if place.folder + name not in files]:
        what = (
            f"the index names the shard {plain(missing[0], 100)!r}; the list of files has no such file "
            f"({len(named) - len(missing)} of {len(named)} shards are there)."
        )
        way_out = "its upload is not complete; try another --revision"
        raise MalformedHeaderError(what, where=place.where(), way_out=way_out)
    if (extra := unnamed_shard({place.folder + name for name in named}, files)) is not None:
        what = f"the list of files has the shard {plain(extra, 100)!r}, which the index does not name."
        raise MalformedHeaderError(what, where=place.where(), way_out="write the index again; it is not of these files")
