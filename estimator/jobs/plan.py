"""The memory and disk of a training run, whether it fits, and the largest that does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from estimator.dtypes import BITS
from estimator.errors import LoraSizeError, UnsupportedError, UsageError
from estimator.jobs.base import BaseCache, Progress
from estimator.jobs.changes import Change, changes
from estimator.jobs.disk import disk
from estimator.jobs.estimate import estimate, with_config_file
from estimator.jobs.largest import Ask, fits, largest
from estimator.jobs.plan_notes import expert_elements, notes_of
from estimator.notes import Note
from estimator.report.answer import Answer
from estimator.request.request import Request
from estimator.sizes.blocks import is_repeated
from estimator.sizes.memory import BaseInMemory, Memory, training_memory
from estimator.sizes.optimizers import Trained
from estimator.sizes.shape import shape_of
from estimator.sizes.training import Adapter, Training

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
    changes: tuple[Change, ...]  # what would save memory, best first; () where it fits
    together: tuple[str, ...]  # changes that make it fit, made one after the other; () where none do, or it fits
    disk: dict[str, int | None]
    notes: tuple[Note, ...] = ()


def plan(
    request: Request,
    training: Training,
    gpu_memory: int | None = None,
    progress: Progress = None,
    *,
    save_total_limit: int | None = None,
) -> Plan:
    """Raises what an estimate raises, and UsageError where the base's bytes are not known."""
    request, bases, answer, assumed = sized(request, progress)
    ask = _asker(request, training, bases, answer, assumed=bool(assumed))
    memory = ask()
    if memory is None:
        memory = memory_of(answer, training)  # raises what is wrong
    judged = None if gpu_memory is None else fits(memory, gpu_memory)
    most = largest(answer, gpu_memory, ask)
    singles, together = ((), ()) if judged == "yes" else changes(answer, training, memory, gpu_memory, ask)
    return Plan(
        answer=answer,
        training=training,
        memory=memory,
        gpu_memory=gpu_memory,
        fits=judged,
        largest=most,
        changes=singles,
        together=together,
        disk=disk(answer, training, trained_of(answer), save_total_limit),
        notes=(*assumed, *notes_of(answer, training, most["sequence_length"])),
    )


def sized(request: Request, progress: Progress = None) -> tuple[Request, BaseCache, Answer, tuple[Note, ...]]:
    """The request, and an answer in which the base's bytes are known: bf16 is assumed where nothing says its dtype."""
    request = with_config_file(request)
    bases = BaseCache()
    answer = estimate(request, bases=bases, progress=progress)
    if answer.base.loaded.footprint_bytes is not None:
        return request, bases, answer, ()
    request = request._replace(dtype="bf16")
    return request, bases, estimate(request, bases=bases, progress=progress), (_ASSUMED_DTYPE,)


def memory_or_assumed(
    request: Request, answer: Answer, training: Training, bases: BaseCache
) -> tuple[Memory, str | None]:
    """The memory, and the dtype that was assumed of the base where nothing says it."""
    if answer.base.loaded.footprint_bytes is not None:
        return memory_of(answer, training), None
    assumed = request._replace(dtype="bf16")
    memory = memory_of(estimate(assumed, bases=bases), training)
    return _with_assumed_weights(memory, assumed, bases), assumed.dtype


def _with_assumed_weights(memory: Memory, request: Request, bases: BaseCache) -> Memory:
    """Weights whose dtype is assumed are not exact: the ceilings are those of float32."""
    as_assumed, as_float32 = (
        estimate(request._replace(dtype=dtype), bases=bases).base.loaded.footprint_bytes or 0
        for dtype in ("bf16", "fp32")
    )
    more = as_float32 - as_assumed
    components = tuple(
        part._replace(upper_bytes=part.upper_bytes + more, basis="modelled") if part.name == "base weights" else part
        for part in memory.components
    )
    peaks = {name: getattr(memory, name) for name in ("allocated", "reserved", "device")}
    raised = {name: peak._replace(upper=peak.upper + more) for name, peak in peaks.items()}
    return replace(memory, components=components, **raised)


