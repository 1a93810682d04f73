"""The memory and disk of a training run, whether it fits, and the largest that does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from estimator.dtypes import BITS
from estimator.errors import LoraSizeError, UsageError
from estimator.jobs.base import BaseCache, Progress
from estimator.jobs.estimate import estimate, with_config_file
from estimator.notes import Note
from estimator.report.answer import Answer
from estimator.request.request import Request
from estimator.sizes.base import state_bytes, weight_bytes
from estimator.sizes.blocks import shape_of, text_config
from estimator.sizes.memory import BaseInMemory, Memory, training_memory
from estimator.sizes.optimizers import Trained
from estimator.sizes.optimizers import state_bytes as optimizer_bytes
from estimator.sizes.training import Adapter, Training

MAX_BATCH, MAX_LENGTH, MAX_RANK = 4096, 2**20, 4096


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
    largest: dict[str, int | None]
    changes: tuple[tuple[str, int], ...]  # what would save memory: in words, bytes of the middle, best first
    disk: dict[str, int | None]
    notes: tuple[Note, ...] = ()


def plan(request: Request, training: Training, gpu_memory: int | None = None, progress: Progress = None) -> Plan:
    """Raises what an estimate raises, and UsageError where the base's bytes are not known."""
    request = with_config_file(request)
    bases = BaseCache()
    answer = estimate(request, bases=bases, progress=progress)
    assumed: tuple[Note, ...] = ()
    if answer.base.loaded.footprint_bytes is None:
        request, assumed = replace(request, dtype="bf16"), (_ASSUMED_DTYPE,)
        answer = estimate(request, bases=bases, progress=progress)
    memory = memory_of(answer, training)
    if assumed:
        memory = _with_assumed_weights(memory)
    ask = _asker(request, training, bases, answer)
    return Plan(
        answer=answer,
        training=training,
        memory=memory,
        gpu_memory=gpu_memory,
        fits=None if gpu_memory is None else fits(memory, gpu_memory),
        largest=_largest(answer, training, gpu_memory, ask),
        changes=_changes(answer, training, memory, ask),
        disk=_disk(answer, training),
        notes=(*assumed, *_notes(answer)),
    )


def _with_assumed_weights(memory: Memory) -> Memory:
    """Weights whose dtype is assumed are not exact; float32 would double them."""
    components = tuple(
        part._replace(upper_bytes=2 * part.upper_bytes, basis="modelled") if part.name == "base weights" else part
        for part in memory.components
    )
    return replace(memory, components=components)


