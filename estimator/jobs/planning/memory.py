"""The memory of a training run for one estimate: what it takes of the answer, and what it assumes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace
from itertools import takewhile
from math import prod
from typing import NamedTuple

from estimator.architecture.module import Module, ModuleTree, QuantisedLayer, named_parameters
from estimator.dtypes import BITS
from estimator.errors import UsageError
from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate
from estimator.jobs.planning.plan_notes import expert_elements
from estimator.lora.outcome import HeldTensor
from estimator.lora.tensors import PREFIX
from estimator.report.answer import Answer
from estimator.request.request import Request
from estimator.sizes.memory.blocks import is_repeated, on_the_tape
from estimator.sizes.memory.optimizers import Trained
from estimator.sizes.memory.peak import BaseInMemory, Memory, training_memory
from estimator.sizes.memory.shape import Shape
from estimator.sizes.memory.training import Adapter, Training

_LORA = re.compile(r"\.(?:lora_|ranknum)\w*(?:\.\w+)*$")
_INSIDE = re.compile(r"\.(?:base_layer|original_module|modules_to_save(?:\.default)?|token_adapter)(?=\.|$)")


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
    answer = estimate(assumed, bases=bases)
    memory = memory_of(answer, training, bases)
    return with_weights(memory, as_float32(assumed, answer, bases)), assumed.dtype


def as_float32(request: Request, answer: Answer, bases: BaseCache) -> int:
    """Bytes by which the weights of this answer, whose dtype is assumed, would be larger in float32."""
    larger = estimate(request._replace(dtype="fp32"), bases=bases)
    as_larger, as_assumed = (
        (each.base.loaded.footprint_bytes or 0) + _bytes_of_rows(each) for each in (larger, answer)
    )
    return as_larger - as_assumed


def with_weights(memory: Memory, more: int) -> Memory:
    """Weights that are not exact: so many bytes more at most."""
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
    """What this estimate says of a run's memory, whatever its settings. Raises UsageError where it can't be said."""
    adaptation = answer.adaptation
    if not adaptation.trainable_parameters:
        what = "nothing trains in this run: its config freezes all of it."
        raise UsageError(what, where="--config", way_out="see the notes of an estimate with this config")
    base, shape = _base_in_memory(answer), bases.shape(answer.tree)
    if adaptation.vocabulary and shape.vocabulary:
        shape = replace(shape, vocabulary=adaptation.vocabulary)
    return Loaded(shape, base, _adapter(answer, shape), trained_of(answer))


def _adapter(answer: Answer, shape: Shape) -> Adapter:
    adaptation, config = answer.adaptation, answer.adaptation.config or {}
    held, ranks = adaptation.held(), {m.name: m.rank for m in adaptation.modules if m.rank is not None}
    trained = [(tensor, _in_memory(tensor, answer)) for tensor in held if tensor.trains]
    frozen = [tensor for tensor in held if not tensor.trains]
    first = next((tensor for tensor in held if _LORA.search(tensor.name)), None)
    adapted = {_lora_of(tensor)[0] for tensor, _ in trained} & ranks.keys() if frozen else ranks.keys()
    others = [tensor for tensor, _ in trained if not _LORA.search(tensor.name)]
    rows = frozenset(m.name for m in adaptation.modules if m.what == "TrainableTokensWrapper")
    opened = rows | {_module_of(tensor) for tensor in others if not tensor.name.endswith(".bias")}
    head = answer.tree.output_embedding
    table = answer.tree.tied.get(f"{head}.weight")
    if head and table and table.rpartition(".")[0] in {_module_of(t) for t in others if not t.added}:
        opened |= {head}
    behind = {head, shape.final_norm, *_classifiers(answer.tree)}

    def place(tensor: HeldTensor) -> int:
        """-1 before the layers, 1 behind them."""
        name = _INSIDE.sub("", _lora_of(tensor)[0] or _module_of(tensor))
        return 0 if is_repeated(name) else 1 if name in behind else -1

    placed = [(place(tensor), _bytes(p)) for tensor, p in trained]
    return Adapter(
        ranks=ranks,
        parameters=adaptation.trainable_parameters,
        parameter_bytes=sum(_bytes(p) for _, p in trained),
        base_bytes=sum(_bytes(p) for tensor, p in trained if not tensor.added),
        behind_bytes=sum(size for at, size in placed if at > 0),
        before_bytes=sum(size for at, size in placed if at < 0),
        frozen=tuple(_in_memory(tensor, answer) for tensor in frozen),
        still=frozenset(ranks) - adapted,
        still_down=_with(frozen, "A"),
        still_up=_with(frozen, "B"),
        biased_up=_with((t for t, _ in trained), "B.bias") if config.get("lora_bias") else frozenset(),
        opened=opened,
        biased=frozenset(_module_of(tensor) for tensor in others if tensor.name.endswith(".bias")),
        open_norms=frozenset(map(_module_of, others)) - {""},
        rows=rows,
        width=BITS[first.dtype] // 8 if first else 4,
        dropout=float(config.get("lora_dropout") or 0),
        dora=bool(config.get("use_dora")),
        wrapped={
            m.name: (m.in_features or 0) * (m.out_features or 0) for m in adaptation.modules if m.what == "ParamWrapper"
        },
        trains_before=_trains_before(
            answer, shape, {_module_of(t) for t in others} | {_INSIDE.sub("", n) for n in adapted}
        ),
    )


def trained_of(answer: Answer) -> list[Trained]:
    """What the optimizer holds."""
    embeddings = {f"{m.name}.weight" for m in answer.tree.modules if m.kind == "Embedding"}
    trained = [tensor for tensor in answer.adaptation.held() if tensor.trains]
    return [_in_memory(t, answer)._replace(embeds=_parameter_of(t) in embeddings) for t in trained]


def added_bytes(answer: Answer) -> int:
    """Of what the adapter adds to the base in memory, frozen parts included."""
    return sum(_bytes(_in_memory(tensor, answer)) for tensor in answer.adaptation.held() if tensor.added)


def _in_memory(tensor: HeldTensor, answer: Answer) -> Trained:
    """prepare_model_for_kbit_training makes float32 of what is the base's own and not packed."""
    width = BITS[tensor.dtype] // 8
    return Trained(tuple(tensor.shape), 4 if not tensor.added and width == 2 and _is_prepared(answer) else width)


