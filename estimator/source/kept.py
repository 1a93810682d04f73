"""A model from what is kept of it: an entry of our own cache, or files that the Hub's own tools have downloaded."""

from __future__ import annotations

import os

from estimator.errors import LoraSizeError, OfflineError
from estimator.notes import Note
from estimator.source.bounded_json import parse_json
from estimator.source.cache import (
    Entry,
    forget,
    has_entry,
    header_of,
    kept_ids,
    read_entry,
    read_ref,
    repository_folder,
)
from estimator.source.compact import UNREADABLE
from estimator.source.config import MAX_CONFIG_BYTES, parse_config
from estimator.source.folder import INDEX, SINGLE, find_in_folder
from estimator.source.found import Found
from estimator.source.hub_settings import hub_settings
from estimator.source.opening import read_at_most
from estimator.source.place import Place, is_commit
from estimator.source.plain import plain


def kept(place: Place, cache: str) -> Found | None:
    """All that is known of a place held at a commit; None where that is not all of its headers."""
    entry = read_entry(cache, place.id, place.revision, place.folder)
    if entry is not None and (found := from_entry(entry, place)):
        return found
    found = _downloaded(place, cache)
    return found if found is not None and found.files else None


def is_kept(place: Place, cache: str) -> bool:
    """Whether the commit at which a branch was last seen is likely to be kept: worth asking if it still stands."""
    commit = read_ref(cache, place.id, place.revision)
    if commit is None:
        return False
    held = place.at(commit)
    files = (snapshot_file(held, cache, name) for name in (SINGLE, INDEX))
    return has_entry(cache, place.id, commit, place.folder) or any(os.path.exists(file) for file in files)


def find_offline(place: Place, cache: str) -> Found:
    """What is kept of a place. Raises OfflineError where nothing is, and says what is."""
    commit = place.revision if is_commit(place.revision) else read_ref(cache, place.id, place.revision)
    if commit is not None:
        place = place.at(commit)
        if found := kept(place, cache) or _downloaded(place, cache) or _config_alone(place, cache):
            return found
    raise _not_kept(place, cache)


def from_entry(entry: Entry, place: Place) -> Found | None:
    """The model that an entry holds; None where it can't be read after all."""
    try:
        return _from_parts(entry, place)
    except (LoraSizeError, *UNREADABLE):
        return None


def _from_parts(entry: Entry, place: Place) -> Found:
    config, index, files = None, None, []
    for part in entry.parts:
        if part.kind == "config":
            config = parse_config(part.text, where=place.where("config.json"))
        elif part.kind == "index":
            index = dict(parse_json(part.text))
        else:
            files.append(header_of(part))
    return Found(
        id=entry.id,
        revision=entry.commit,
        source="cache",
        config=config,
        files=tuple(files),
        index=index,
        other_files=entry.other_files,
        notes=entry.notes,
    )


def read_anew(found: Found) -> None:
    """See to it that the next one who asks for this commit reads it from the Hub: what is kept of it is damaged."""
    if found.revision is not None and found.source in ("hub", "cache"):
        forget(hub_settings().cache, found.id, found.revision)


def snapshot_file(place: Place, cache: str, name: str) -> str:
    """Where the Hub's own tools keep a file of a place held at a commit."""
    return os.path.join(_snapshot(place, cache), *place.folder.split("/"), name)


def _snapshot(place: Place, cache: str) -> str:
    return os.path.join(repository_folder(cache, place.id), "snapshots", place.revision)


def _downloaded(place: Place, cache: str) -> Found | None:
    """The model in a snapshot of the Hub's own cache; None where it is not whole."""
    if not os.path.isdir(_snapshot(place, cache)):
        return None
    try:
        found = find_in_folder(_snapshot(place, cache), subfolder=place.folder or None)
    except (LoraSizeError, OSError):
        return None
    return found._replace(id=place.id, revision=place.revision, source="cache")


def _config_alone(place: Place, cache: str) -> Found | None:
    try:
        text = read_at_most(snapshot_file(place, cache, "config.json"), MAX_CONFIG_BYTES)
    except OSError:
        return None
    message = f"the weights of {place.id} are not all downloaded, so that shapes come from config.json."
    return Found(
        id=place.id,
        revision=place.revision,
        source="cache",
        config=parse_config(text, where=place.where("config.json")),
        notes=(Note("weights_not_cached", message),),
    )


def _not_kept(place: Place, cache: str) -> OfflineError:
    others = kept_ids(cache)
    if place.id in others:
        what = f"{place.id} is cached, but not its revision {plain(place.revision, 60)!r}."
    else:
        what = f"{place.id} is not cached."
    there = [plain(id_, 80) for id_ in others if id_ != place.id]
    known = f" (cached are {', '.join(there[:5])}{' and more' if len(there) > 5 else ''})" if there else ""
    way_out = f"run once without --offline and HF_HUB_OFFLINE{known}"
    return OfflineError(what, where=cache, way_out=way_out)