def memory_of(answer: Answer, training: Training) -> Memory:
    """Bytes on each GPU for this estimate and run."""
    base, adaptation = answer.base, answer.adaptation
    footprint = base.loaded.footprint_bytes
    if footprint is None:
        way_out = "say --dtype bf16, or --online to read the headers"
        raise UsageError(
            "the dtype in which the base is stored is not known.", where="--base-precision", way_out=way_out
        )
    trained = [Trained(tuple(t.shape), BITS[t.dtype] // 8) for t in adaptation.tensors]
    quantised = {m.name: prod(m.parameters[0].shape) for m in answer.tree.modules if m.name in base.model.quantised}
    return training_memory(
        shape_of(answer.tree),
        BaseInMemory(
            weight_bytes=footprint + (base.loaded.state_bytes or 0),
            width=BITS[base.loaded.dtype or "F32"] // 8,
            largest_quantised=max(quantised.values(), default=0),
            kbit=_is_kbit(answer),
            expert_elements=_expert_elements(answer) if quantised else 0,
        ),
        Adapter(
            ranks={m.name: m.rank for m in adaptation.modules if m.rank is not None},
            parameters=adaptation.trainable_parameters,
            parameter_bytes=sum(prod(t.shape) * t.width for t in trained),
            width=trained[0].width if trained else 4,
            dropout=float((adaptation.config or {}).get("lora_dropout") or 0),
        ),
        trained,
        training,
    )


def _notes(answer: Answer) -> Iterator[Note]:
    experts = _expert_elements(answer)
    if experts and answer.base.model.quantised:
        yield Note(
            "experts_unquantised",
            f"The {experts:,} weights of this model's fused experts stay unquantised in transformers 5; earlier "
            "releases kept experts one by one and quantised them: the lower bound allows for that.",
        )
    linear = {module.name for module in answer.tree.modules if module.kind in ("Linear", "Conv1D")}
    if any(module.name not in linear for module in answer.adaptation.modules if "expert" in module.name):
        yield Note(
            "adapted_experts_not_modelled",
            "LoRA on fused experts builds the changed weight of every expert in each forward pass; that memory is not "
            "counted here.",
        )


def largest_rank(
    request: Request, *, max_file_bytes: int | None, max_parameters: int | None, progress: Progress = None
) -> int | None:
    """The largest r whose adapter stays within both limits; None where r 1 does not. Raises what an estimate raises."""
    request = with_config_file(request)
    bases = BaseCache()
    estimate(replace(request, r=1), bases=bases, progress=progress)

    def holds(rank: int) -> bool:
        try:
            answer = estimate(replace(request, r=rank), bases=bases)
        except LoraSizeError:
            return False
        small = max_parameters is None or answer.adaptation.trainable_parameters <= max_parameters
        return small and (max_file_bytes is None or (answer.file_bytes or 0) <= max_file_bytes)

    return largest_value(holds, MAX_RANK)


def _is_kbit(answer: Answer) -> bool:
    """Whether prepare_model_for_kbit_training has made float32 of the rest: its bytes are in what is loaded."""
    loaded, model = answer.base.loaded, answer.base.model
    plain = weight_bytes(model) + state_bytes(model)
    return bool(model.quantised) and loaded.weight_bytes is not None and loaded.weight_bytes > plain


def _expert_elements(answer: Answer) -> int:
    """Elements of fused experts, which bitsandbytes leaves alone today and packed when they stood one by one."""
    return sum(
        prod(p.shape) for m in answer.tree.modules if m.kind == "other" for p in m.parameters if len(p.shape) == 3
    )


def fits(memory: Memory, gpu_memory: int) -> str:
    """Judged on what the device would show: "yes" under the upper bound, "no" over the lower, else "maybe"."""
    if memory.device.upper <= gpu_memory:
        return "yes"
    return "no" if memory.device.lower > gpu_memory else "maybe"


Ask = Callable[..., Memory | None]


def _asker(request: Request, training: Training, bases: BaseCache, answer: Answer) -> Ask:
    """A function from changed settings to memory; None where the change would be refused."""

    def ask(changes: dict[str, Any] | None = None, **settings: Any) -> Memory | None:
        try:
            changed = answer if not changes else estimate(replace(request, **changes), bases=bases)
            return memory_of(changed, replace(training, **settings))
        except LoraSizeError:
            return None

    return ask


def _largest(answer: Answer, training: Training, gpu_memory: int | None, ask: Ask) -> dict[str, int | None]:
    """The largest value that surely fits, the rest held; None where even the smallest does not."""
    if gpu_memory is None:
        return {"batch_size": None, "sequence_length": None, "r": None}

    def sure(memory: Memory | None) -> bool:
        return memory is not None and fits(memory, gpu_memory) == "yes"

    longest = _longest(answer)
    return {
        "batch_size": largest_value(lambda n: sure(ask(batch_size=n)), MAX_BATCH),
        "sequence_length": largest_value(lambda n: sure(ask(sequence_length=n)), longest),
        "r": largest_value(lambda n: sure(ask({"r": n})), MAX_RANK),
    }


def _longest(answer: Answer) -> int:
    return int(text_config(answer.tree.config).get("max_position_embeddings") or MAX_LENGTH)


def largest_value(holds: Callable[[int], bool], limit: int) -> int | None:
    """The largest n of 1..limit for which `holds`, which must not hold again above where it failed; None for no n."""
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


def _changes(answer: Answer, training: Training, memory: Memory, ask: Ask) -> tuple[tuple[str, int], ...]:
    """What would make it smaller, with the bytes of the middle that it saves, best first."""
    tries: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("half the sequence length", {}, {"sequence_length": max(training.sequence_length // 2, 1)}),
    ]
    if training.batch_size > 1:
        tries.append(("half the batch, twice the accumulation", {}, {"batch_size": training.batch_size // 2}))
    if not training.gradient_checkpointing:
        tries.append(("--gradient-checkpointing", {}, {"gradient_checkpointing": True}))
    if training.loss == "standard":
        tries.append(("--loss fused", {}, {"loss": "fused"}))
    if training.optimizer.startswith("adamw_torch"):
        tries.append(("--optimizer adamw_bnb_8bit", {}, {"optimizer": "adamw_bnb_8bit"}))
    if not answer.base.model.quantised:
        tries.append(("--base-precision nf4 --double-quant", {"base_precision": "nf4", "double_quant": True}, {}))
    saved = []
    for words, changes, settings in tries:
        changed = ask(changes, **settings)
        if changed is not None and changed.device.expected < memory.device.expected:
            saved.append((words, memory.device.expected - changed.device.expected))
    return tuple(sorted(saved, key=lambda item: -item[1]))


def _disk(answer: Answer, training: Training) -> dict[str, int | None]:
    adaptation, file_bytes = answer.adaptation, answer.file_bytes
    states = optimizer_bytes(
        training.optimizer, [Trained(tuple(t.shape), BITS[t.dtype] // 8) for t in adaptation.tensors]
    )
    checkpoint = None if file_bytes is None else file_bytes + states
    if checkpoint is not None and training.strategy.startswith("zero"):
        checkpoint += answer.base.loaded.weight_bytes or 0
    stored = [file.actual_bytes for file in answer.found.files]
    known = stored and None not in stored
    download = sum(size for size in stored if size) if known else answer.base.checkpoint_bytes
    return {"adapter_bytes": file_bytes, "checkpoint_bytes": checkpoint, "download_bytes": download}
