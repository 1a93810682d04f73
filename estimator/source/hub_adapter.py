"""An adapter on the Hub: its adapter_config.json and the header and size of its file, nothing of its weights."""

from __future__ import annotations

from typing import Any, Unpack

from estimator.errors import LoraSizeError, NotFoundError, OfflineError
from estimator.source.adapter import CONFIG, WEIGHTS
from estimator.source.cache import Entry, Part, header_of, header_part, read_entry
from estimator.source.compact import UNREADABLE
from estimator.source.config import MAX_CONFIG_BYTES, parse_object
from estimator.source.found import Found
from estimator.source.kept import snapshot_file
from estimator.source.opening import read_at_most
from estimator.source.place import Place, is_commit
from estimator.source.plain import plain
from estimator.source.progress import patiently
from estimator.source.transport import TooLong, shown
from estimator.source.visit import How, visit

_KEPT_AS = "?adapter"  # behind the folder, so that a model and an adapter in one repository are kept apart


def find_adapter_on_hub(adapter_id: str, **how: Unpack[How]) -> Found:
    """`config` is adapter_config.json; `files` adapter_model.safetensors, where there is one.

    Raises NotFoundError, GatedError, NetworkError, OfflineError, MalformedHeaderError, MalformedConfigError.
    """
    asked = visit(adapter_id, **how)
    if (known := asked.known()) and (found := _kept(known, asked.cache)):
        return found
    if asked.offline:
        way_out = "run once without --offline and HF_HUB_OFFLINE"
        raise OfflineError(f"the adapter {plain(adapter_id)} is not cached.", where=asked.cache, way_out=way_out)
    with patiently(f"asking {shown(asked.place.endpoint)} for {asked.place.id}"):
        entry, named = _ask(asked.line(), asked.place)
    found = _found(entry, named, source="hub")
    asked.keep(entry.id, entry.commit, entry)
    return found


def _ask(line: Any, place: Place) -> tuple[Entry, Place]:
    from estimator.source.online import ask_head, file_text, too_large
    from estimator.source.ranges import read_header
    from estimator.source.side_by_side import Started

    head = Started(ask_head, line, place, CONFIG).value(line.deadline)
    if head.answer.status == 404:
        what = f"{head.place.where()} has no {CONFIG}, so it is no adapter of PEFT's."
        raise NotFoundError(what, where="--adapter", way_out="name an adapter's repository, or its --subfolder")
    reading = Started(read_header, line, head.place, WEIGHTS, None)
    try:
        text = Started(file_text, line, head, MAX_CONFIG_BYTES).value(line.deadline) or b""
    except TooLong as error:
        raise too_large(head.place, error, CONFIG) from error
    parts = [Part("config", CONFIG, text)]
    try:
        stored = reading.value(line.deadline)
        parts.append(header_part(stored))
    except NotFoundError:
        pass  # an adapter saved as a pickle: its size is for the list of files to tell
    commit = head.place.revision
    return Entry(id=head.place.id, commit=commit, folder=place.folder + _KEPT_AS, parts=tuple(parts)), head.place


def _kept(place: Place, cache: str) -> Found | None:
    entry = read_entry(cache, place.id, place.revision, place.folder + _KEPT_AS)
    try:
        if entry is not None:
            return _found(entry, place, source="cache")
        return _downloaded(place, cache)
    except (LoraSizeError, OSError, *UNREADABLE):
        return None


def _downloaded(place: Place, cache: str) -> Found:
    from estimator.source.folder import read_stored_file

    text = read_at_most(snapshot_file(place, cache, CONFIG), MAX_CONFIG_BYTES)
    config = parse_object(text, where=place.where(CONFIG))
    stored = read_stored_file(snapshot_file(place, cache, WEIGHTS), place.folder + WEIGHTS)
    return Found(id=place.id, revision=place.revision, source="cache", config=config, files=(stored,))


def _found(entry: Entry, place: Place, *, source: str) -> Found:
    texts = {part.kind: part for part in entry.parts}
    header = texts.get("header")
    return Found(
        id=entry.id,
        revision=entry.commit if is_commit(entry.commit) else None,
        source=source,
        config=parse_object(texts["config"].text, where=place.where(CONFIG)),
        files=(header_of(header),) if header else (),
    )
