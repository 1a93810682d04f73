"""The tensors that save_pretrained writes into adapter_model.safetensors.

peft 0.21.2: get_peft_model_state_dict (peft/utils/save_and_load.py), BaseTuner._get_adapter_state_dict and
_get_learnable_bias_state_dict (peft/tuners/tuners_utils.py), AuxiliaryTrainingWrapper.adapter_state_dict
(peft/utils/other.py), cast_adapter_dtype.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from estimator.architecture.module import Parameter
from estimator.lora.auxiliary import Auxiliary
from estimator.lora.index import TreeIndex
from estimator.lora.layers import LoraLayer
from estimator.lora.match import EMBEDDING_LAYER_NAMES, INCLUDE_LINEAR_LAYERS_SHORTHAND
from estimator.lora.patterns import fullmatching
from estimator.request.lora_config import LoraConfig

PREFIX = "base_model.model."


class SavedTensor(NamedTuple):
    """A tensor of adapter_model.safetensors."""

    name: str
    dtype: str  # safetensors' name
    shape: tuple[int, ...]
    part: str  # "lora" | "dora" | "bias" | "saved_modules" | "trainable_tokens" | "embeddings"


def adapter_dtype_of(base: str, adapter_dtype: str | None) -> str:
    """The dtype of a LoRA weight on a base of dtype `base`: autocast, "base", or one that is given."""
    if adapter_dtype not in (None, "base"):
        return adapter_dtype
    if not base.startswith(("F", "BF")) or base in ("F4", "F6_E2M3", "F6_E3M2"):
        return "F32"
    if adapter_dtype is None and base != "F64":
        return "F32"
    return base


def lora_tensors(layers: Iterable[LoraLayer], adapter_dtype: str | None) -> list[SavedTensor]:
    """Everything on the LoRA layers themselves."""
    dtypes: dict[str, str] = {}
    tensors = []
    for layer in layers:
        dtype = dtypes.get(layer.dtype) or dtypes.setdefault(layer.dtype, adapter_dtype_of(layer.dtype, adapter_dtype))
        prefix = f"{PREFIX}{layer.name}."
        for weight in layer.weights:
            if weight.saved:
                tensors.append(
                    SavedTensor(
                        prefix + weight.suffix, dtype if weight.cast else layer.dtype, weight.shape, weight.part
                    )
                )
    return tensors


class Places:
    """Where modules lie at run time, once PEFT has wrapped some of them."""

    def __init__(self, layers: Iterable[LoraLayer], auxiliary: Auxiliary) -> None:
        self.behind: dict[str, str] = {}
        for layer in layers:
            self.behind[layer.module] = self.behind.get(layer.module, "") + ".base_layer"
        for name in auxiliary.tokens:
            self.behind[name] = self.behind.get(name, "") + ".token_adapter.base_layer"
        self.saved = auxiliary.saved

    def of(self, module: str) -> list[str]:
        """Run-time names of a module of the base; two where it lies in a module that is saved whole."""
        places = [""]
        parts = module.split(".") if module else []
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            grown = [f"{place}.{parts[end - 1]}" if place else parts[end - 1] for place in places]
            grown = [place + self.behind.get(name, "") for place in grown]
            if name in self.saved:
                grown = [place + kind for place in grown for kind in (".original_module", ".modules_to_save.default")]
            places = grown
        return places


def saved_name(key: str) -> str:
    """A state_dict key as the file has it: _remove_adapter_name_from_state_dict_key for the adapter "default"."""
    if key.endswith(".default"):
        return key.removesuffix(".default")
    front, _, last = key.rpartition(".")
    return f"{front.removesuffix('.default')}.{last}"


def bias_tensors(index: TreeIndex, layers: list[LoraLayer], places: Places, bias: str) -> list[SavedTensor]:
    """The base's biases that bias="all" or "lora_only" trains and saves."""
    if bias == "none":
        return []
    if bias == "all":
        return [
            SavedTensor(
                saved_name(PREFIX + (f"{place}." if place else "") + "bias"), tensor.dtype, tensor.shape, "bias"
            )
            for module in index.tree.modules
            for tensor in _state(module)
            if tensor.name == "bias"
            for place in places.of(module.name)
        ]
    tensors = {}
    for layer in layers:
        own = index.modules[layer.module]
        for tensor in _state(own):
            if tensor.name == "bias" and own.kind != "MultiheadAttention":
                name = PREFIX + places.of(layer.module)[0] + ".bias"
                tensors[name] = SavedTensor(name, tensor.dtype, tensor.shape, "bias")
    return list(tensors.values())


