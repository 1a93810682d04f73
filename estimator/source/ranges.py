"""Headers of safetensors files on the Hub, by ranged reads.

The first bytes of a file hold most headers whole. `/resolve/` redirects to a signed address; the rest of a longer
header is read from that address at once.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from estimator.errors import LoraSizeError, MalformedHeaderError, NetworkError, NotFoundError
from estimator.source.bounded_json import NotUsable, check_affordable
from estimator.source.found import StoredFile
from estimator.source.framing import LENGTH_BYTES, header_length
from estimator.source.place import Place, is_commit
from estimator.source.plain import plain
from estimator.source.refusals import is_missing_entry, refusal
from estimator.source.side_by_side import each
from estimator.source.transport import Answer, Line, get, shown

FIRST_BYTES = 100_000  # as huggingface_hub: 97 % of headers are shorter
WORKERS = 8
MAX_FILES = 2_000
MAX_HEADERS_BYTES = 64_000_000  # of all files together
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.IGNORECASE)


class Together:
    """What holds for all files of a model together, read by several threads: so many bytes of headers, one commit."""

    def __init__(self, most: int, commit: str | None = None) -> None:
        self._left, self._commit = most, commit
        self._lock = threading.Lock()

    def take(self, number: int) -> bool:
        """Whether that many bytes were left; they are taken before they are read."""
        with self._lock:
            self._left -= number
            return self._left >= 0

    def check_commit(self, place: Place, commit: str | None, *, of: str) -> None:
        """Raises NetworkError where a part comes from another commit than one before it, or than the one asked for."""
        with self._lock:
            self._commit = self._commit or commit
            known = self._commit
        (place.at(known) if is_commit(known) else place).check_commit(commit, of=of)


class Part(NamedTuple):
    """A part of a file, as the Hub has sent it."""

    data: bytes
    file_bytes: int | None  # of the whole file
    url: str  # that served it, signed
    commit: str | None = None  # that the Hub named on the way to it


def read_headers(
    line: Line, place: Place, names: Sequence[str], sizes: Mapping[str, int] | None, tell: Callable[[str], None]
) -> tuple[StoredFile, ...]:
    """The headers of `names`, with paths as the repository has them; `sizes` by path, where known.

    Raises MalformedHeaderError where a file can't be what it says, NotFoundError where one is not there, NetworkError.
    """
    if len(names) > MAX_FILES:
        what = f"the model lies in {len(names):,} files; {MAX_FILES:,} are read at most."
        raise MalformedHeaderError(what, where=place.where(), way_out="check the repository")
    together = Together(MAX_HEADERS_BYTES)

    def one(name: str) -> StoredFile:
        listed_bytes = None if sizes is None else sizes.get(place.folder + name)
        return read_header(line, place, name, listed_bytes, together)

    total = len(names)
    found = each(
        one,
        names,
        workers=WORKERS,
        deadline=line.deadline,
        tell=lambda done: tell(f"reading the headers of {place.id}: {done} of {total} files"),
    )
    return tuple(found)


def read_header(
    line: Line, place: Place, name: str, listed_bytes: int | None, together: Together | None = None
) -> StoredFile:
    """The header of one file. `listed_bytes`: its size as the list of files has it."""
    together = together or Together(MAX_HEADERS_BYTES)
    where = place.where(name)
    first = _part(line, place, name, place.resolve(name), (0, FIRST_BYTES - 1))
    together.check_commit(place, first.commit, of=plain(name, 100))
    sizes = {"the list of files": listed_bytes, "the file's server": first.file_bytes}
    _check_sizes(sizes, where)
    file_bytes = first.file_bytes if first.file_bytes is not None else listed_bytes
    length = header_length(first.data, file_bytes, where=where)
    if not together.take(length):
        what = f"the header claims {length:,} bytes; {MAX_HEADERS_BYTES:,} are read at most, of all files together."
        raise _too_much(place, what)
    header = first.data[LENGTH_BYTES : LENGTH_BYTES + length]
    if len(header) < length:
        rest = _rest(line, place, name, first, LENGTH_BYTES + length - 1)
        _check_sizes({"its first bytes": first.file_bytes, "the bytes after them": rest.file_bytes}, where)
        header += rest.data
    if len(header) != length:
        what = f"the header claims {length:,} bytes, but the server sends {len(header):,} of them."
        raise MalformedHeaderError(what, where=where, way_out="fetch this file again")
    try:
        check_affordable(header)
    except NotUsable as error:
        raise _too_much(place, f"the header can't be read: {error}.") from error
    return StoredFile(place.folder + name, header, length, file_bytes)


def _rest(line: Line, place: Place, name: str, first: Part, last: int) -> Part:
    """What follows a first part, from the same address; over the Hub once more where that has lost its signature."""
    span = (len(first.data), last)
    try:
        return _part(line, place, name, first.url, span)
    except NetworkError:
        return _part(line, place, name, place.resolve(name), span)


def _too_much(place: Place, what: str) -> MalformedHeaderError:
    return MalformedHeaderError(
        what, where=place.where(), way_out="this is not what a model looks like; check the repository"
    )


def _check_sizes(sizes: Mapping[str, int | None], where: str) -> None:
    (one, a), (other, b) = sizes.items()
    if a is not None and b is not None and a != b:
        what = f"{one} says the file has {a:,} bytes, {other} says {b:,}."
        raise MalformedHeaderError(what, where=where, way_out="try again; if it happens again, the mirror is broken")


def _part(line: Line, place: Place, name: str, url: str, span: tuple[int, int]) -> Part:
    answer = get(line, url, limit=span[1] - span[0] + 1, span=span)
    if answer.status == 416:
        return Part(b"", _total(answer, place.where(name)), answer.url)
    if answer.status not in (200, 206):
        raise _refused(line, place, name, answer)
    commit = answer.said.get("x-repo-commit")
    place.check_commit(commit, of=plain(name, 100))
    total = _checked_total(answer, span)
    linked = answer.said.get("x-linked-size", "")
    linked_bytes = int(linked) if linked.isascii() and linked.isdigit() and len(linked) < 20 else None
    _check_sizes({"the Hub": linked_bytes, "the file's server": total}, place.where(name))
    return Part(answer.body, total if total is not None else linked_bytes, answer.url, commit)


def _refused(line: Line, place: Place, name: str, answer: Answer) -> LoraSizeError:
    if not answer.url.startswith(line.endpoint + "/"):
        what = f"the server that stores {plain(name, 100)!r} answered with status {answer.status}."
        return NetworkError(what, where=shown(answer.url), way_out="try again in a minute")
    if is_missing_entry(answer):
        what = f"the repository names {plain(name, 100)!r}, but does not hold it."
        return NotFoundError(what, where=place.where(), way_out="its upload is not complete; try another --revision")
    return refusal(line, answer, id_=place.id, revision=place.revision)


def _total(answer: Answer, where: str) -> int:
    """The file's size as a server says that refuses a range: it is shorter than the range's start."""
    match = re.fullmatch(r"bytes \*/(\d{1,19})", answer.headers.get("content-range", "").strip())
    if match is None:
        what = "the file's server refuses to send a part of it."
        raise NetworkError(what, where=where, way_out="try again; check the proxy between here and the Hub")
    return int(match[1])


def _checked_total(answer: Answer, span: tuple[int, int]) -> int | None:
    """The whole file's size; raises NetworkError where the answer is another part than the one asked for."""
    if answer.status == 200:
        length = answer.headers.get("content-length", "")
        return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None
    said = answer.headers.get("content-range", "").strip()
    match = _CONTENT_RANGE.fullmatch(said)
    total = None if match is None or match[3] == "*" else int(match[3])
    last = span[1] if total is None else min(span[1], total - 1)
    if match is None or int(match[1]) != span[0] or int(match[2]) != last or len(answer.body) != last - span[0] + 1:
        what = (
            f"bytes {span[0]}-{span[1]} were asked for; the answer is "
            f"{plain(said, 60) or 'a part that is not named'!r} and holds {len(answer.body):,} bytes."
        )
        raise NetworkError(what, where=shown(answer.url), way_out="try again; check the proxy between here and the Hub")
    return total
