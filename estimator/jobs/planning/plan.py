"""The memory and disk of a training run, whether it fits, and the largest that does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from estimator.errors import LoraSizeError
from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate, with_config_file
from estimator.jobs.planning.changes import Change, changes
from estimator.jobs.planning.disk import disk
from estimator.jobs.planning.largest import fits, largest, likely_fits
from estimator.jobs.planning.memory import as_float32, loaded_of, with_weights
from estimator.jobs.planning.plan_notes import notes_of, software_notes, stops
from estimator.notes import Note
from estimator.report.answer import Answer
from estimator.request.request import Request
from estimator.sizes.memory.peak import Memory, implied_software, training_memory
from estimator.sizes.memory.training import Software, Training

_ASSUMED_DTYPE = Note(
    "dtype_assumed",
    "The dtype in which this base is stored is not known without its headers: bf16 is assumed, --dtype says another.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    answer: Answer
    training: Training
    memory: Memory
    gpu_memory: int | None
    fits: str | None  # "yes" | "no" | "maybe"; None without a GPU
    likely_fits: bool | None  # the same of the middle; None also where something without a ceiling is not in it
    largest: dict[str, int | None]
    changes: tuple[Change, ...]  # what would save memory, best first; () where it fits
    together: tuple[str, ...]  # changes that make it fit, made one after the other; () where none do, or it fits
    disk: dict[str, int | None]
    notes: tuple[Note, ...] = ()


def plan(
    request: Request, training: Training, gpu_memory: int | None = None, *, save_total_limit: int | None = None
) -> Plan:
    """Raises what an estimate raises, and UsageError where the base's bytes are not known."""
    request, bases, answer, assumed = sized(request)
    asked, shape = _Asked(request, training, bases, answer, assumed=bool(assumed)), bases.shape(answer.tree)
    memory = asked.memory()
    judged = None if gpu_memory is None else fits(memory, gpu_memory)
    most = largest(answer, shape, gpu_memory, asked.ask)
    singles, together = ((), ()) if judged == "yes" else changes(answer, training, memory, gpu_memory, asked.ask)
    return Plan(
        answer=answer,
        training=training,
        memory=memory,
        gpu_memory=gpu_memory,
        fits=judged,
        likely_fits=None if gpu_memory is None else likely_fits(memory, gpu_memory),
        largest=most,
        changes=singles,
        together=together,
        disk=disk(answer, training, asked.loaded.trained, save_total_limit),
        notes=(
            *assumed,
            *software_notes(training, asked.software),
            *notes_of(answer, shape, training, most["sequence_length"], memory.unplaced),
            *stops(most),
        ),
    )


def sized(request: Request) -> tuple[Request, BaseCache, Answer, tuple[Note, ...]]:
    """The request, and an answer in which the base's bytes are known: bf16 is assumed where nothing says its dtype."""
    request = with_config_file(request)
    bases = BaseCache()
    answer = estimate(request, bases=bases)
    if answer.base.loaded.footprint_bytes is not None:
        return request, bases, answer, ()
    request = request._replace(dtype="bf16")
    return request, bases, estimate(request, bases=bases), (_ASSUMED_DTYPE,)


class _Asked:
    """A plan's questions: the memory of the same run, in the same software, under other settings."""

    def __init__(
        self, request: Request, training: Training, bases: BaseCache, answer: Answer, *, assumed: bool
    ) -> None:
        self._request, self._bases = request, bases
        self.loaded = loaded_of(answer, bases)
        self.software: Software = training.software or implied_software(training, self.loaded.base)
        self._training = replace(training, software=self.software)
        self._more = as_float32(request, answer, bases) if assumed else None

    def memory(self, changes: dict[str, Any] | None = None, **settings: Any) -> Memory:
        """Raises what an estimate raises, and what `memory_of` raises."""
        request = self._request._replace(**changes) if changes else self._request
        loaded = loaded_of(estimate(request, bases=self._bases), self._bases) if changes else self.loaded
        memory = training_memory(*loaded, replace(self._training, **settings))
        return memory if self._more is None else with_weights(memory, self._more)

    def ask(self, changes: dict[str, Any] | None = None, **settings: Any) -> Memory | None:
        """None where the change would be refused."""
        try:
            return self.memory(changes, **settings)
        except LoraSizeError:
            return None
