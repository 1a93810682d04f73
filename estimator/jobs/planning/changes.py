"""What would make a run smaller: each change with the bytes it saves, and the changes that together make it fit."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from estimator.jobs.planning.largest import Ask, fits, likely_fits
from estimator.report.answer import Answer
from estimator.sizes.memory.peak import Memory
from estimator.sizes.memory.training import Training

_EIGHT_BITS = "adamw_bnb_8bit"


class Step(NamedTuple):
    """One change, as options of the request and of the run."""

    words: str
    request: dict[str, Any]
    run: dict[str, Any]


class Change(NamedTuple):
    """One thing to do otherwise, and what it would save."""

    words: str
    saves_bytes: int  # of the middle of what the device shows
    fits: str | None  # with this change alone; None without a GPU
    likely_fits: bool | None


def changes(
    answer: Answer, training: Training, memory: Memory, gpu_memory: int | None, ask: Ask
) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    """Single changes, best first; and the fewest of the best that together surely fit, () where none do."""
    tried = [(step, ask(step.request, **step.run)) for step in _steps(answer, training)]
    helping = [(step, after) for step, after in tried if after and after.device.expected < memory.device.expected]
    helping.sort(key=lambda pair: pair[1].device.expected)
    singles = tuple(
        Change(
            step.words,
            memory.device.expected - after.device.expected,
            None if gpu_memory is None else fits(after, gpu_memory),
            None if gpu_memory is None else likely_fits(after, gpu_memory),
        )
        for step, after in helping
    )
    return singles, _together([step for step, _ in helping], gpu_memory, ask)


def _together(steps: list[Step], gpu_memory: int | None, ask: Ask) -> tuple[str, ...]:
    """Best first, one more at a time until it fits; of two that set the same option the better one is kept."""
    if gpu_memory is None:
        return ()
    words: list[str] = []
    request: dict[str, Any] = {}
    run: dict[str, Any] = {}
    for step in steps:
        if (step.request.keys() & request.keys()) or (step.run.keys() & run.keys()):
            continue
        words.append(step.words)
        request, run = {**request, **step.request}, {**run, **step.run}
        memory = ask(request, **run)
        if memory is not None and fits(memory, gpu_memory) == "yes":
            return tuple(words)
    return ()


def _steps(answer: Answer, training: Training) -> Iterator[Step]:
    if not answer.base.model.quantised:
        yield Step("--base-precision nf4 --double-quant", {"base_precision": "nf4", "double_quant": True}, {})
        yield Step("--base-precision int8", {"base_precision": "int8"}, {})
    yield from _steps_of_the_adapter(answer)
    yield from _steps_of_the_run(training)


def _steps_of_the_adapter(answer: Answer) -> Iterator[Step]:
    rank = int(answer.adaptation.config.get("r") or 1)
    if rank > 1:
        yield Step(f"--r {rank // 2}", {"r": rank // 2}, {})
    for letters in ("qv", "qkvo"):
        yield Step(f"--targets {letters}", {"targets": letters}, {})
    if any(tensor.dtype == "F32" for tensor in answer.adaptation.tensors) and answer.base.loaded.dtype == "BF16":
        yield Step("--adapter-dtype bf16", {"adapter_dtype": "bf16"}, {})


def _steps_of_the_run(training: Training) -> Iterator[Step]:
    if not training.gradient_checkpointing:
        yield Step("--gradient-checkpointing", {}, {"gradient_checkpointing": True})
    if training.loss in ("standard", "in_place", "in_rows"):
        yield Step("--loss fused", {}, {"loss": "fused"})
    if training.attention == "eager":
        yield Step("--attention sdpa", {}, {"attention": "sdpa"})
    if training.optimizer != _EIGHT_BITS:
        yield Step(f"--optimizer {_EIGHT_BITS}", {}, {"optimizer": _EIGHT_BITS})
    if training.batch_size > 1:
        half, more = training.batch_size // 2, training.gradient_accumulation * 2
        words = f"--batch-size {half} --gradient-accumulation {more}"
        yield Step(words, {}, {"batch_size": half, "gradient_accumulation": more})
    if training.batch_size > 3:
        whole = training.gradient_accumulation * training.batch_size
        words = f"--batch-size 1 --gradient-accumulation {whole}"
        yield Step(words, {}, {"batch_size": 1, "gradient_accumulation": whole})
    if training.sequence_length > 1:
        half = training.sequence_length // 2
        yield Step(f"--sequence-length {half}", {}, {"sequence_length": half})
    for strategy in ("zero2", "zero3", "fsdp"):
        if training.gpus > 1 and training.strategy != strategy:
            yield Step(f"--strategy {strategy}", {}, {"strategy": strategy})
