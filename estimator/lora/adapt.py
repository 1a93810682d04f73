"""What PEFT adapts, trains and saves: get_peft_model(model, config) and save_pretrained, without a model.

peft 0.21.2, transformers 5.23.0. The steps are inject_adapter's (peft/tuners/tuners_utils.py), in its order; each rule
has its own file in this folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import Any, NamedTuple

from estimator.architecture.module import ModuleTree
from estimator.lora.auxiliary import Auxiliary
from estimator.lora.config_rules import check_config
from estimator.lora.index import TreeIndex, index_of
from estimator.lora.inject import injected, prepared
from estimator.lora.layers import LoraLayer
from estimator.lora.remarks import remarks
from estimator.lora.resize import base_vocabulary, resized
from estimator.lora.tensors import (
    Places,
    SavedTensor,
    auxiliary_tensors,
    bias_tensors,
    embedding_tensors,
    embeddings_are_targeted,
    lora_tensors,
)
from estimator.lora.ties import NO_EMBEDDING
from estimator.notes import Note
from estimator.request.lora_config import LoraConfig

PEFT = "0.21.2"
TRANSFORMERS = "5.23.0"


class AdaptedModule(NamedTuple):
    name: str  # PEFT's run-time name
    kind: str
    what: str  # PEFT's class: "Linear", "ParamWrapper", "ModulesToSaveWrapper"
    in_features: int | None
    out_features: int | None
    rank: int | None  # None: trained without LoRA, as modules_to_save and token rows are
    parameters: int  # trainable


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    modules: tuple[AdaptedModule, ...]
    trainable_parameters: int  # get_nb_trainable_parameters()[0]
    added_parameters: int  # to the base's own; negative where layers or embedding rows fall away
    all_parameters: int  # get_nb_trainable_parameters()[1], for a base that is not quantised
    parameters_by_part: Mapping[str, int]  # trainable, by the part of the file
    tensors: tuple[SavedTensor, ...]  # of adapter_model.safetensors; () where saving fails
    config: Mapping[str, Any]  # the effective LoraConfig, as adapter_config.json has it
    save_error: str | None = None  # counting works, save_pretrained fails: why
    notes: tuple[Note, ...] = ()


def adapt(
    tree: ModuleTree,
    config: LoraConfig,
    *,
    adapter_dtype: str | None = None,
    vocab_size: int | None = None,
    save_embedding_layers: str = "auto",
    base_vocab_size: int | None = None,
) -> Adaptation:
    """What becomes of `tree` under `config`. Raises InvalidLoraError, NoTargetModulesError, UnsupportedModuleError
    where PEFT refuses, UnsupportedError where this tool has no answer.

    adapter_dtype: None is PEFT's autocast, "base" is none, else safetensors' name of a dtype.
    """
    check_config(config)
    base = index_of(tree)
    index = base
    if vocab_size is not None:
        index = base.remembered(("rows", vocab_size), lambda: TreeIndex(resized(base, vocab_size)))
    request = prepared(index, config)
    injection = injected(request)
    layers, auxiliary = injection.layers, injection.auxiliary
    places = Places(layers, auxiliary)
    biases = bias_tensors(request.index, layers, places, request.config.bias) if request.config.bias != "none" else []
    trained = _trained(request.index, layers, auxiliary, request.config.bias)
    added = request.index.all_parameters() - base.all_parameters() + _added(request.index, layers, auxiliary)
    changed = vocab_size is not None and vocab_size != (base_vocab_size or base_vocabulary(tree))
    tensors, save_error = _saved(request, layers, auxiliary, biases, adapter_dtype, save_embedding_layers, changed)
    return Adaptation(
        modules=(*map(_described, layers), *_wrapped_whole(request.index, auxiliary)),
        trainable_parameters=sum(trained.values()),
        added_parameters=added,
        all_parameters=base.all_parameters() + added,
        parameters_by_part=trained,
        tensors=tensors,
        config=_as_saved(request.config),
        save_error=save_error,
        notes=remarks(config, request, injection, tensors, save_error),
    )


def _described(layer: LoraLayer) -> AdaptedModule:
    parameters = sum(prod(w.shape) for w in layer.weights if w.trainable and w.parameter)
    return AdaptedModule(
        layer.name, layer.kind, layer.what, layer.in_features, layer.out_features, layer.rank, parameters
    )


def _wrapped_whole(index: TreeIndex, auxiliary: Auxiliary) -> list[AdaptedModule]:
    """Wrappers beside LoRA: they have no rank."""
    found = []
    for name, source in auxiliary.saved.items():
        parameters = 0 if source is not None else _copied_elements(index, name)
        found.append(
            AdaptedModule(name, index.modules[name].kind, "ModulesToSaveWrapper", None, None, None, parameters)
        )
    for name, rows in auxiliary.tokens.items():
        kind, parameters = index.modules[name].kind, prod(rows.shape) if rows is not None else 0
        found.append(AdaptedModule(name, kind, "TrainableTokensWrapper", None, None, None, 0))
        found.append(AdaptedModule(f"{name}.token_adapter", kind, "TrainableTokensLayer", None, None, None, parameters))
    return found


def _trained(index: TreeIndex, layers: Sequence[LoraLayer], auxiliary: Auxiliary, bias: str) -> dict[str, int]:
    """Trainable elements by part; a tensor that two names share counts once."""
    parts: dict[str, int] = {}
    for layer in layers:
        for weight in layer.weights:
            if weight.trainable and weight.parameter and not _in_saved(layer.module, auxiliary):
                parts[weight.part] = parts.get(weight.part, 0) + prod(weight.shape)
    if biases := _trained_biases(index, layers, auxiliary, bias):
        parts["bias"] = biases
    if auxiliary.saved:
        parts["saved_modules"] = _copied(index, layers, auxiliary)
    if auxiliary.tokens:
        parts["trainable_tokens"] = sum(prod(rows.shape) for rows in auxiliary.tokens.values() if rows is not None)
    return parts


def _in_saved(module: str, auxiliary: Auxiliary) -> bool:
    return bool(auxiliary.saved) and any(module.startswith(name + ".") for name in auxiliary.saved)


def _trained_biases(index: TreeIndex, layers: Sequence[LoraLayer], auxiliary: Auxiliary, bias: str) -> int:
    if bias == "none":
        return 0
    own = None if bias == "all" else {layer.module for layer in layers}
    frozen = {
        index.root(f"{name}.{p.name}")
        for saved in auxiliary.saved
        for name in (saved, *index.children(saved))
        for p in index.modules[name].parameters
    }
    biases = {
        index.root(f"{module.name}.bias" if module.name else "bias"): prod(p.shape)
        for module in index.tree.modules
        if own is None or module.name in own
        for p in module.parameters
        if p.name == "bias"
    }
    return sum(size for root, size in biases.items() if root not in frozen)


def _copied(index: TreeIndex, layers: Sequence[LoraLayer], auxiliary: Auxiliary) -> int:
    """Elements of the copies of modules_to_save; all of them train."""
    total = 0
    for saved, source in auxiliary.saved.items():
        if source is not None:
            continue
        inside = [w for layer in layers if layer.module.startswith(saved + ".") for w in layer.weights if w.parameter]
        total += _copied_elements(index, saved) + sum(prod(w.shape) for w in inside)
    return total


def _copied_elements(index: TreeIndex, saved: str) -> int:
    own = {
        index.root(f"{name}.{p.name}"): prod(p.shape)
        for name in (saved, *index.children(saved))
        for p in index.modules[name].parameters
    }
    return sum(own.values())


def _added(index: TreeIndex, layers: Sequence[LoraLayer], auxiliary: Auxiliary) -> int:
    total = sum(prod(w.shape) for layer in layers for w in layer.weights if w.parameter)
    total += _copied(index, layers, auxiliary) if auxiliary.saved else 0
    return total + sum(prod(rows.shape) for rows in auxiliary.tokens.values() if rows is not None)


def _saved(
    request: Any,
    layers: list[LoraLayer],
    auxiliary: Auxiliary,
    biases: list[SavedTensor],
    adapter_dtype: str | None,
    save_embedding_layers: str,
    vocabulary_changed: bool,
) -> tuple[tuple[SavedTensor, ...], str | None]:
    index, config = request.index, request.config
    outside = [layer for layer in layers if not _in_saved(layer.module, auxiliary)] if auxiliary.saved else layers
    tensors = lora_tensors(outside, adapter_dtype)
    if biases or auxiliary.saved or auxiliary.tokens:
        more = [*biases, *auxiliary_tensors(index, auxiliary, layers, adapter_dtype)]
        tensors = list({tensor.name: tensor for tensor in (*tensors, *more)}.values())
    targeted = embeddings_are_targeted(index, config)
    save = save_embedding_layers == "yes"
    if save_embedding_layers == "auto":
        # the top level of a composite config has no vocab_size, so PEFT does not see that its vocabulary changed
        seen = vocabulary_changed and "vocab_size" in index.tree.config
        save = (targeted and config.trainable_token_indices is None) or seen
    if save and index.tree.input_embedding is None:
        return (), f"{NO_EMBEDDING}, and save_pretrained asks for it."
    if save:
        named = {tensor.name: tensor for tensor in tensors}
        for tensor in embedding_tensors(index, layers, auxiliary, targeted):
            named.setdefault(tensor.name, tensor)
        tensors = list(named.values())
    return tuple(tensors), None


_FIELDS = tuple(field.name for field in fields(LoraConfig) if field.name != "unknown")


def _as_saved(config: LoraConfig) -> dict[str, Any]:
    said = {name: getattr(config, name) for name in _FIELDS}
    for name in ("target_modules", "exclude_modules", "target_parameters"):
        if isinstance(said[name], (tuple, list, set, frozenset)):
            said[name] = sorted(said[name])
    if config.peft_type == "ADALORA":
        said.update(config.unknown)
    return {name: list(value) if isinstance(value, (tuple, set)) else value for name, value in said.items()}