def _state(module) -> Iterator[Parameter]:
    yield from module.parameters
    yield from (buffer for buffer in module.buffers if buffer.persistent)


def auxiliary_tensors(
    index: TreeIndex, auxiliary: Auxiliary, layers: list[LoraLayer], adapter_dtype: str | None
) -> list[SavedTensor]:
    """Modules saved whole, and trained token rows."""
    tensors = []
    for name, source in auxiliary.saved.items():
        if source is not None:  # the embedding's copy, through a Linear without bias
            weight = next(p for p in index.modules[source].parameters if p.name == "weight")
            tensors.append(SavedTensor(f"{PREFIX}{name}.weight", weight.dtype, weight.shape, "saved_modules"))
            continue
        tensors += [
            SavedTensor(PREFIX + full, t.dtype, t.shape, "saved_modules") for full, t in subtree(index, name, layers)
        ]
        inside = [layer for layer in layers if layer.module.startswith(name + ".")]
        tensors += [t._replace(part="saved_modules") for t in lora_tensors(inside, adapter_dtype)]
    for name, rows in auxiliary.tokens.items():
        if rows is not None:
            dtype = adapter_dtype_of(rows.dtype, adapter_dtype)
            key = f"{PREFIX}{name}.token_adapter.trainable_tokens_delta"
            tensors.append(SavedTensor(key, dtype, rows.shape, "trainable_tokens"))
    return tensors


def subtree(index: TreeIndex, name: str, layers: Iterable[LoraLayer]) -> Iterator[tuple[str, Parameter]]:
    """state_dict() of a module of the base under full names; ".base_layer" behind what LoRA has wrapped."""
    behind: dict[str, str] = {}
    for layer in layers:
        behind[layer.module] = behind.get(layer.module, "") + ".base_layer"
    for own in (name, *index.children(name)):
        for tensor in _state(index.modules[own]):
            yield f"{own}{behind.get(own, '')}.{tensor.name}", tensor


def embeddings_are_targeted(index: TreeIndex, config: LoraConfig) -> bool:
    """By name alone: embed_tokens and lm_head."""
    targets = config.target_modules
    if isinstance(targets, str) and targets != INCLUDE_LINEAR_LAYERS_SHORTHAND:
        names = [name for name in index.modules if re.match(r"(.*\.)?(embed_tokens|lm_head)$", name)]
        return bool(fullmatching(targets, names, where="target_modules"))
    return bool(targets) and any(name in targets for name in EMBEDDING_LAYER_NAMES)


def embedding_tensors(
    index: TreeIndex, layers: list[LoraLayer], auxiliary: Auxiliary, targeted: bool
) -> list[SavedTensor]:
    """The input and output embeddings, saved along: the base layers of targeted ones, else all that stands there."""
    wrapped = {layer.module for layer in layers}
    tensors = []
    for name in (index.tree.input_embedding, index.tree.output_embedding):
        if name is None or name not in index.modules or (targeted and name not in wrapped):
            continue
        if targeted and index.modules[name].kind not in ("Linear", "Embedding"):
            continue
        behind = ".base_layer" if name in wrapped else ""
        behinds = [behind + (".token_adapter.base_layer" if name in auxiliary.tokens else "")]
        if name in auxiliary.saved:
            behinds = [".original_module", ".modules_to_save"]
        for full, tensor in subtree(index, name, ()):
            rest = full[len(name) :]
            tensors += [
                SavedTensor(f"{PREFIX}{name}{b}{rest}", tensor.dtype, tensor.shape, "embeddings") for b in behinds
            ]
    return tensors
