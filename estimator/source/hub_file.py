"""A whole file of a repository on the Hub: from the Hub's cache where its commit is there, else read and kept there."""

from __future__ import annotations

from estimator.errors import MalformedConfigError
from estimator.source.cache import keep_file
from estimator.source.kept import snapshot_file
from estimator.source.online import ask_head, file_text
from estimator.source.opening import open_file
from estimator.source.place import Place, is_commit
from estimator.source.plain import plain
from estimator.source.side_by_side import Started
from estimator.source.transport import TooLong
from estimator.source.visit import Visit


def file_of(asked: Visit, name: str, limit: int) -> bytes | None:
    """The file's bytes, at most `limit`; None where the repository, or offline the cache, has no such file.

    Raises NotFoundError, GatedError, NetworkError; MalformedConfigError where it is larger.
    """
    try:
        known = asked.known()
        if known is not None and (text := _downloaded(known, asked.cache, name, limit)) is not None:
            return text
        return None if asked.offline else Started(_read, asked, name, limit).value(asked.deadline)
    except TooLong as error:
        where, way_out = asked.place.where(name), "this is not what a model's repository holds; check its id"
        raise MalformedConfigError(f"{plain(name)} is too large: {error.what}", where=where, way_out=way_out) from error


def _read(asked: Visit, name: str, limit: int) -> bytes | None:
    line = asked.line()
    head = ask_head(line, asked.place, name, limit=limit)
    held = is_commit(head.place.revision)
    if held and (text := _downloaded(head.place, asked.cache, name, limit)) is not None:
        return text
    text = file_text(line, head, limit)
    if held and text is not None:
        keep_file(snapshot_file(head.place, asked.cache, name), text)
        asked.keep(head.place.id, head.place.revision, None)
    return text


def _downloaded(place: Place, cache: str, name: str, limit: int) -> bytes | None:
    try:
        with open_file(snapshot_file(place, cache, name)) as file:
            text = file.read(limit + 1)
    except OSError:
        return None
    if len(text) > limit:
        raise TooLong(f"it has more than {limit:,} bytes.", where=place.where(name), way_out="check the repository")
    return text
