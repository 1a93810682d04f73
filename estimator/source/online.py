"""A model read from the Hub itself.

1   config.json's address and, of the default branch, the metadata endpoint, side by side; the first names the commit
2   config.json itself and the list of files, held at that commit
3   only where the endpoint does not serve: the index, then the first bytes of every file
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from estimator.errors import (
    LoraSizeError,
    MalformedConfigError,
    MalformedHeaderError,
    NetworkError,
    NotFoundError,
)
from estimator.source.bounded_json import NotUsable, check_affordable
from estimator.source.cache import Entry, Part, header_part
from estimator.source.compact import compact
from estimator.source.config import MAX_CONFIG_BYTES, parse_config
from estimator.source.endpoint_answer import Answered, taken_apart
from estimator.source.folder import INDEX, SINGLE
from estimator.source.found import Found, StoredFile
from estimator.source.hub_notes import notes_about, nothing_here
from estimator.source.listing import list_files, other_weights, weight_files
from estimator.source.metadata_endpoint import MAX_BYTES, described
from estimator.source.place import DEFAULT_REVISION, Place, is_commit, is_id
from estimator.source.ranges import MAX_HEADERS_BYTES, read_headers
from estimator.source.refusals import is_missing_entry, refusal
from estimator.source.shard_names import check_against_list, shards_of
from estimator.source.siblings import check_whole
from estimator.source.side_by_side import Started
from estimator.source.transport import Answer, Line, TooLong, get, shown
from estimator.source.verified import verified

_GRACE_SECONDS = 2.0  # for the list of files, where the headers are already there
_RENAMES = 2


class Head(NamedTuple):
    """What the address of a file says before the file is fetched."""

    place: Place  # under the id that the Hub uses, held at its commit where it names one
    answer: Answer


class Told(NamedTuple):
    """What the metadata endpoint answered."""

    commit: str | None
    answered: Answered


class Weights(NamedTuple):
    """The headers of a model's weights, and the index that names their files."""

    files: tuple[StoredFile, ...] = ()
    index: Mapping[str, Any] | None = None  # type: ignore[assignment]  # nobody asks a tuple's own index() of it
    index_text: bytes | None = None  # the index as the cache keeps it


def read_online(
    line: Line,
    place: Place,
    *,
    kept: Callable[[Place], Found | None],
    likely_kept: bool,
    tell: Callable[[str], None],
) -> tuple[Found, Entry | None]:
    """The model, and what to keep of it: nothing where `kept` holds it already at the commit that the Hub names."""
    tell(f"asking {shown(line.endpoint)} for {place.id}")
    asked = None if likely_kept else _ask_endpoint(line, place)
    head = _head(line, place)
    if is_commit(head.place.revision) and (found := kept(head.place)):
        return found, None
    asked = asked or _ask_endpoint(line, place)
    listing = Started(list_files, line, head.place)
    text = Started(file_text, line, head, MAX_CONFIG_BYTES)
    config_text = _config_text(text, line, head)
    config = None if config_text is None else parse_config(config_text, where=head.place.where("config.json"))
    told = _endpoint_told(asked, line, head.place)
    files = _listed(listing, line, hurry=told is not None, needed=head.answer.status == 404)
    _check_listed(config_text, files, head.place)
    weights = _weights(line, head.place, told, files, tell)
    if config is None and not weights.files:
        raise nothing_here(head.place, files)
    found = _found(head.place, config, weights, files)
    return found, _entry(found, head.place, config_text, weights)


def _head(line: Line, place: Place) -> Head:
    try:
        return Started(ask_head, line, place, "config.json").value(line.deadline)
    except TooLong as error:
        raise too_large(place, error) from error


