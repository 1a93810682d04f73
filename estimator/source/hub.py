"""A model on the Hub: its config.json and the headers of its weights, from the cache where a commit is known there."""

from __future__ import annotations

import time
from collections.abc import Callable

from estimator.source.cache import read_ref, write_entry, write_ref
from estimator.source.found import Found
from estimator.source.hub_settings import hub_settings, open_line
from estimator.source.kept import find_offline, kept
from estimator.source.place import DEFAULT_REVISION, Place, folder_of, is_commit


def find_on_hub(
    model_id: str,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    token: str | None = None,
    offline: bool = False,
    timeout: float = 60.0,
    progress: Callable[[str], None] | None = None,
) -> Found:
    """Config and headers of a model's revision (default: the branch main), within `timeout` seconds.

    Raises NotFoundError, GatedError, NetworkError, OfflineError, MalformedHeaderError, MalformedConfigError, and
    NoWeightsError where there is neither a config nor a file that could be read.
    """
    deadline = time.monotonic() + timeout
    settings = hub_settings()
    revision = revision or DEFAULT_REVISION
    place = Place(endpoint=settings.endpoint, id=model_id, revision=revision, folder=folder_of(subfolder))
    if offline or settings.offline:
        return find_offline(place, settings.cache)
    if is_commit(revision) and (found := kept(place, settings.cache)):
        return found
    from estimator.source.online import read_online

    line = open_line(settings.endpoint, token, deadline)
    is_kept = read_ref(settings.cache, place.id, revision) is not None
    ask_cache = (lambda held: kept(held, settings.cache)) if is_kept else None
    found, entry = read_online(line, place, kept=ask_cache, tell=progress or (lambda text: None))
    if entry is not None:
        write_entry(settings.cache, entry)
    if found.revision:
        write_ref(settings.cache, place.id, revision, found.revision)
    return found
