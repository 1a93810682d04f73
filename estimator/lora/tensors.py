"""The tensors that save_pretrained writes into adapter_model.safetensors.

peft 0.21.2: get_peft_model_state_dict (peft/utils/save_and_load.py), _remove_adapter_name_from_state_dict_key and
cast_adapter_dtype (peft/tuners/tuners_utils.py).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from estimator.architecture.module import Module, Parameter
from estimator.lora.dtypes import adapter_dtype_of
from estimator.lora.index import TreeIndex
from estimator.lora.layers import LoraLayer
from estimator.lora.match import EMBEDDING_LAYER_NAMES, INCLUDE_LINEAR_LAYERS_SHORTHAND, is_embedding_layer
from estimator.lora.weights import Weight
from estimator.request.lora_config import LoraConfig
from estimator.request.patterns import fullmatching

PREFIX = "base_model.model."


class SavedTensor(NamedTuple):
    """A tensor of adapter_model.safetensors."""

    name: str
    dtype: str  # safetensors' name
    shape: tuple[int, ...]
    part: str  # "lora" | "dora" | "bias" | "saved_modules" | "trainable_tokens" | "embeddings"


def lora_tensors(layers: Sequence[LoraLayer], adapter_dtype: str | None) -> list[SavedTensor]:
    """Everything on the LoRA layers themselves."""
    kinds: dict[tuple[int, str], list[SavedTensor]] = {}  # layers of one shape share their weights
    tensors: list[SavedTensor] = []
    for layer in layers:
        kind = id(layer.weights), layer.dtype
        if kind not in kinds:
            kinds[kind] = _saved_weights(layer, adapter_dtype)
        tensors += [
            SavedTensor(f"{PREFIX}{layer.name}.{suffix}", dtype, shape, part)
            for suffix, dtype, shape, part in kinds[kind]
        ]
    return tensors


def _saved_weights(layer: LoraLayer, adapter_dtype: str | None) -> list[SavedTensor]:
    """Named as they are behind the layer's name."""
    return [
        SavedTensor(weight.suffix, weight_dtype(weight, layer, adapter_dtype), weight.shape, weight.part)
        for weight in layer.weights
        if weight.saved
    ]


def weight_dtype(weight: Weight, layer: LoraLayer, adapter_dtype: str | None) -> str:
    """In which a weight of LoRA trains and is saved."""
    return adapter_dtype_of(weight.dtype or layer.dtype, adapter_dtype if weight.cast else "base")


def saved_name(key: str) -> str:
    """A state_dict key as the file has it: _remove_adapter_name_from_state_dict_key for the adapter "default"."""
    if key.endswith(".default"):
        return key.removesuffix(".default")
    front, _, last = key.rpartition(".")
    return f"{front.removesuffix('.default')}.{last}"


def state_of(index: TreeIndex, module: Module) -> Iterator[Parameter]:
    """What state_dict() has of a module's own."""
    yield from index.held(module)
    yield from index.beside(module.name)
    yield from (buffer for buffer in module.buffers if buffer.persistent)


def embeddings_are_targeted(index: TreeIndex, config: LoraConfig) -> bool:
    """By name alone: embed_tokens and lm_head."""
    targets = config.target_modules
    if isinstance(targets, str) and targets != INCLUDE_LINEAR_LAYERS_SHORTHAND:
        names = [name for name in index.modules if is_embedding_layer(name)]
        return bool(fullmatching(targets, names, where="target_modules"))
    return not set(EMBEDDING_LAYER_NAMES).isdisjoint(targets or ())