def ask_head(line: Line, place: Place, name: str, *, limit: int = MAX_CONFIG_BYTES) -> Head:
    """Where a file lies and at which commit; a missing file is no error. Raises what refusal() says.

    A Hub that sends the file at once sends at most `limit` bytes.
    """
    answer = get(line, place.resolve(name), limit=limit, follow=False)
    for _ in range(_RENAMES):
        id_ = _renamed(place, answer.location)
        if id_ is None:
            break
        place = place._replace(id=id_)
        answer = get(line, place.resolve(name), limit=limit, follow=False)
    if answer.status != 200 and answer.location is None and not is_missing_entry(answer):
        raise refusal(line, answer, id_=place.id, revision=place.revision)
    commit = answer.said.get("x-repo-commit")
    place.check_commit(commit, of=name)
    return Head(place.at(commit) if is_commit(commit) else place, answer)


def _renamed(place: Place, location: str | None) -> str | None:
    """The id that a redirect from one repository to another leads to."""
    match = re.match(re.escape(place.endpoint) + r"/([\w.-]+(?:/[\w.-]+)?)/resolve/", location or "")
    return match[1] if match and match[1] != place.id and not match[1].startswith("api/") and is_id(match[1]) else None


def file_text(line: Line, head: Head, limit: int) -> bytes | None:
    """The file that a head leads to; None where it is missing."""
    if head.answer.status == 404:
        return None
    if head.answer.location is None:
        return head.answer.body
    answer = get(line, head.answer.location, limit=limit)
    if answer.status != 200:
        raise refusal(line, answer, id_=head.place.id, revision=head.place.revision)
    head.place.check_commit(answer.said.get("x-repo-commit"), of="a file")
    return answer.body


def _config_text(text: Started[bytes | None], line: Line, head: Head) -> bytes | None:
    try:
        config = text.value(line.deadline)
        if config is not None:
            check_affordable(config)
    except (TooLong, NotUsable) as error:
        raise too_large(head.place, error) from error
    return config


def too_large(place: Place, error: Exception, name: str = "config.json") -> MalformedConfigError:
    """The error of a config that is over its limit, or that would take too much memory."""
    where, way_out = place.where(name), f"this is no {name} as it is saved; check the repository"
    fault = error.what if isinstance(error, TooLong) else error
    return MalformedConfigError(f"{name} is too large: {fault}", where=where, way_out=way_out)


def _ask_endpoint(line: Line, place: Place) -> Started[Told | None] | None:
    return Started(_told, line, place) if place.revision == DEFAULT_REVISION else None


def _told(line: Line, place: Place) -> Told | None:
    """The endpoint's answer, taken apart while the others are on their way; None where it is no such answer."""
    answer = get(line, place.safetensors_metadata(INDEX), limit=MAX_BYTES, attempts=1)
    if answer.status != 200:
        return None
    try:
        return Told(answer.said.get("x-repo-commit"), taken_apart(answer.body))
    except NotUsable:
        return None


def _endpoint_told(asked: Started[Told | None] | None, line: Line, place: Place) -> Told | None:
    """The endpoint's answer; None where it does not serve this model, for whatever reason."""
    if asked is None or not asked.done_by(_half_way(line)):
        return None
    try:
        told = asked.value(line.deadline)
        if told is not None:
            place.check_commit(told.commit, of="the metadata endpoint's answer")
        return told
    except NetworkError:
        return None


def _half_way(line: Line) -> float:
    """The moment at which half of the time that is left now will be left."""
    return (time.monotonic() + line.deadline) / 2


def _listed(listing: Started[dict[str, int]], line: Line, *, hurry: bool, needed: bool) -> dict[str, int] | None:
    """The list of files; None where the Hub has none and config.json is proof enough that the repository is there."""
    if hurry and not listing.done_by(min(line.deadline, time.monotonic() + _GRACE_SECONDS)):
        return None
    try:
        return listing.value(line.deadline)
    except MalformedHeaderError:  # it contradicts itself
        raise
    except LoraSizeError:
        if needed or time.monotonic() >= line.deadline:
            raise
        return None


