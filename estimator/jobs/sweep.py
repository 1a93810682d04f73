"""Many ranks, target sets, precisions and models, each crossed with each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

from estimator.errors import LoraSizeError, UsageError
from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate, with_config_file
from estimator.jobs.planning.largest import fits
from estimator.jobs.planning.memory import memory_or_assumed
from estimator.notes import Note
from estimator.request.request import Request
from estimator.sizes.memory.training import Training
from estimator.source.progress import patiently

MAX_CASES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One point of a sweep; `error` in place of the numbers that it has not."""

    model: str | None
    targets: str | None
    base_precision: str | None
    r: int | None  # None: the request's own, and it was refused
    parameters: int | None = None
    file_bytes: int | None = None
    device_bytes: int | None = None  # the middle of what the device would show
    device_lower_bytes: int | None = None
    device_upper_bytes: int | None = None
    fits: str | None = None
    assumed_dtype: str | None = None  # of the base, where nothing says it
    basis: str | None = None  # "exact" | "inferred": how the kinds of the modules are known
    cross_check: str | None = None  # "match" | "mismatch" | "unavailable"
    notes: tuple[Note, ...] = ()  # of the estimate
    error: LoraSizeError | None = None


def sweep(
    request: Request,
    *,
    models: Sequence[str | None],
    targets: Sequence[str | None],
    precisions: Sequence[str | None],
    ranks: Sequence[int | None],
    training: Training,
    gpu_memory: int | None = None,
) -> Iterator[Case]:
    """Every case once and in order, models outermost and ranks innermost; None is what the request says.

    Raises UsageError where there are too many.
    """
    crossed: list[dict[Any, None]] = [dict.fromkeys(values) for values in (models, targets, precisions, ranks)]
    count = prod(map(len, crossed))
    if not 0 < count <= MAX_CASES:
        way_out = f"name at least one of each, and at most {MAX_CASES:,} together"
        raise UsageError(f"this sweep has {count:,} cases.", where="--model, --targets, --r", way_out=way_out)
    request = with_config_file(request)
    bases = BaseCache()
    with patiently() as tell:
        for number, (model, target, precision, rank) in enumerate(product(*crossed), 1):
            tell(f"case {number:,} of {count:,}")
            given: dict[str, Any] = {"model": model, "targets": target, "base_precision": precision, "r": rank}
            changed = request._replace(**{name: value for name, value in given.items() if value is not None})
            case = Case(model=changed.model, targets=target, base_precision=changed.base_precision, r=changed.r)
            try:
                yield _answered(case, changed, bases, training, gpu_memory)
            except LoraSizeError as error:
                yield replace(case, error=error)


def _answered(case: Case, request: Request, bases: BaseCache, training: Training, gpu_memory: int | None) -> Case:
    answer = estimate(request, bases=bases)
    adaptation = answer.adaptation
    rank = adaptation.config["r"] if case.r is None else case.r
    case = replace(
        case,
        r=rank,
        parameters=adaptation.trainable_parameters,
        file_bytes=answer.file_bytes,
        basis=answer.tree.basis,
        cross_check=answer.cross_check.status,
        notes=answer.notes,
    )
    try:
        memory, assumed = memory_or_assumed(request, answer, training, bases)
    except LoraSizeError as error:  # the memory alone is not known
        return replace(case, error=error)
    return replace(
        case,
        device_bytes=memory.device.expected,
        device_lower_bytes=memory.device.lower,
        device_upper_bytes=memory.device.upper,
        fits=None if gpu_memory is None else fits(memory, gpu_memory),
        assumed_dtype=assumed,
    )


def frontier(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Of the cases that surely fit, those that no other beats in parameters without more memory; most first."""
    best: list[Case] = []
    most = -1
    for case in sorted((case for case in cases if case.fits == "yes"), key=_by_memory):
        if case.parameters is not None and case.parameters > most:
            best.append(case)
            most = case.parameters
    return tuple(reversed(best))


def _by_memory(case: Case) -> tuple[int, int]:
    return case.device_upper_bytes or 0, -(case.parameters or 0)
