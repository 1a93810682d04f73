"""A model on the Hub: its config.json and the headers of its weights, from the cache where a commit is known there."""

from __future__ import annotations

from typing import Unpack

from estimator.source.found import Found
from estimator.source.kept import find_offline, is_kept, kept
from estimator.source.progress import patiently
from estimator.source.visit import How, visit


def find_on_hub(model_id: str, **how: Unpack[How]) -> Found:
    """Config and headers of a model.

    Raises NotFoundError, GatedError, NetworkError, OfflineError, MalformedHeaderError, MalformedConfigError, and
    NoWeightsError where there is neither a config nor a file that could be read.
    """
    asked = visit(model_id, **how)
    if asked.offline:
        return find_offline(asked.place, asked.cache)
    if (known := asked.known()) and (found := kept(known, asked.cache)):
        return found
    from estimator.source.online import read_online

    with patiently() as tell:
        found, entry = read_online(
            asked.line(),
            asked.place,
            kept=lambda held: kept(held, asked.cache),
            likely_kept=is_kept(asked.place, asked.cache),
            tell=tell,
        )
    asked.keep(found.id, found.revision, entry)
    return found
