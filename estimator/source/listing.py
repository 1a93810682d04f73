"""The files of a repository with their sizes, and which of them a model is read from.

`/api/models/{id}/tree/{revision}?recursive=true` answers a JSON list of {"type": "file", "path", "size", "lfs":
{"size"}}, by the thousand; `Link: <address>; rel="next"` leads to the next page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from estimator.errors import MalformedHeaderError, NetworkError
from estimator.source.bounded_json import NotUsable, parse_json
from estimator.source.folder import OTHER_WEIGHTS, weights_among
from estimator.source.place import Place
from estimator.source.plain import plain
from estimator.source.redirects import origin
from estimator.source.refusals import refusal
from estimator.source.transport import Answer, Line, get, shown

MAX_PAGES = 50
MAX_PAGE_BYTES = 8_000_000
MAX_LIST_BYTES = 32_000_000
_NEXT = re.compile(r'<([^<>]*)>\s*;[^<,]*\brel\s*=\s*"?next\b')


def list_files(line: Line, place: Place) -> dict[str, int]:
    """Path -> size in bytes of every file at `place`.

    Raises NotFoundError, GatedError or NetworkError where the Hub refuses, or lists what can't be, MalformedHeaderError
    where the list contradicts itself.
    """
    files: dict[str, int] = {}
    url: str | None = place.tree()
    seen: set[str] = set()
    left = MAX_LIST_BYTES
    while url is not None:
        if url in seen or len(seen) >= MAX_PAGES:
            what = f"the list of files goes on for more than {len(seen)} pages" + (
                ", in a circle." if url in seen else "."
            )
            raise NetworkError(what, where=place.id, way_out="this is not how a model's repository looks; check its id")
        seen.add(url)
        answer = get(line, url, limit=min(left, MAX_PAGE_BYTES))
        left -= len(answer.body)
        if answer.status != 200:
            raise refusal(line, answer, id_=place.id, revision=place.revision)
        place.check_commit(answer.said.get("x-repo-commit"), of="the list of files")
        _add(files, _page(answer), place)
        url = _next_page(line, answer)
    return files


def _add(files: dict[str, int], page: Iterable[tuple[str, int]], place: Place) -> None:
    """Raises MalformedHeaderError where a file is listed twice, of two sizes."""
    for path, size in page:
        if files.setdefault(path, size) != size:
            what = f"the list of files has {plain(path, 100)!r} twice, of {files[path]:,} and of {size:,} bytes."
            way_out = "try again, in case it was just changed; if it happens again, check HF_ENDPOINT"
            raise MalformedHeaderError(what, where=place.where(), way_out=way_out)


def _page(answer: Answer) -> list[tuple[str, int]]:
    try:
        entries = parse_json(answer.body)
        if not isinstance(entries, list):
            raise TypeError
        return [(entry["path"], _size(entry)) for entry in entries if _is_file(entry)]
    except (NotUsable, KeyError, TypeError, AttributeError) as error:
        reason = str(error) if isinstance(error, NotUsable) else "it is no list of paths and sizes"
        way_out = "try again; if it happens again, check HF_ENDPOINT"
        raise NetworkError(
            f"the list of files can't be used: {reason}.", where=shown(answer.url), way_out=way_out
        ) from error


def _is_file(entry: Any) -> bool:
    if not isinstance(entry["path"], str):
        raise TypeError
    return entry.get("type", "file") == "file"


def _size(entry: Mapping[str, Any]) -> int:
    """A file's own size; for what lies in large file storage that of the file, not of its pointer."""
    lfs = entry.get("lfs")
    size = lfs["size"] if isinstance(lfs, Mapping) and "size" in lfs else entry["size"]
    if type(size) is not int or not 0 <= size < 2**63:
        raise TypeError
    return size


def _next_page(line: Line, answer: Answer) -> str | None:
    match = _NEXT.search(answer.headers.get("link", ""))
    if match is None:
        return None
    # a mirror may pass the Hub's own words on
    url = match[1].replace("https://huggingface.co/", line.endpoint + "/", 1)
    try:
        if origin(url) == origin(line.endpoint):
            return url
    except ValueError:
        pass
    what = f"the list of files goes on at another host: {plain(url, 120)!r}."
    raise NetworkError(what, where=shown(answer.url), way_out="check HF_ENDPOINT; the Hub's own lists stay on it")


def weight_files(files: Mapping[str, int], folder: str) -> list[str]:
    """Names in `folder` that hold a model's weights, where neither the single file nor an index is there."""
    return weights_among(_directly_in(files, folder), ".safetensors")


def other_weights(files: Mapping[str, int], folder: str) -> dict[str, int]:
    """Weights in `folder` in formats that are not read: name -> bytes."""
    return {name: files[folder + name] for name in weights_among(_directly_in(files, folder), OTHER_WEIGHTS)}


def model_folders(files: Mapping[str, int]) -> list[str]:
    """Folders below the root that look like models of their own: with a config.json or safetensors files."""
    return sorted(
        {
            folder
            for path in files
            if (folder := path.rpartition("/")[0]) and (path.endswith(("/config.json", ".safetensors")))
        }
    )


def _directly_in(files: Mapping[str, int], folder: str) -> list[str]:
    inside = (path[len(folder) :] for path in files if path.startswith(folder))
    return sorted(name for name in inside if "/" not in name)
