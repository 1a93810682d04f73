"""LoRA layers and nothing beside them: the outcome without playing through the model at run time.

What is stated here follows from runtime.py and saving.py for a config without modules_to_save, trained tokens,
biases and embeddings that are saved along; most requests are of that kind, and answered many times faster so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple

from estimator.lora.dtypes import is_cast
from estimator.lora.index import TreeIndex
from estimator.lora.inject import Prepared
from estimator.lora.layers import LoraLayer
from estimator.lora.outcome import AdaptedModule, HeldTensor, Outcome
from estimator.lora.tensors import PREFIX, SavedTensor, lora_tensors, state_of, weight_dtype
from estimator.lora.weights import Weight


def needs_run_time(request: Prepared, layers: Sequence[LoraLayer], with_embeddings: bool) -> bool:
    """Whether anything but LoRA's own weights trains, is copied or is saved; adapted embeddings saved along count."""
    config = request.config
    if config.bias != "none" or config.modules_to_save or request.later_saves or request.tied_saves:
        return True
    if config.trainable_token_indices is not None:
        return True
    tree = request.index.tree
    embeddings = [name for name in (tree.input_embedding, tree.output_embedding) if name is not None]
    return with_embeddings and any(
        _lies_in(layer.module, name) or _lies_in(name, layer.module) for layer in layers for name in embeddings
    )


def _lies_in(name: str, around: str) -> bool:
    return name == around or name.startswith(f"{around}.")


def with_layers_alone(
    index: TreeIndex, layers: list[LoraLayer], adapter_dtype: str | None, *, with_embeddings: bool
) -> Outcome:
    """The outcome of layers on modules of `index`. Embeddings that are saved along are not adapted themselves."""
    counted: dict[tuple[int, str], _Counted] = {}  # layers of one shape share their weights
    times: Counter[tuple[int, str]] = Counter()
    modules = []
    for layer in layers:
        kind = id(layer.weights), layer.dtype
        if kind not in counted:
            counted[kind] = _counted(layer, adapter_dtype)
        times[kind] += 1
        modules.append(described(layer.name, layer, counted[kind].own))
    trained: Counter[str] = Counter()
    for kind, one in counted.items():
        trained.update({part: size * times[kind] for part, size in one.trained.items()})
    added = sum(one.added * times[kind] for kind, one in counted.items())
    tensors = lora_tensors(layers, adapter_dtype)
    if with_embeddings:
        tensors += embedding_tensors(index)
    apart = None if all(one.is_plain for one in counted.values()) else tuple(_held(layers, adapter_dtype))
    return Outcome(tuple(modules), trained, index.all_parameters() + added, tuple(tensors), apart=apart)


def _held(layers: Sequence[LoraLayer], adapter_dtype: str | None) -> Iterator[HeldTensor]:
    for layer in layers:
        for weight in layer.weights:
            name = f"{PREFIX}{layer.name}.{weight.suffix}"
            own = weight_dtype(weight, layer, adapter_dtype)
            yield HeldTensor(name, own, weight.shape, trains(weight, layer, adapter_dtype))


class _Counted(NamedTuple):
    """Parameters of one layer."""

    trained: Mapping[str, int]  # by the part of the file
    own: int  # trainable
    added: int
    is_plain: bool  # all of it trains and is saved


def _counted(layer: LoraLayer, adapter_dtype: str | None) -> _Counted:
    trained: Counter[str] = Counter()
    for weight in layer.weights:
        if trains(weight, layer, adapter_dtype):
            trained[weight.part] += prod(weight.shape)
    is_plain = all(weight.saved and trains(weight, layer, adapter_dtype) for weight in layer.weights)
    added = sum(prod(weight.shape) for weight in layer.weights if weight.parameter)
    return _Counted(trained, sum(trained.values()), added, is_plain)


def trains(weight: Weight, layer: LoraLayer, adapter_dtype: str | None) -> bool:
    """A frozen parameter of a ParameterDict trains once autocast has made it anew (see runtime.cast_adapter_dtype)."""
    if not weight.parameter:
        return False
    return weight.trainable or (weight.in_parameter_dict and is_cast(layer.dtype, adapter_dtype))


def described(name: str, layer: LoraLayer, parameters: int) -> AdaptedModule:
    return AdaptedModule(name, layer.kind, layer.what, layer.in_features, layer.out_features, layer.rank, parameters)


def embedding_tensors(index: TreeIndex) -> Iterable[SavedTensor]:
    """The input and output embeddings as they are in the base."""
    named = {}
    for module in (index.tree.input_embedding, index.tree.output_embedding):
        for name in (module, *index.children(module)) if module in index.modules else ():
            for tensor in state_of(index, index.modules[name]):
                key = f"{PREFIX}{name}.{tensor.name}"
                named[key] = SavedTensor(key, tensor.dtype, tensor.shape, "embeddings")
    return named.values()
