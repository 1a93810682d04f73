"""Ties of many builds of a class as patterns.

A pattern names a parameter, or a module all of whose parameters are tied to those of another; "*" stands for an index,
in the source for the target's own. A source that lies in another layer under each config is written with "%": layers
share in turn, those that come first with those that follow, a, b, a, b, ...
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from estimator.architecture.tie_names import matched

_INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)")
Pairs = dict[str, set[str]]  # target pattern -> the source patterns that say the same


def tie_pairs(ties: Mapping[str, str], names: Collection[str]) -> Pairs:
    """The patterns of one build's ties, given the full names of all its parameters."""
    wanted = {target: source for target, source in ties.items() if target in names and source in names}
    whole = _whole_modules(wanted, names)
    groups: dict[str, dict[str, str]] = {}
    for target, source in whole.items():
        groups.setdefault(_starred(target), {})[target] = source
    pairs: Pairs = {}
    for starred, group in groups.items():
        if "*" in starred and _all_but_sources(starred, group, names) and (sources := _sources(group)):
            pairs[starred] = sources
        else:
            pairs.update((target, {source}) for target, source in group.items())
    return pairs


def _whole_modules(ties: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """Module -> module where several parameters are tied alike, else parameter -> parameter."""
    below: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            below.setdefault(".".join(parts[:depth]), []).append(name)
    found: dict[str, str] = {}
    for target, source in ties.items():
        parts = target.split(".")
        for depth in range(1, len(parts)):
            module = ".".join(parts[:depth])
            partner = source.removesuffix(target[len(module) :])
            alike = len(below[module]) > 1 and all(ties.get(n) == partner + n[len(module) :] for n in below[module])
            if alike and partner != source:
                found[module] = partner
                break
        else:
            found[target] = source
    return found


def _starred(name: str) -> str:
    return _INDEX.sub("*", name)


def _all_but_sources(starred: str, group: Mapping[str, str], names: Collection[str]) -> bool:
    """Whether the pattern catches nothing but the targets, and the sources themselves."""
    pattern = re.compile(re.escape(starred).replace(r"\*", r"\d+") + r"(?=\.|$)")
    caught = {found.group() for name in names if (found := pattern.match(name))}
    return caught <= set(group) | set(group.values())


def _sources(group: Mapping[str, str]) -> set[str]:
    """The source patterns that hold for every target: the very name, with the target's indices, or in turn."""
    found = {next(iter(group.values()))} if len(set(group.values())) == 1 else set()
    followed = {_following(target, source) for target, source in group.items()}
    in_turn = {_INDEX.sub("%", source, count=1) for source in group.values() if _INDEX.search(source)}
    return found | (followed if len(followed) == 1 else set()) | (in_turn if len(in_turn) == 1 else set())


def _following(target: str, source: str) -> str:
    """The source with "*" where its index is the target's at the same turn."""
    at = iter(_INDEX.findall(target))
    return _INDEX.sub(lambda found: "*" if next(at, None) == found.group() else found.group(), source)


def agreed(builds: Sequence[Pairs]) -> dict[str, list[str]]:
    """Target pattern -> the source patterns that are needed to say it for every build."""
    found: dict[str, list[str]] = {}
    for target in sorted(set().union(*builds)):
        sources = [pairs[target] for pairs in builds if target in pairs]
        common = set.intersection(*sources)
        found[target] = (
            [min(common, key=_likelihood)] if common else sorted({min(one, key=_likelihood) for one in sources})
        )
    return found


def _likelihood(source: str) -> tuple[int, str]:
    """The target's own index first, then a fixed name or the first of a list; another layer lies there by config."""
    fixed = set(_INDEX.findall(source)) <= {"0"} and "%" not in source
    return (0 if "*" in source else 1 if fixed else 2 if "%" in source else 3), source


def ties_hold(target: str, source: str, ties: Mapping[str, str], names: Collection[str]) -> bool | None:
    """Whether a build has the ties that a pattern says; None where it lacks the modules."""
    pairs = [(name, matched(name, target, source)) for name in names]
    pairs = [(name, partner) for name, partner in pairs if partner not in (None, name)]
    if "%" in source:
        return any(name in ties for name, _ in pairs) if pairs else None
    there = [ties.get(name) == partner for name, partner in pairs if partner in names]
    return any(there) if there else None
