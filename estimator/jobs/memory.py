"""The memory of a training run for one estimate: what it takes of the answer, and what it assumes."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import NamedTuple

from estimator.dtypes import BITS
from estimator.errors import UnsupportedError, UsageError
from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate
from estimator.jobs.plan_notes import expert_elements
from estimator.report.answer import Answer
from estimator.request.request import Request
from estimator.sizes.blocks import is_repeated
from estimator.sizes.memory import BaseInMemory, Memory, training_memory
from estimator.sizes.optimizers import Trained
from estimator.sizes.shape import Shape
from estimator.sizes.training import Adapter, Training


class Loaded(NamedTuple):
    """What a run's memory depends on beside its settings."""

    shape: Shape
    base: BaseInMemory
    adapter: Adapter
    trained: list[Trained]


def memory_or_assumed(
    request: Request, answer: Answer, training: Training, bases: BaseCache
) -> tuple[Memory, str | None]:
    """The memory, and the dtype that was assumed of the base where nothing says it."""
    if answer.base.loaded.footprint_bytes is not None:
        return memory_of(answer, training, bases), None
    assumed = request._replace(dtype="bf16")
    memory = memory_of(estimate(assumed, bases=bases), training, bases)
    return with_assumed_weights(memory, assumed, bases), assumed.dtype


def with_assumed_weights(memory: Memory, request: Request, bases: BaseCache) -> Memory:
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


def memory_of(answer: Answer, training: Training, bases: BaseCache | None = None) -> Memory:
    """Bytes on each GPU for this estimate and run. Raises what `loaded_of` raises, and what a step's peak raises."""
    return training_memory(*loaded_of(answer, bases or BaseCache()), training)


def loaded_of(answer: Answer, bases: BaseCache) -> Loaded:
    """What this estimate says of a run's memory, whatever its settings.

    Raises UsageError where they can't be said, UnsupportedError where a part of the adapter is frozen.
    """
    adaptation = answer.adaptation
    if not adaptation.trainable_parameters:
        what = "nothing trains in this run: its config freezes all of it."
        raise UsageError(what, where="--config", way_out="see the notes of an estimate with this config")
    if adaptation.frozen_parameters or adaptation.trainable_parameters > sum(adaptation.parameters_by_part.values()):
        what = "its config freezes a part of the adapter, or trains the base beside it: that memory is not known."
        raise UnsupportedError(what, where="--config", way_out="ask for an estimate, or leave out what freezes")
    trained = trained_of(answer)
    config = adaptation.config or {}
    adapter = Adapter(
        ranks={m.name: m.rank for m in adaptation.modules if m.rank is not None},
        parameters=adaptation.trainable_parameters,
        parameter_bytes=sum(prod(t.shape) * t.width for t in trained),
        width=trained[0].width if trained else 4,
        dropout=float(config.get("lora_dropout") or 0),
        dora=bool(config.get("use_dora")),
        wrapped={m.name: m.in_features * m.out_features for m in adaptation.modules if m.what == "ParamWrapper"},
        trains_before=_trains_before(answer),
    )
    return Loaded(bases.shape(answer.tree), _base_in_memory(answer), adapter, trained)


def _base_in_memory(answer: Answer) -> BaseInMemory:
    """Raises UsageError where the base's bytes are not known."""
    loaded, quantised = answer.base.loaded, frozenset(answer.base.model.quantised)
    footprint, prepared = loaded.footprint_bytes, loaded.prepared_footprint_bytes
    if footprint is None:
        what, way_out = (
            "the dtype in which the base is stored is not known.",
            "say --dtype bf16, or --online to read the headers",
        )
        raise UsageError(what, where="--base-precision", way_out=way_out)
    return BaseInMemory(
        weight_bytes=(footprint if prepared is None else prepared) + (loaded.state_bytes or 0),
        outer_bytes=_outer_elements(answer) * BITS[loaded.dtype or "F32"] // 8,
        width=BITS[loaded.dtype or "F32"] // 8,
        packed=quantised,
        kbit=prepared is not None and prepared > footprint,
        expert_elements=expert_elements(answer) if quantised else 0,
        packed_bytes=_packed_bytes(answer),
        ties_head=f"{answer.tree.output_embedding}.weight" in answer.tree.tied,
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
