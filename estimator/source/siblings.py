"""Shards that are numbered as one set: `model-00001-of-00002.safetensors` and its like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from estimator.errors import MalformedHeaderError
from estimator.source.plain import plain

_DIGITS = 9  # of a number of shards; longer ones are part of a name


def unnamed_shard(named: Collection[str], there: Iterable[str]) -> str | None:
    """A path in `there` that is numbered as one of the shards in `named` and is none of them; None where all are."""
    known = set(named)
    sets = {_set(path) for path in known} - {None}
    return next((path for path in there if path not in known and _set(path) in sets), None)


def check_whole(named: Iterable[str], *, where: str) -> None:
    """Raises MalformedHeaderError where shards are numbered as more than there are, and no index says otherwise."""
    sets = Counter(filter(None, map(_set, named)))
    for (head, ending), there in sets.items():
        total = ending.partition(".")[0]
        if total.isdecimal() and len(total) <= _DIGITS and there < int(total):
            what = f"{there:,} of {int(total):,} shards {plain(head, 100)}-*-of-{plain(ending, 100)} are there."
            raise MalformedHeaderError(what, where=where, way_out="fetch the missing shards again")


def _set(path: str) -> tuple[str, str] | None:
    """What all shards of a set have in common; None for a name without a number."""
    head, of, ending = path.rpartition("-of-")
    return (head.rpartition("-")[0], ending) if of else None
