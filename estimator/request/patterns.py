"""Regular expressions of strangers, matched against module names in bounded time.

PEFT, transformers and compressed-tensors hand patterns of config files to `re` as they come; `(a+)+$` would then run
for ages. Patterns whose cost is plainly small are matched here. All others are matched by `re` in a process of its own,
which is ended when its time is up.

`where` is the option or the field, and `refusal` the class of what is raised for a pattern that is faulty or endless.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import comb, inf, log2
from typing import Any, NamedTuple

from estimator.errors import InvalidLoraError, LoraSizeError, UnsupportedError

DEADLINE_SECONDS = 2.0
MAX_PATTERN_LENGTH = 50_000
MAX_PATTERNS = 2_000  # in one field that takes several, plain names apart
_CHEAP_BITS = 28.0  # log2 of the steps that `re` may take here at the very worst: some two seconds
_CALL_BITS = 3.0  # a call of `re` takes as long as eight of its steps
_PLAIN = re.compile(r"\w+")

_WORKER = """
import json, re, sys, warnings
warnings.simplefilter("ignore")
patterns, how, names = json.load(sys.stdin)
taken = []
for pattern in patterns:
    match = getattr(re.compile(pattern), how)
    taken.append([number for number, name in enumerate(names) if match(name)])
json.dump(taken, sys.stdout)
"""


class Pattern(NamedTuple):
    whole: str  # what `re` is given
    said: str  # the user's own part of it, for messages


def is_plain(text: str) -> bool:
    """Whether a pattern says nothing but its own letters."""
    return _PLAIN.fullmatch(text) is not None


def fullmatching(pattern: str, names: Sequence[str], *, where: str) -> list[str]:
    """The names that `re.fullmatch` takes. Raises InvalidLoraError for a faulty or an endless pattern."""
    return _taken([Pattern(pattern, pattern)], "fullmatch", names, where, InvalidLoraError)[0]


def matching(
    patterns: Sequence[Pattern],
    names: Sequence[str],
    *,
    where: str,
    refusal: type[LoraSizeError] = InvalidLoraError,
    most: int = MAX_PATTERNS,
) -> list[list[str]]:
    """For each pattern the names that `re.match` takes.

    Raises `refusal` where one is faulty or endless, UnsupportedError where there are more than `most`.
    """
    if len(patterns) > most:
        what = f"{where} holds {len(patterns):,} regular expressions; no more than {most:,} are matched."
        raise UnsupportedError(what, where=where, way_out="put them into fewer")
    return _taken(patterns, "match", names, where, refusal)


def _taken(
    patterns: Sequence[Pattern], how: str, names: Sequence[str], where: str, refusal: type[LoraSizeError]
) -> list[list[str]]:
    """All that is cheap is matched here, the rest elsewhere; both are bounded for all patterns of a field together."""
    longest, steps = max(map(len, names), default=0), 0.0
    taken: list[list[str]] = [[] for _ in patterns]
    doubtful: list[int] = []
    for number, pattern in enumerate(patterns):
        match = getattr(compiled(pattern.whole, where=where, said=pattern.said, refusal=refusal), how)
        bits = _bits(pattern.whole, longest) + log2(len(names) + 1) + _CALL_BITS
        steps += 2**bits if bits < _CHEAP_BITS else 0
        if bits > _CHEAP_BITS or steps > 2**_CHEAP_BITS:
            doubtful.append(number)
        else:
            taken[number] = [name for name in names if match(name)]
    if doubtful:
        found = _matching_elsewhere([patterns[number] for number in doubtful], how, names, where, refusal)
        for number, those in zip(doubtful, found, strict=True):
            taken[number] = those
    return taken


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(pattern)


def compiled(
    pattern: str, *, where: str, said: str, refusal: type[LoraSizeError] = InvalidLoraError
) -> re.Pattern[str]:
    """Raises `refusal` where `re` would refuse the pattern, or where it is absurdly long."""
    if len(pattern) > MAX_PATTERN_LENGTH:
        what = f"a pattern of {len(pattern):,} letters is not matched."
        raise refusal(what, where=where, way_out="write a shorter one")
    try:
        return _compiled(pattern)
    except (re.error, RecursionError, OverflowError, MemoryError) as error:
        what = f"{said[:200]!r} is no regular expression: {str(error)[:100]}."
        raise refusal(what, where=where, way_out="mend the pattern") from error


def _matching_elsewhere(
    patterns: Sequence[Pattern], how: str, names: Sequence[str], where: str, refusal: type[LoraSizeError]
) -> list[list[str]]:
    import subprocess  # costs more to import than most requests take

    said = patterns[0].said[:200]
    try:
        worker = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _WORKER],
            input=json.dumps([[pattern.whole for pattern in patterns], how, list(names)]),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        more = f" (with {len(patterns) - 1:,} more)" if len(patterns) > 1 else ""
        what = f"{said!r}{more} takes longer than {DEADLINE_SECONDS:g} s to match against the model's module names."
        way_out = "repeats inside repeats are what makes a pattern endless; write it without"
        raise refusal(what, where=where, way_out=way_out) from error
    if worker.returncode != 0:
        raise refusal(f"{said!r} could not be matched.", where=where, way_out="write a simpler pattern")
    return [[names[number] for number in numbers] for numbers in json.loads(worker.stdout)]


# What `re` makes of a pattern, as far as its cost goes.


def _parsed(pattern: str) -> Any:
    from re import _parser  # type: ignore[attr-defined]  # the standard library's own parser; it has no public name

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


def _freedom(parsed: Any, *, inside: bool) -> tuple[int, float]:
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


def _parts(arguments: Any) -> Iterator[Any]:
    """The sub-patterns among an operation's arguments."""
    for item in arguments if isinstance(arguments, (tuple, list)) else ():
        if hasattr(item, "data"):
            yield item
        else:
            yield from _parts(item)
