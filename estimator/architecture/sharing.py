"""What a module that the file does not hold shares with one that it holds, by the class's ties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator.architecture.conditions import Lookup, Place, holds
from estimator.architecture.facts import ClassFacts

Branch = dict[str, Any]  # names below a module: a Branch, or what is stored
_IN_TURN = "%"


class Sharing:
    """Answers for one class and one file; `pairs` lists the modules that share in turn, as they came up."""

    def __init__(self, facts: ClassFacts, lookup: Lookup, root: Branch) -> None:
        held = [
            (target.split("."), source.split("."))
            for target, source, condition in facts.ties
            if holds(condition, lookup, Place())
        ]
        self._root = root
        self._ties = [tie for tie in held if _IN_TURN not in tie[1]]
        self._turns: list[tuple[list[str], list[str], list[int]]] = [
            (target, [], [0]) for target, source in held if _IN_TURN in source
        ]
        self._first = {target[0] for target, _ in held}
        self.pairs: list[tuple[str, str]] = []

    def branch(self, path: str, stored: Branch) -> Branch:
        """What stands below the module: as stored, else what it shares; {} where it shares nothing."""
        if path.partition(".")[0] not in self._first:
            return stored
        parts = path.split(".")
        if turn := next((turn for turn in self._turns if _fits(parts, turn[0]) and len(parts) == len(turn[0])), None):
            return self._in_turn(path, stored, turn)
        return stored or self._shared(parts)

    def is_tied(self, path: str) -> bool:
        """Whether the module, or something below it, shares what the file holds elsewhere."""
        if path.partition(".")[0] not in self._first:
            return False
        parts = path.split(".")
        return any(_fits(parts, target) and self._source(parts, target, source) for target, source in self._ties)

    def _in_turn(self, path: str, stored: Branch, turn: tuple[list[str], list[str], list[int]]) -> Branch:
        _, sources, count = turn
        if stored:
            sources.append(path)
        elif sources:
            source = sources[count[0] % len(sources)]
            self.pairs.append((path, source))
            stored = _below(self._root, source.split("."))
        count[0] += 1
        return stored

    def _shared(self, parts: list[str]) -> Branch:
        found: Branch = {}
        for target, source in self._ties:
            if _fits(parts, target) and (held := self._source(parts, target, source)):
                rest = target[len(parts) :]
                if not rest:
                    found |= held if isinstance(held, dict) else {}
                elif "*" not in rest:
                    _put(found, rest, held)
        return found

    def _source(self, parts: list[str], target: list[str], source: list[str]) -> Any:
        indices = [part for name, part in zip(target, parts, strict=False) if name == "*"]
        turns = iter(indices)
        filled = [next(turns, "0") if part == "*" else part for part in source]
        return _below(self._root, filled + parts[len(target) :])


def _fits(parts: list[str], target: list[str]) -> bool:
    return all(name == part or (name == "*" and part.isdigit()) for name, part in zip(target, parts, strict=False))


def _below(branch: Any, parts: list[str]) -> Any:
    """What lies at the path; {} where nothing does."""
    for part in parts:
        branch = branch.get(part, {}) if isinstance(branch, Mapping) else {}
    return branch


def _put(branch: Branch, parts: list[str], held: Any) -> None:
    for part in parts[:-1]:
        branch = branch.setdefault(part, {})
    branch[parts[-1]] = held
