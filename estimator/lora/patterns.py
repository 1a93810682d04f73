"""Regular expressions of strangers, matched against module names in bounded time.

PEFT hands patterns to `re` as they come; `(a+)+$` would then run for ages. Patterns whose cost is plainly small are
matched here. All others are matched by `re` in a process of its own, which is ended when its time is up.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Sequence
from functools import lru_cache
from math import comb, inf, log2

from estimator.errors import InvalidLoraError

DEADLINE_SECONDS = 2.0
MAX_PATTERN_LENGTH = 50_000
MAX_PATTERNS = 2_000  # in one field that takes several, plain names apart
_CHEAP_BITS = 28.0  # log2 of the steps that `re` may take here at the very worst: some two seconds
_PLAIN = re.compile(r"\w+")

_WORKER = """
import json, re, sys, warnings
warnings.simplefilter("ignore")
pattern, how, names = json.load(sys.stdin)
match = getattr(re.compile(pattern), how)
json.dump([number for number, name in enumerate(names) if match(name)], sys.stdout)
"""


def is_plain(text: str) -> bool:
    """Whether a pattern says nothing but its own letters."""
    return _PLAIN.fullmatch(text) is not None


def fullmatching(pattern: str, names: Sequence[str], *, where: str) -> list[str]:
    """The names that `re.fullmatch` takes. Raises InvalidLoraError for a faulty or an endless pattern."""
    return _taken(pattern, "fullmatch", names, where=where, said=pattern)


def matching(pattern: str, names: Sequence[str], *, where: str, said: str) -> list[str]:
    """The names that `re.match` takes; `said` is the user's own part of the pattern, for messages."""
    return _taken(pattern, "match", names, where=where, said=said)


def _taken(pattern: str, how: str, names: Sequence[str], *, where: str, said: str) -> list[str]:
    match = getattr(compiled(pattern, where=where, said=said), how)
    if _bits(pattern, max(map(len, names), default=0)) + log2(len(names) + 1) <= _CHEAP_BITS:
        return [name for name in names if match(name)]
    return _matching_elsewhere(pattern, how, names, where=where, said=said)


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(pattern)


def compiled(pattern: str, *, where: str, said: str) -> re.Pattern[str]:
    """Raises InvalidLoraError where `re` would refuse the pattern, or where it is absurdly long."""
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise _refused(f"a pattern of {len(pattern):,} letters is not matched.", where, "write a shorter one")
    try:
        return _compiled(pattern)
    except (re.error, RecursionError, OverflowError, MemoryError) as error:
        raise _refused(
            f"{said[:200]!r} is no regular expression: {str(error)[:100]}.", where, "mend the pattern"
        ) from error


def _refused(what: str, where: str, way_out: str) -> InvalidLoraError:
    return InvalidLoraError(what, where=where, way_out=way_out)


def _matching_elsewhere(pattern: str, how: str, names: Sequence[str], *, where: str, said: str) -> list[str]:
    import subprocess  # costs more to import than most requests take

    try:
        worker = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _WORKER],
            input=json.dumps([pattern, how, list(names)]),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        what = f"{said[:200]!r} takes longer than {DEADLINE_SECONDS:g} s to match against the model's module names."
        raise _refused(
            what, where, "repeats inside repeats are what makes a pattern endless; write it without"
        ) from error
    if worker.returncode != 0:
        raise _refused(f"{said[:200]!r} could not be matched.", where, "write a simpler pattern")
    return [names[number] for number in json.loads(worker.stdout)]


# What `re` makes of a pattern, as far as its cost goes.


def _parsed(pattern: str):
    from re import _parser  # the standard library's own parser; it has no public name

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _parser.parse(pattern)


@lru_cache(maxsize=512)
def _bits(pattern: str, letters: int) -> float:
    """log2 of the ways in which `re` can try a pattern on a name of so many letters; infinite where they multiply."""
    try:
        repeats, choices = _freedom(_parsed(pattern), inside=False)
    except RecursionError:
        return inf
    return log2(comb(letters + repeats, repeats)) + choices if repeats < 50 else inf


def _freedom(parsed, *, inside: bool) -> tuple[int, float]:
    """How many repeats run over any number of letters, and the bits of all other choices.

    A repeat or a choice inside a repeat multiplies with each round: it counts as infinitely many bits.
    """
    repeats, choices = 0, 0.0
    for operation, arguments in parsed:
        kind = str(operation)
        rounds = arguments[1] if kind in _REPEATS else 1
        if kind in _REPEATS and arguments[1] - arguments[0] > 1:
            repeats += 1
        elif kind in _REPEATS and arguments[1] != arguments[0]:
            choices += 1
        elif kind == "BRANCH":
            choices += log2(len(arguments[1]))
        elif kind.startswith("GROUPREF"):
            choices = inf
        if inside and kind in (*_REPEATS, "BRANCH"):
            choices = inf
        for part in _parts(arguments):
            more_repeats, more_choices = _freedom(part, inside=inside or rounds > 1)
            repeats, choices = repeats + more_repeats, choices + more_choices
    return repeats, choices


_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


def _parts(arguments):
    """The sub-patterns among an operation's arguments."""
    for item in arguments if isinstance(arguments, (tuple, list)) else ():
        if hasattr(item, "data"):
            yield item
        else:
            yield from _parts(item)
