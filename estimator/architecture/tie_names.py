"""From the names of tied parameters or modules, "*" for an index, to the parameters below them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable


def matched(name: str, pattern: str, other: str) -> str | None:
    """`other` with its "*" filled as the name fills the pattern's, and what lies below; None where it does not fit."""
    if "*" not in pattern:
        fits = name == pattern or name.startswith(f"{pattern}.")
        return other + name[len(pattern) :] if fits and "*" not in other else None
    found = re.match(re.escape(pattern).replace(r"\*", r"(\d+)") + r"(?=\.|$)", name)
    if found is None:
        return None
    indices = iter(found.groups())
    return re.sub(r"\*", lambda _: next(indices, "0"), other) + name[found.end() :]


def expanded(pairs: Iterable[tuple[str, str]], names: Collection[str]) -> dict[str, str]:
    """Parameter -> parameter, from pairs of parameters or modules; without those whose source is not there."""
    found: dict[str, str] = {}
    for target, source in pairs:
        if source in names:
            found[target] = source
            continue
        below = {name: source + name[len(target) :] for name in names if name.startswith(f"{target}.")}
        found |= {name: partner for name, partner in below.items() if partner in names}
    return found
