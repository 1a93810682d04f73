"""A model on the Hub: its config.json and the headers of its weights, from the cache where a commit is known there."""

from __future__ import annotations

import time
from collections.abc import Callable

from estimator.source.cache import write_entry, write_ref
from estimator.source.found import Found
from estimator.source.hub_settings import hub_settings, open_line
from estimator.source.kept import find_offline, is_kept, kept
from estimator.source.place import is_commit, place_of
from estimator.source.progress import patiently


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

    `progress` hears what is waited for from the first second on, and "" at the end.

    Raises NotFoundError, GatedError, NetworkError, OfflineError, MalformedHeaderError, MalformedConfigError, and
    NoWeightsError where there is neither a config nor a file that could be read.
    """
    deadline = time.monotonic() + timeout
    settings = hub_settings()
    place = place_of(settings.endpoint, model_id, revision, subfolder)
    if offline or settings.offline:
        return find_offline(place, settings.cache)
    if is_commit(place.revision) and (found := kept(place, settings.cache)):
        return found
    from estimator.source.online import read_online

    line = open_line(settings.endpoint, token, deadline)
    with patiently(progress) as tell:
        found, entry = read_online(
            line,
            place,
            kept=lambda held: kept(held, settings.cache),
            likely_kept=is_kept(place, settings.cache),
            tell=tell,
        )
    for id_ in {place.id, found.id}:  # they differ where the repository was renamed
        if entry is not None:
            write_entry(settings.cache, id_, entry)
        if found.revision:
            write_ref(settings.cache, id_, place.revision, found.revision)
    return found