def memory_of(answer: Answer, training: Training) -> Memory:
    """Bytes on each GPU for this estimate and run.

    Raises UsageError where they can't be said, UnsupportedError where a part of the adapter is frozen.
    """
    base, adaptation = answer.base, answer.adaptation
    if not adaptation.trainable_parameters:
        what = "nothing trains in this run: its config freezes all of it."
        raise UsageError(what, where="--config", way_out="see the notes of an estimate with this config")
    footprint, prepared = base.loaded.footprint_bytes, base.loaded.prepared_footprint_bytes
    if footprint is None:
        way_out = "say --dtype bf16, or --online to read the headers"
        raise UsageError(
            "the dtype in which the base is stored is not known.", where="--base-precision", way_out=way_out
        )
    if adaptation.frozen_parameters or adaptation.trainable_parameters > sum(adaptation.parameters_by_part.values()):
        what = "its config freezes a part of the adapter, or trains the base beside it: that memory is not known."
        raise UnsupportedError(what, where="--config", way_out="ask for an estimate, or leave out what freezes")
    trained = trained_of(answer)
    quantised = frozenset(base.model.quantised)
    experts = expert_elements(answer) if quantised else 0
    return training_memory(
        shape_of(answer.tree),
        BaseInMemory(
            weight_bytes=(footprint if prepared is None else prepared) + (base.loaded.state_bytes or 0),
            outer_bytes=_outer_elements(answer) * BITS[base.loaded.dtype or "F32"] // 8,
            width=BITS[base.loaded.dtype or "F32"] // 8,
            packed=quantised,
            kbit=prepared is not None and prepared > footprint,
            expert_elements=experts,
            packed_bytes=_packed_bytes(answer),
            ties_head=f"{answer.tree.output_embedding}.weight" in answer.tree.tied,
        ),
        Adapter(
            ranks={m.name: m.rank for m in adaptation.modules if m.rank is not None},
            parameters=adaptation.trainable_parameters,
            parameter_bytes=sum(prod(t.shape) * t.width for t in trained),
            width=trained[0].width if trained else 4,
            dropout=float((adaptation.config or {}).get("lora_dropout") or 0),
            dora=bool((adaptation.config or {}).get("use_dora")),
            wrapped={m.name: m.in_features * m.out_features for m in adaptation.modules if m.what == "ParamWrapper"},
            trains_before=_trains_before(answer),
        ),
        trained,
        training,
    )


def _trains_before(answer: Answer) -> bool:
    """Whether anything but LoRA's matrices in the layers, and the head, needs gradients of what comes in."""
    tree, adaptation = answer.tree, answer.adaptation
    whole = {m.name for m in adaptation.modules if m.rank is None} - {tree.output_embedding}
    embeds = any(m.name == tree.input_embedding for m in adaptation.modules)
    return bool(whole) or embeds or (adaptation.config or {}).get("bias", "none") != "none"


def _outer_elements(answer: Answer) -> int:
    """Elements of what stands outside the repeated layers; tied ones once."""
    modules = [m for m in answer.tree.modules if not is_repeated(m.name)]
    return sum(prod(p.shape) for m in modules for p in m.parameters if f"{m.name}.{p.name}" not in answer.tree.tied)


def _packed_bytes(answer: Answer) -> float:
    """Bytes of an element of the packed matrices, quantisation state included; 0 where there are none."""
    quantised = answer.base.model.quantised
    elements = sum(prod(m.parameters[0].shape) for m in answer.tree.modules if m.name in quantised)
    weights = (layer.parameters[0] for layer in quantised.values())
    held = sum(prod(p.shape) * BITS[p.dtype] // 8 for p in weights) + sum(q.state_bytes for q in quantised.values())
    return held / elements if elements else 0.0


def trained_of(answer: Answer) -> list[Trained]:
    """What the optimizer holds: what is saved, without the embeddings that are saved along and stay frozen."""
    adaptation = answer.adaptation
    saved = [t for t in adaptation.tensors if t.part != "embeddings"]
    if not saved and adaptation.trainable_parameters:  # PEFT can train, and not save
        return [Trained((adaptation.trainable_parameters,), 4)]
    return [Trained(tuple(t.shape), BITS[t.dtype] // 8) for t in saved]


def _asker(request: Request, training: Training, bases: BaseCache, answer: Answer, *, assumed: bool) -> Ask:
    """A function from changed settings to memory; None where the change would be refused."""

    def ask(changes: dict[str, Any] | None = None, **settings: Any) -> Memory | None:
        changed = request._replace(**changes) if changes else request
        try:
            found = estimate(changed, bases=bases) if changes else answer
            memory = memory_of(found, replace(training, **settings))
            return _with_assumed_weights(memory, changed, bases) if assumed else memory
        except LoraSizeError:
            return None

    return ask