def _check_listed(config_text: bytes | None, files: Mapping[str, int] | None, place: Place) -> None:
    """Raises NetworkError where config.json is another than the one that the list of files has."""
    listed = None if files is None else files.get(place.folder + "config.json")
    if config_text is None or files is None or listed == len(config_text):
        return
    other = "does not name it" if listed is None else f"gives it {listed:,}"
    what = f"the Hub serves config.json of {len(config_text):,} bytes, but its list of files {other}."
    raise NetworkError(what, where=place.where(), way_out="try again; if it happens again, check HF_ENDPOINT")


def _weights(
    line: Line, place: Place, told: Told | None, files: Mapping[str, int] | None, tell: Callable[[str], None]
) -> Weights:
    """The headers of what from_pretrained would load: the single file before the shards of an index.

    Without a list of files nothing proves which commit the endpoint has read, so that the files themselves are.
    """
    if files is not None and place.folder + SINGLE in files:
        return _by_ranges(line, place, [SINGLE], files, tell)
    if told is not None and files is not None:
        return _by_endpoint(line, place, told, files, tell)
    if files is None or place.folder + INDEX in files:
        if weights := _by_index(line, place, files, tell):
            return weights
        return _guessed(line, place, tell)
    names = weight_files(files, place.folder)
    check_whole(names, where=place.where())
    return _by_ranges(line, place, names, files, tell)


def _by_endpoint(
    line: Line, place: Place, told: Told, files: Mapping[str, int], tell: Callable[[str], None]
) -> Weights:
    said = described(told.answered, place, files)
    verified(line, place, said, files, tell)
    text = None if said.index is None else json.dumps(said.index).encode()
    return Weights(files=said.files, index=said.index, index_text=text)


def _by_index(line: Line, place: Place, files: Mapping[str, int] | None, tell: Callable[[str], None]) -> Weights | None:
    head = ask_head(line, place, INDEX)
    place = head.place  # at the index' commit, should config.json's address have named none
    text = file_text(line, head, MAX_HEADERS_BYTES)
    if text is None:
        return None
    names, index = shards_of(text, place, name=INDEX)
    if files is not None:
        check_against_list(names, files, place)
    weights = _by_ranges(line, place, names, files, tell)
    return weights._replace(index=index, index_text=text)


def _by_ranges(
    line: Line, place: Place, names: list[str], files: Mapping[str, int] | None, tell: Callable[[str], None]
) -> Weights:
    return Weights(files=tuple(map(_taken_apart, read_headers(line, place, names, files, tell))))


def _taken_apart(file: StoredFile) -> StoredFile:
    return file._replace(header=compact(file.header) or file.header) if isinstance(file.header, bytes) else file


def _guessed(line: Line, place: Place, tell: Callable[[str], None]) -> Weights:
    """Without a list of files and without an index: the single file under its usual name, if it is there."""
    try:
        return _by_ranges(line, place, [SINGLE], None, tell)
    except NotFoundError:
        return Weights()


def _found(place: Place, config: Mapping[str, Any] | None, weights: Weights, files: Mapping[str, int] | None) -> Found:
    return Found(
        id=place.id,
        revision=place.revision if is_commit(place.revision) else None,
        source="hub",
        config=config,
        files=weights.files,
        index=weights.index,
        other_files=other_weights(files or {}, place.folder),
        notes=notes_about(config, bool(weights.files), files, place),
    )


def _entry(found: Found, place: Place, config_text: bytes | None, weights: Weights) -> Entry | None:
    if found.revision is None:
        return None
    config = () if config_text is None else (Part("config", "config.json", config_text),)
    index = () if weights.index_text is None else (Part("index", INDEX, weights.index_text),)
    return Entry(
        id=found.id,
        commit=found.revision,
        folder=place.folder,
        parts=(*config, *index, *map(header_part, weights.files)),
        other_files=found.other_files,
        notes=found.notes,
    )
