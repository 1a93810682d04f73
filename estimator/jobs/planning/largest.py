"""The largest that fits: batch, sequence length and rank in a GPU; rank and targets below limits."""

from collections.abc import Callable
from dataclasses import dataclass
from math import floor, inf, isqrt
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
    if excess(memory, gpu_memory) <= 0:
        return "yes"
    return "no" if memory.device.lower > gpu_memory else "maybe"


def likely_fits(memory: Memory, gpu_memory: int) -> bool | None:
    """Whether the middle fits; None where it would, but something that has no upper bound is not in it."""
    likely = memory.device.expected <= gpu_memory
    return None if likely and memory.unbounded else likely


def excess(memory: Memory | None, gpu_memory: int) -> float:
    """Bytes of the upper bound beyond a GPU's: "yes" where at most 0. Infinite where there is no bound, or no run."""
    return inf if memory is None or memory.unbounded else memory.device.upper - gpu_memory


def largest_value(excess: Callable[[int], float], limit: int) -> int | None:
    """An n of 1..limit for which `excess` is at most 0 and for n + 1 is not: the largest, where it never is above that.

    None where it is not for 1. Looked for where the line through the last two is 0, and every third time in the middle
    of what is left: memory and files grow all but straight.
    """
    low, high, n, turn = 0, limit + 1, 1, 0
    last: tuple[int, float] | None = None
    while high - low > 1:
        value = excess(n)
        low, high = (n, high) if value <= 0 else (low, n)
        guess = isqrt(low * high)
        if last is not None and turn % 3:
            slope = (value - last[1]) / (n - last[0])
            guess = floor(n - value / slope) if 0 < slope < inf else guess
        last, turn = (n, value), turn + 1
        n = min(max(guess, low + 1), high - 1)
    return low or None


def largest(answer: Answer, shape: Shape, gpu_memory: int | None, ask: Ask) -> dict[str, int | None]:
    """The largest value that surely fits, the rest held; None where even the smallest does not, and for the length of
    sequences where no layer sees words: all of them fit, or none.
    """
    if gpu_memory is None:
        return {"batch_size": None, "sequence_length": None, "r": None}

    lengths = (positions(answer) or MAX_LENGTH) if shape.pieces is None else 0
    return {
        "batch_size": largest_value(lambda n: excess(ask(batch_size=n), gpu_memory), MAX_BATCH),
        "sequence_length": largest_value(lambda n: excess(ask(sequence_length=n), gpu_memory), lengths),
        "r": largest_value(lambda n: excess(ask({"r": n}), gpu_memory), MAX_RANK),
    }


def positions(answer: Answer) -> int | None:
    """Tokens of the longest sequence that the model knows; None where its config does not say."""
    return longest(text_config(answer.tree.config))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an adapter may not exceed; None: no limit."""

    file_bytes: int | None = None  # of adapter_model.safetensors
    parameters: int | None = None  # trainable

    def excess(self, answer: Answer) -> float:
        """The largest share of a limit that lies beyond it; at most 0 where all hold."""
        held = ((answer.adaptation.trainable_parameters, self.parameters), (answer.file_bytes or 0, self.file_bytes))
        return max(((value - limit) / max(limit, 1) for value, limit in held if limit is not None), default=0.0)


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
    request, bases = with_config_file(request), BaseCache()
    known: dict[object, Within] = {}  # sets that come to the same modules are looked at once
    distinct: dict[object, Within] = {}  # and stand once, the request's own first
    for targets in (None, *TARGET_SETS):
        asked = request if targets is None else request._replace(targets=targets)
        try:
            first = estimate(asked._replace(r=1), bases=bases)
        except LoraSizeError:
            if targets is None:
                raise
            continue  # PEFT would refuse these targets on this model
        key = _outcome(first)
        if key not in known:
            known[key] = _within(asked, limits, first, bases)
        row = known[key]._replace(targets=targets)
        distinct.setdefault((row.r, row.parameters) if row.r else targets, row)
    return tuple(distinct.values())


def _outcome(answer: Answer) -> object:
    """What the same settings made of the model, whatever the targets are called."""
    done = answer.adaptation
    return repr({**done.config, "target_modules": None}), done.modules, done.tensors


def _within(request: Request, limits: Limits, first: Answer, bases: BaseCache) -> Within:
    """first: the answer for r 1."""
    answers = {1: first}

    def over(rank: int) -> float:
        try:
            answers[rank] = answers.get(rank) or estimate(request._replace(r=rank), bases=bases)
        except LoraSizeError:
            return inf
        return limits.excess(answers[rank])

    rank = largest_value(over, MAX_RANK)
    if rank is None:
        return Within(None, None)
    return Within(None, rank, answers[rank].adaptation.trainable_parameters, answers[rank].file_bytes)
