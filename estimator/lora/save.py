"""The tensors that save_pretrained writes.

peft 0.21.2: get_peft_model_state_dict (peft/utils/save_and_load.py), _get_learnable_bias_state_dict,
cast_adapter_dtype (peft/tuners/tuners_utils.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from estimator.architecture.module import Module, Parameter
from estimator.lora.index import TreeIndex
from estimator.lora.layers import LoraLayer
from estimator.lora.match import EMBEDDING_LAYER_NAMES
from estimator.lora.patterns import fullmatching
from estimator.lora.prepare import Prepared
from estimator.lora.wrapped import Wrapped
from estimator.request.lora_config import LoraConfig

PREFIX = "base_model.model."
_UPCAST = frozenset({"F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0"})
_FLOATS = _UPCAST | {"F32", "F64"}


class SavedTensor(NamedTuple):
    """A tensor of adapter_model.safetensors."""

    name: str
    dtype: str  # safetensors' name
    shape: tuple[int, ...]
    part: str  # one of weights.PARTS


class Injected(NamedTuple):
    """A model with its adapter in it."""

    index: TreeIndex
    prepared: Prepared
    layers: tuple[LoraLayer, ...]
    wrapped: Wrapped
    original_parameters: int | None = None  # of the base before its layers were replicated

    @property
    def config(self) -> LoraConfig:
        return self.prepared.config

    def copied_parameters(self, names: tuple[str, ...] | None = None) -> list[Parameter]:
        """Parameters of the modules that are trained and saved whole; a tie within one copy counts once."""
        seen: dict[tuple[str, str], Parameter] = {}
        for name in self.wrapped.saved if names is None else names:
            for module in self.below(name):
                for parameter in module.parameters:
                    root = self.index.root(f"{module.name}.{parameter.name}")
                    seen[name, root] = parameter
        return list(seen.values())

    def below(self, name: str) -> Iterator[Module]:
        """A module and all within it."""
        yield self.index.modules[name]
        yield from (self.index.modules[child] for child in self.index.children(name))

    def trained_biases(self) -> list[Parameter]:
        """Biases of the base that `bias` makes trainable, ties once."""
        if self.config.bias == "none":
            return []
        wrapped = {layer.module for layer in self.layers}
        return list(
            {
                self.index.root(f"{module.name}.{parameter.name}"): parameter
                for module in self.index.tree.modules
                for parameter in module.parameters
                if parameter.name == "bias" and (self.config.bias == "all" or module.name in wrapped)
            }.values()
        )

    def depths(self) -> dict[str, int]:
        """How many LoRA layers lie around each adapted module."""
        depths: dict[str, int] = {}
        for layer in self.layers:
            depths[layer.module] = depths.get(layer.module, 0) + 1
        return depths

    def run_time_name(self, module: str, depths: dict[str, int]) -> str:
        """A base module's name once wrappers are around it and around what holds it."""
        parts = module.split(".") if module else []
        shown: list[str] = []
        for place in range(len(parts)):
            inner = ".".join(parts[: place + 1])
            shown.append(parts[place])
            shown += ["base_layer"] * depths.get(inner, 0)
            if inner in self.wrapped.saved or inner in self.wrapped.tied:
                shown.append("original_module")
        return ".".join(shown)


Saved = tuple[tuple[SavedTensor, ...], "str | None"]


def saved_tensors(injected: Injected, adapter_dtype: str | None, save_embeddings: str, vocab_resized: bool) -> Saved:
    """All tensors of the file, and why saving fails, if it does."""
    found: dict[str, SavedTensor] = {}

    def add(tensors: Iterator[SavedTensor]) -> None:
        for tensor in tensors:
            found.setdefault(tensor.name, tensor)

    add(_lora(injected, adapter_dtype))
    add(_biases(injected))
    add(_whole_modules(injected, adapter_dtype))
    add(_tokens(injected, adapter_dtype))
    targeted = embedding_is_targeted(injected)
    tokens = injected.config.trainable_token_indices is not None
    wanted = {"yes": True, "no": False}.get(save_embeddings, (targeted and not tokens) or vocab_resized)
    if wanted and injected.index.tree.input_embedding is None:
        error = f"{injected.index.tree.architecture} does not say which module is its input embedding"
        return tuple(found.values()), error
    if wanted:
        add(_embeddings(injected, targeted))
    return tuple(found.values()), None


