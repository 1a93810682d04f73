"""The largest that fits: batch, sequence length and rank in a GPU; rank and targets below limits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from estimator.errors import LoraSizeError
from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate, with_config_file
from estimator.report.answer import Answer
from estimator.request.request import Request
from estimator.sizes.memory.fields import longest, text_config
from estimator.sizes.memory.peak import Memory
from estimator.sizes.memory.shape import Shape

MAX_BATCH, MAX_LENGTH, MAX_RANK = 1_000_000, 2**24, 2**17

# Tried where none is named: small sets first.
TARGET_SETS = ("qv", "qkvo", "gud", "qkvogud", "all-linear")

Ask = Callable[..., Memory | None]


def fits(memory: Memory, gpu_memory: int) -> str:
    """Judged on what the device would show: "yes" under the upper bound, "no" over the lower, else "maybe".

    Never "yes" where something has no upper bound.
    """
    if memory.device.upper <= gpu_memory and not memory.unbounded:
        return "yes"
    return "no" if memory.device.lower > gpu_memory else "maybe"


def likely_fits(memory: Memory, gpu_memory: int) -> bool | None:
    """Whether the middle fits; None where it would, but something that has no upper bound is not in it."""
    likely = memory.device.expected <= gpu_memory
    return None if likely and memory.unbounded else likely


def largest_value(holds: Callable[[int], bool], limit: int, guess: int | None = None) -> int | None:
    """An n of 1..limit for which `holds` and for n + 1 does not: the largest, where it never holds again above.

    None where it does not hold for 1. guess: where it may lie, which is looked at first.
    """
    if guess is not None and 1 <= guess < limit and holds(guess) and not holds(guess + 1):
        return guess
    if not holds(1):
        return None
    low, high = 1, 2
    while high <= limit and holds(high):
        low, high = high, high * 2
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def largest(answer: Answer, shape: Shape, gpu_memory: int | None, ask: Ask) -> dict[str, int | None]:
    """The largest value that surely fits, the rest held; None where even the smallest does not, and for the length of
    sequences where no layer sees words: all of them fit, or none.
    """
    if gpu_memory is None:
        return {"batch_size": None, "sequence_length": None, "r": None}

    def sure(memory: Memory | None) -> bool:
        return memory is not None and fits(memory, gpu_memory) == "yes"

    lengths = (positions(answer) or MAX_LENGTH) if shape.pieces is None else 0
    return {
        "batch_size": largest_value(lambda n: sure(ask(batch_size=n)), MAX_BATCH),
        "sequence_length": largest_value(lambda n: sure(ask(sequence_length=n)), lengths) if lengths else None,
        "r": largest_value(lambda n: sure(ask({"r": n})), MAX_RANK),
    }


def positions(answer: Answer) -> int | None:
    """Tokens of the longest sequence that the model knows; None where its config does not say."""
    return longest(text_config(answer.tree.config))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an adapter may not exceed; None: no limit."""

    file_bytes: int | None = None  # of adapter_model.safetensors
    parameters: int | None = None  # trainable

    def hold(self, answer: Answer) -> bool:
        small = self.parameters is None or answer.adaptation.trainable_parameters <= self.parameters
        return small and (self.file_bytes is None or (answer.file_bytes or 0) <= self.file_bytes)

    def guess(self, first: Answer | None, second: Answer | None) -> int | None:
        """The largest rank, if every rank added what the second did: all but some bytes of the header."""
        if first is None or second is None:
            return None
        one, two = first.adaptation.trainable_parameters, second.adaptation.trainable_parameters
        sizes = ((self.parameters, one, two), (self.file_bytes, first.file_bytes or 0, second.file_bytes or 0))
        ranks = [1 + (limit - one) // (two - one) for limit, one, two in sizes if limit is not None and two > one]
        return min(ranks, default=None)


class Within(NamedTuple):
    """A set of targets below the limits, at its largest rank."""

    targets: str | None  # None: those of the request
    r: int | None  # None: not even r 1
    parameters: int | None = None
    file_bytes: int | None = None


def within_limits(request: Request, limits: Limits) -> tuple[Within, ...]:
    """The request's own targets first, then usual sets; each with the largest r below the limits.

    Raises what an estimate of the request raises.
    """
    request = with_config_file(request)
    bases = BaseCache()
    estimate(request._replace(r=1), bases=bases)
    rows = [_within(request, None, limits, bases)]
    rows += [_within(request._replace(targets=name), name, limits, bases) for name in TARGET_SETS]
    distinct: dict[object, Within] = {}
    for row in filter(None, rows):  # sets that come to the same modules stand once, the request's own first
        distinct.setdefault((row.r, row.parameters) if row.r else row.targets, row)
    return tuple(distinct.values())


def _within(request: Request, targets: str | None, limits: Limits, bases: BaseCache) -> Within | None:
    """None where PEFT would refuse these targets on this model."""

    @cache
    def ask(rank: int) -> Answer | None:
        try:
            return estimate(request._replace(r=rank), bases=bases)
        except LoraSizeError:
            return None

    if ask(1) is None:
        return None
    guess = limits.guess(ask(1), ask(2))
    rank = largest_value(lambda n: (answer := ask(n)) is not None and limits.hold(answer), MAX_RANK, guess)
    if rank is None:
        return Within(targets, None)
    answer = ask(rank)
    return Within(targets, rank, answer.adaptation.trainable_parameters, answer.file_bytes) if answer else None
