"""Whole files of a repository on the Hub: from its cache where their commit is there, else read and kept there."""

from __future__ import annotations

from estimator.errors import MalformedConfigError
from estimator.source.cache import keep_file
from estimator.source.kept import snapshot_file
from estimator.source.online import ask_head, file_text
from estimator.source.opening import read_at_most
from estimator.source.place import Place, is_commit
from estimator.source.plain import plain
from estimator.source.side_by_side import Started
from estimator.source.transport import TooLong
from estimator.source.visit import Visit


class Files:
    """Files of one revision, all at the commit that the first of them names."""

    def __init__(self, asked: Visit, limit: int) -> None:
        self._asked, self._limit = asked, limit
        self._place = asked.known() or asked.place
        self._read: dict[str, bytes] = {}  # from the Hub

    def read(self, name: str) -> bytes | None:
        """The file's bytes, at most `limit`; None where the repository, or offline the cache, has no such file.

        Raises NotFoundError, GatedError, NetworkError; MalformedConfigError where it is larger.
        """
        try:
            if (text := self._downloaded(name)) is not None or self._asked.offline:
                return text
            return Started(self._ask, name).value(self._asked.deadline)
        except TooLong as error:
            where, way_out = self._place.where(name), "this is not what a model's repository holds; check its id"
            what = f"{plain(name)} is too large: {error.what}"
            raise MalformedConfigError(what, where=where, way_out=way_out) from error

    def keep(self) -> None:
        """Keep what was read, once it has proved to be what it should be: others read it there too."""
        if not self._read or not is_commit(self._place.revision):
            return
        for name, text in self._read.items():
            keep_file(snapshot_file(self._place, self._asked.cache, name), text)
        self._asked.keep(self._place.id, self._place.revision, None)

    def _ask(self, name: str) -> bytes | None:
        line = self._asked.line()
        head = ask_head(line, self._place, name, limit=self._limit)
        self._place = head.place
        if (text := self._downloaded(name)) is not None:
            return text
        text = file_text(line, head, self._limit)
        if text is not None:
            self._read[name] = text
        return text

    def _downloaded(self, name: str) -> bytes | None:
        held = is_commit(self._place.revision)
        return _downloaded(self._place, self._asked.cache, name, self._limit) if held else None


def _downloaded(place: Place, cache: str, name: str, limit: int) -> bytes | None:
    try:
        text = read_at_most(snapshot_file(place, cache, name), limit)
    except OSError:
        return None
    if len(text) > limit:
        raise TooLong(f"it has more than {limit:,} bytes.", where=place.where(name), way_out="check the repository")
    return text
