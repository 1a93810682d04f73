"""Many ranks, target sets, precisions and models, each crossed with each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from estimator.errors import LoraSizeError, UsageError
from estimator.jobs.base import BaseCache, Progress
from estimator.jobs.estimate import estimate, with_config_file
from estimator.jobs.plan import fits, memory_of
from estimator.request.request import Request
from estimator.sizes.training import Training

MAX_CASES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One point of a sweep; `error` in place of numbers where it was refused."""

    model: str
    targets: str | None
    base_precision: str | None
    r: int
    parameters: int | None = None
    file_bytes: int | None = None
    device_bytes: int | None = None  # the middle of what the device would show
    fits: str | None = None
    error: str | None = None


def sweep(
    request: Request,
    *,
    models: Sequence[str],
    targets: Sequence[str | None],
    precisions: Sequence[str | None],
    ranks: Sequence[int],
    training: Training,
    gpu_memory: int | None = None,
    progress: Progress = None,
) -> Iterator[Case]:
    """Every case in order, models outermost and ranks innermost. Raises UsageError where there are too many."""
    count = len(models) * len(targets) * len(precisions) * len(ranks)
    if not 0 < count <= MAX_CASES:
        way_out = f"name at least one of each, and at most {MAX_CASES:,} together"
        raise UsageError(f"this sweep has {count:,} cases.", where="--model, --targets, --r", way_out=way_out)
    request = with_config_file(request)
    bases = BaseCache()
    for model, target, precision, rank in product(models, targets, precisions, ranks):
        case = Case(model=model, targets=target, base_precision=precision, r=rank)
        changed = replace(
            request,
            model=model,
            r=rank,
            targets=target if target is not None else request.targets,
            base_precision=precision or request.base_precision,
        )
        try:
            yield _answered(case, changed, bases, training, gpu_memory, progress)
        except LoraSizeError as error:
            yield replace(case, error=error.what)


def _answered(
    case: Case, request: Request, bases: BaseCache, training: Training, gpu_memory: int | None, progress: Progress
) -> Case:
    answer = estimate(request, bases=bases, progress=progress)
    case = replace(case, parameters=answer.adaptation.trainable_parameters, file_bytes=answer.file_bytes)
    try:
        memory = memory_of(answer, training)
    except LoraSizeError as error:  # the memory alone is not known
        return replace(case, error=error.what)
    return replace(
        case,
        device_bytes=memory.device.expected,
        fits=None if gpu_memory is None else fits(memory, gpu_memory),
    )
