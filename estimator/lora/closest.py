"""Names of a model that are close to a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 8
_LONGEST = 80


def listed(names: Iterable[str], shown: int = SHOWN) -> str:
    """The first few names, shortened, and how many there are beside."""
    names = list(names)
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(name[:_LONGEST] for name in names[:shown]) + more


def closest(asked: Iterable[str], there: Iterable[str]) -> list[str]:
    """Of what is there, what the asked names may have meant, the nearest first."""
    from difflib import get_close_matches  # costs more to import than most requests take

    names = sorted(set(there))
    return list(
        dict.fromkeys(
            name for one in list(asked)[:SHOWN] for name in get_close_matches(one[:_LONGEST], names, n=2, cutoff=0.6)
        )
    )


def last_parts(names: Iterable[str]) -> list[str]:
    return [name.rpartition(".")[2] for name in names]
