"""What the variables of a shell script hold, as far as its text alone tells: itself (`${NAME}`) where it does not.

A branch, a loop, a function and a subshell are scopes: what they set is known within, and behind them only where it
is what it was before. A loop comes back to its start, and a function is run later than it is written: what changes
until then is in the `History` of a first reading, and is not known to the second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from estimator.errors import UsageError

Held = str | list[str] | None  # a plain value, an array, or not set by the script
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\[[^\]]*\])?(\+?)=(.*)", re.DOTALL | re.ASCII)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?:(:?[-=])([^{}]*))?\})", re.ASCII)  # ${NAME:-what it else is}
_IF_SET = re.compile(r'\$\{(\w+)(\[@\])?:?\+"?\$\{?\1(?:\[@\])?\}?"?\}', re.ASCII)  # ${NAME:+$NAME}
_ARRAY = re.compile(r"\$\{(\w+)\[[@*]\]\}", re.ASCII)
MAX_VALUE, MAX_WORDS = 10_000, 10_000  # of a variable and of an array: what doubles itself is left as it is written
_MAX_INSERTED = 20_000_000  # characters of all values that are put in
_MAX_SCOPES = 40


@dataclass(slots=True)
class History:
    loops: dict[int, frozenset[str]] = field(default_factory=dict)  # what each sets, by the number of its scope
    last: dict[str, int] = field(default_factory=dict)  # when a variable is set for the last time
    functions: bool = False

    def counts(self) -> bool:
        return self.functions or bool(self.loops)


@dataclass(slots=True)
class Scope:
    kind: str
    function: str
    number: int
    time: int
    before: dict[str, Held] = field(default_factory=dict)


class Variables:
    def __init__(self, first: History) -> None:
        self.history = History()
        self._first = first
        self._entered = self._time = 0
        self._known: dict[str, str | list[str]] = {}
        self._scopes: list[Scope] = []
        self._functions: dict[str, frozenset[str]] = {}  # what each may set
        self._left = _MAX_INSERTED
        self.exported: set[str] = set()

    def text(self, piece: str) -> str:
        """The piece with the values of its variables."""
        if self._left < 0:
            return piece
        text = _VARIABLE.sub(self._said, _IF_SET.sub(r"${\1\2}", piece))
        self._left -= len(text)
        return text

    def words(self, piece: str) -> list[str] | None:
        """An array's words where the piece names one and nothing else."""
        match = _ARRAY.fullmatch(_IF_SET.sub(r"${\1\2}", piece)) if "[" in piece else None
        held = self._held(match[1]) if match is not None else None
        if not isinstance(held, list) or self._left < 0:
            return None
        self._left -= sum(map(len, held)) + len(held)
        return held

    def value(self, name: str) -> str | None:
        held = self._held(name)
        return _itself(name) if isinstance(held, list) else held

    def _held(self, name: str) -> Held:
        return _itself(name) if self._changes(name) else self._known.get(name)

    def _changes(self, name: str) -> bool:
        """Whether a variable from outside of a loop or of a function is another one when it runs again, or at last."""
        for scope in reversed(self._scopes if self._first.counts() else ()):
            if name in scope.before:
                return False
            later = bool(scope.function) and self._first.last.get(name, 0) > scope.time
            if later or name in self._first.loops.get(scope.number, ()):
                return True
        return False

    def touch(self, name: str) -> None:
        """The variable is set, be it for one command."""
        self._time += 1
        self.history.last[name] = self._time

    def set(self, name: str, value: Held) -> None:
        """Of what is too long, and of None, nothing is known any more."""
        self.touch(name)
        known = value is not None and len(value) <= (MAX_VALUE if isinstance(value, str) else MAX_WORDS)
        if self._scopes and name not in self._scopes[-1].before:
            later = any(scope.function for scope in self._scopes)
            self._scopes[-1].before[name] = self._held(name) if later else self._known.get(name)
        self._known[name] = value if known and value is not None else _itself(name)

    def set_list(self, name: str, words: list[str], *, more: bool) -> None:
        held = self._known.get(name, []) if more else []
        before = held if isinstance(held, list) else [held]
        before = [*before, f"${{{name}[@]}}"] if more and self._changes(name) else before
        self._left -= len(before)
        self.set(name, None if self._left < 0 else [*before, *words])

    def assign(self, word: str) -> bool:
        """Whether the word is `NAME=VALUE`, `NAME+=VALUE` or `NAME[1]=VALUE`, which then counts."""
        match = ASSIGNMENT.fullmatch(word)
        if match is None:
            return False
        held = self._known.get(match[1])
        if match[2] or (match[3] and isinstance(held, list)):
            self.set(match[1], None)
        else:
            before = (_itself(match[1]) if held is None else str(held)) if match[3] else ""
            before = f"{before} {_itself(match[1])}" if before and self._changes(match[1]) else before
            self.set(match[1], before + match[4])
        return True

    def call(self, command: str, variables: Iterable[str]) -> None:
        """A function may set what its body sets, and knows the variables in front of it."""
        for name in variables:
            self.touch(name)
        for name in self._functions.get(command, ()):
            self.set(name, None)

    def inside(self) -> str:
        """The kind of the innermost scope that is no `&&`."""
        return next((scope.kind for scope in reversed(self._scopes) if scope.kind != "&&"), "")

    def enter(self, kind: str, function: str = "") -> None:
        if len(self._scopes) == _MAX_SCOPES:
            raise UsageError("it is nested too deeply.", where="the script", way_out="give the line that trains")
        self._entered += 1
        self._scopes.append(Scope(kind, function, self._entered, self._time))

    def leave(self, kind: str) -> None:
        """Ends the innermost scope of the kind, and those within; nothing where there is none."""
        while any(scope.kind == kind for scope in self._scopes):
            scope = self._scopes.pop()
            self._merge(scope)
            if scope.kind == kind:
                return

    def enter_list(self, *, certain: bool) -> None:
        """Behind `&&` and `||`; `certain` where what stands before cannot fail."""
        if not certain and (not self._scopes or self._scopes[-1].kind != "&&"):
            self.enter("&&")

    def end_list(self) -> None:
        """At the end of `a && b || c`."""
        while self._scopes and self._scopes[-1].kind == "&&":
            self._merge(self._scopes.pop())

    def _merge(self, scope: Scope) -> None:
        for name, before in scope.before.items():
            now = self._known[name]
            if self._scopes:
                self._scopes[-1].before.setdefault(name, before)
            self._left -= len(now)
            self.set(name, None if self._left < 0 else _either(name, before, now))
        if scope.kind == "done":
            self.history.loops[scope.number] = frozenset(scope.before)
        if scope.function:
            self.history.functions = True
            self._functions[scope.function] = frozenset(scope.before)

    def _said(self, variable: re.Match[str]) -> str:
        """What a variable stands for; itself where nobody says so."""
        held = self.value(variable[1] or variable[2])
        if variable[3] and (held is None or (not held and ":" in variable[3])):
            default = variable[4].strip("\"'")
            return variable[0] if held is None and not default else default
        return variable[0] if held is None else held


def _itself(name: str) -> str:
    return f"${{{name}}}"


def _either(name: str, before: Held, now: str | list[str]) -> Held:
    """What is held where a branch may have set it: what surely is there, and behind it what only a run knows."""
    if now == before:
        return now
    if isinstance(before, list) and isinstance(now, list) and now[: len(before)] == before:
        mark = f"${{{name}[@]}}"
        return before if before[-1:] == [mark] else [*before, mark]
    if before and isinstance(before, str) and isinstance(now, str) and now.startswith(f"{before} "):
        mark = _itself(name)
        return before if before.endswith(mark) else f"{before} {mark}"
    return None