def _bytes(parameter: Trained) -> int:
    return prod(parameter.shape) * parameter.width


def _module_of(tensor: HeldTensor) -> str:
    """The base's name of the module that holds a tensor."""
    return _parameter_of(tensor).rpartition(".")[0]


def _parameter_of(tensor: HeldTensor) -> str:
    """The base's name of a tensor."""
    holder, dot, name = tensor.name.removeprefix(PREFIX).rpartition(".")
    return _INSIDE.sub("", holder) + dot + name


def _with(tensors: Iterable[HeldTensor], part: str) -> frozenset[str]:
    """The adapted modules whose lora_A, lora_B or lora_B.bias is among these; an embedding's matrices as well."""
    named = map(_lora_of, tensors)
    return frozenset(name for name, last in named if last.removeprefix("embedding_").removesuffix(".weight") == part)


def _lora_of(tensor: HeldTensor) -> tuple[str, str]:
    """The adapted module that a tensor of LoRA's is on, and which one it is: "A.weight"."""
    name, _, last = tensor.name.removeprefix(PREFIX).rpartition(".lora_")
    return name, last


def _is_prepared(answer: Answer) -> bool:
    loaded = answer.base.loaded
    return (loaded.prepared_footprint_bytes or 0) > (loaded.footprint_bytes or 0)


def _base_in_memory(answer: Answer) -> BaseInMemory:
    """Raises UsageError where the base's bytes are not known."""
    loaded, packed = answer.base.loaded, _packed(answer)
    footprint, prepared = loaded.footprint_bytes, loaded.prepared_footprint_bytes
    if footprint is None:
        what, way_out = (
            "the dtype in which the base is stored is not known.",
            "say --dtype bf16, or --online to read the headers",
        )
        raise UsageError(what, where="--base-precision", way_out=way_out)
    return BaseInMemory(
        weight_bytes=(footprint if prepared is None else prepared) + (loaded.state_bytes or 0) + _bytes_of_rows(answer),
        outer_bytes=(_outer_elements(answer) + answer.adaptation.rows_parameters) * BITS[loaded.dtype or "F32"] // 8,
        width=BITS[loaded.dtype or "F32"] // 8,
        is_half=loaded.dtype == "F16",
        packed=frozenset(module.name for module in packed),
        kbit=_is_prepared(answer),
        expert_elements=expert_elements(answer) if packed else 0,
        packed_bytes=_packed_bytes(packed, answer.base.model.quantised),
        ties_head=f"{answer.tree.output_embedding}.weight" in answer.tree.tied,
    )


def _bytes_of_rows(answer: Answer) -> int:
    """Bytes that a vocabulary of another size adds to the base, in its own dtype; negative where rows fall away."""
    width = 4 if _is_prepared(answer) else BITS[answer.base.loaded.dtype or "F32"] // 8
    return answer.adaptation.rows_parameters * width


def _trains_before(answer: Answer, shape: Shape, trained: Set[str]) -> bool:
    """Whether anything trains but what stands in the layers, or behind them."""
    tree = answer.tree
    embeds = any(m.name == tree.input_embedding and m.parameters for m in answer.adaptation.modules)
    inside = set().union(*map(on_the_tape, shape.blocks))
    return embeds or not trained <= {*inside, tree.output_embedding, shape.final_norm, *_classifiers(tree)}


def _classifiers(tree: ModuleTree) -> Iterator[str]:
    """Matrices behind all layers, and beside the model that holds them: what a task puts on it."""
    behind = [*takewhile(lambda module: not is_repeated(module.name), reversed(tree.modules))]
    models = {module.name.partition(".")[0] for module in tree.modules[: len(tree.modules) - len(behind)]}
    return (m.name for m in behind if m.kind == "Linear" and m.name.partition(".")[0] not in models)


def _outer_elements(answer: Answer) -> int:
    """Elements of what stands outside the repeated layers; tied ones once."""
    modules = [m for m in answer.tree.modules if not is_repeated(m.name)]
    return sum(prod(own.shape) for name, own in named_parameters(modules) if name not in answer.tree.tied)


def _packed(answer: Answer) -> list[Module]:
    """The matrices that are quantised; attention whose cache has scales, embeddings and fused experts are others."""
    quantised = answer.base.model.quantised
    return [m for m in answer.tree.modules if m.name in quantised and m.kind in ("Linear", "Conv1D") and m.parameters]


def _packed_bytes(packed: Iterable[Module], quantised: Mapping[str, QuantisedLayer]) -> float:
    """Bytes of an element of these matrices: all that stands in a weight's place; 0 where there are none."""
    elements = held = 0
    for module in packed:
        weight, *rest = module.parameters
        layer, beside = quantised[module.name], {parameter.name for parameter in rest}
        parts = [part for part in (*layer.parameters, *layer.buffers) if part.name not in beside]
        elements += prod(weight.shape)
        held += sum(prod(part.shape) * BITS[part.dtype] // 8 for part in parts) + layer.state_bytes
    return held / elements if elements else 0.0