def lora_dtype(layer: LoraLayer, adapter_dtype: str | None, scheme: str | None, *, cast: bool = True) -> str:
    """float32 by PEFT's default; the base layer's own where autocast is off (float32 where that is no float)."""
    if adapter_dtype not in (None, "base"):
        return adapter_dtype
    own = layer.dtype if layer.dtype in _FLOATS and scheme != "bitsandbytes_8bit" else "F32"
    return "F32" if adapter_dtype is None and cast and own in _UPCAST else own


def _lora(injected: Injected, adapter_dtype: str | None) -> Iterator[SavedTensor]:
    quantised = injected.index.tree.quantised
    for layer in injected.layers:
        scheme = quantised[layer.module].scheme if layer.module in quantised else None
        prefix = f"{PREFIX}{layer.name}."
        cast = lora_dtype(layer, adapter_dtype, scheme)
        plain = lora_dtype(layer, adapter_dtype, scheme, cast=False)
        for weight in layer.weights:
            if weight.saved:
                yield SavedTensor(prefix + weight.suffix, cast if weight.cast else plain, weight.shape, weight.part)


def _biases(injected: Injected) -> Iterator[SavedTensor]:
    bias = injected.config.bias
    if bias == "none":
        return
    depths = injected.depths()
    for module in injected.index.tree.modules:
        if bias == "all" or module.name in depths:
            name = injected.run_time_name(module.name, depths)
            for tensor in _state(module):
                if tensor.name == "bias":
                    yield SavedTensor(f"{PREFIX}{name}.bias", tensor.dtype, tensor.shape, "bias")
    if bias == "all":
        for saved in injected.wrapped.saved:
            for module in injected.below(saved):
                inner = module.name[len(saved) :]
                for tensor in _state(module):
                    if tensor.name == "bias":
                        name = f"{PREFIX}{saved}.modules_to_save{inner}.bias"
                        yield SavedTensor(name, tensor.dtype, tensor.shape, "bias")


def _state(module: Module) -> list[Parameter]:
    """What a module itself puts into state_dict()."""
    return [*module.parameters, *(buffer for buffer in module.buffers if buffer.persistent)]


def _whole_modules(injected: Injected, adapter_dtype: str | None) -> Iterator[SavedTensor]:
    forced = adapter_dtype if adapter_dtype not in (None, "base") else None
    for name in injected.wrapped.saved:
        for module in injected.below(name):
            for tensor in _state(module):
                dtype = forced if forced and tensor.dtype in _FLOATS else tensor.dtype
                yield SavedTensor(f"{PREFIX}{module.name}.{tensor.name}", dtype, tensor.shape, "saved_modules")
    embedding = injected.index.tree.input_embedding
    for name in injected.wrapped.tied:
        weight = next(p for p in injected.index.modules[embedding].parameters if p.name == "weight")
        yield SavedTensor(f"{PREFIX}{name}.weight", forced or weight.dtype, weight.shape, "saved_modules")


def _tokens(injected: Injected, adapter_dtype: str | None) -> Iterator[SavedTensor]:
    for tokens in injected.wrapped.tokens:
        if not tokens.tied:
            weight = next(p for p in injected.index.modules[tokens.module].parameters if p.name == "weight")
            own = weight.dtype if adapter_dtype == "base" else "F32" if weight.dtype in _UPCAST else weight.dtype
            dtype = adapter_dtype if adapter_dtype not in (None, "base") else own
            name = f"{PREFIX}{tokens.module}.token_adapter.trainable_tokens_delta"
            yield SavedTensor(name, dtype, (tokens.rows, tokens.width), "trainable_tokens")


def embedding_is_targeted(injected: Injected) -> bool:
    """Whether save_embedding_layers="auto" finds embed_tokens or lm_head among the targets."""
    targets = injected.config.target_modules
    if not isinstance(targets, str):
        return any(name in (targets or ()) for name in EMBEDDING_LAYER_NAMES)
    names = [name for name in injected.index.modules if name.rpartition(".")[2] in EMBEDDING_LAYER_NAMES]
    return bool(fullmatching(targets, names, where="target_modules"))


def _embeddings(injected: Injected, targeted: bool) -> Iterator[SavedTensor]:
    tree, depths = injected.index.tree, injected.depths()
    for name in (tree.input_embedding, tree.output_embedding):
        if name is None or (targeted and not depths.get(name)):
            continue
        for module in injected.below(name):
            run_time = injected.run_time_name(module.name, depths)
            for tensor in _state(module):
                yield SavedTensor(f"{PREFIX}{run_time}.{tensor.name}", tensor.dtype, tensor.shape, "embeddings")
