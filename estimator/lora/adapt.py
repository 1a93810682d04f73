"""What PEFT would do with a config and a model: adapt, train, save, or refuse.

peft 0.21.2: BaseTuner.inject_adapter, _inject_parameters, _mark_only_adapters_as_trainable
(peft/tuners/tuners_utils.py), LoraModel._create_and_replace (peft/tuners/lora/model.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.errors import InvalidLoraError, NoTargetModulesError, UnsupportedError, UnsupportedModuleError
from estimator.lora.config_rules import check_config, check_rank
from estimator.lora.effective import effective_config
from estimator.lora.facts import mamba_types
from estimator.lora.index import TreeIndex, index_of
from estimator.lora.layers import LoraLayer, Settings, lora_layers, parameter_layer
from estimator.lora.match import DUMMY_TARGET_MODULES, Matched, match_modules, ranks
from estimator.lora.prepare import Prepared, prepare
from estimator.lora.remarks import remarks
from estimator.lora.replicate import replicated
from estimator.lora.save import Injected, SavedTensor, saved_tensors
from estimator.lora.wrapped import wrapped_modules
from estimator.notes import Note
from estimator.request.lora_config import LoraConfig

PEFT, TRANSFORMERS = "0.21.2", "5.23.0"  # the releases whose rules these are


class AdaptedModule(NamedTuple):
    """One LoRA layer, as PEFT's run-time names have it."""

    name: str
    kind: str
    in_features: int
    out_features: int
    rank: int
    parameters: int  # that train


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    modules: tuple[AdaptedModule, ...]
    trainable_parameters: int  # get_nb_trainable_parameters()[0]
    added_parameters: int  # what the adapter adds to the base's own in get_nb_trainable_parameters()[1]
    parameters_by_part: Mapping[str, int]  # trainable, by part of the file
    tensors: tuple[SavedTensor, ...]  # of adapter_model.safetensors
    save_error: str | None  # why save_pretrained fails where counting works
    config: Mapping[str, Any]  # the effective LoraConfig, field names of adapter_config.json
    notes: tuple[Note, ...] = ()


def adapt(
    tree: ModuleTree,
    config: LoraConfig,
    *,
    adapter_dtype: str | None = None,
    vocab_resized: bool = False,
    save_embedding_layers: str = "auto",
) -> Adaptation:
    """The outcome of get_peft_model(model, config) and save_pretrained.

    adapter_dtype: safetensors' name, "base" for autocast_adapter_dtype=False, None for PEFT's default.
    Raises NoTargetModulesError, UnsupportedModuleError, InvalidLoraError where PEFT refuses, UnsupportedError for
    other methods than LoRA.
    """
    check_config(config)
    if config.peft_type != "LORA":
        raise UnsupportedError(
            f"peft_type {config.peft_type} is not answered yet.", where="peft_type", way_out="give a LoRA config"
        )
    index, original = index_of(tree), None
    if config.layer_replication:
        original = index.all_parameters()
        index = index_of(replicated(index, config.layer_replication))
    prepared = prepare(index, config)
    matched = match_modules(index, prepared.config)
    layers = _layers(index, prepared, matched)
    _refuse_nothing(config, prepared, matched, layers)
    wrapped = wrapped_modules(index, prepared, [layer.module for layer in layers])
    injected = Injected(index, prepared, tuple(layers), wrapped, original)
    tensors, save_error = saved_tensors(injected, adapter_dtype, save_embedding_layers, vocab_resized)
    trainable = _trainable_by_part(injected)
    return Adaptation(
        modules=tuple(map(_adapted, layers)),
        trainable_parameters=sum(trainable.values()),
        added_parameters=_added(injected),
        parameters_by_part=trainable,
        tensors=tensors,
        save_error=save_error,
        config=effective_config(prepared),
        notes=remarks(injected, config, tensors, save_error),
    )


def _adapted(layer: LoraLayer) -> AdaptedModule:
    parameters = sum(prod(weight.shape) for weight in layer.weights if weight.trainable and weight.parameter)
    return AdaptedModule(layer.name, layer.kind, layer.in_features, layer.out_features, layer.rank, parameters)


# Layers


def _layers(index: TreeIndex, prepared: Prepared, matched: Matched) -> list[LoraLayer]:
    config = prepared.config
    settings = Settings.of(config)
    tied = [name for target in prepared.targets_to_tie for name in index.with_suffix(target)]
    names = [name for name in matched.targeted if name not in tied]
    named_ranks = ranks(index, [*names, *tied], config)
    layers = [layer for name in names for layer in _of_module(index, name, named_ranks[name], settings, config)]
    layers += _of_parameters(index, config, {layer.module for layer in layers})
    for name in tied:
        layers += _of_module(index, name, named_ranks[name], settings, config)
    return layers


def _of_module(
    index: TreeIndex, name: str, rank: Any, settings: Settings, config: LoraConfig
) -> list[LoraLayer]:
    module = index.modules[name]
    _refuse_mamba(index.tree, name)
    quantised = index.tree.quantised.get(name)
    if quantised is not None and quantised.refusal:
        raise UnsupportedModuleError(
            f"{name}: {quantised.refusal}", where="target_modules", way_out="adapt the model that was quantised instead"
        )
    check_rank(rank, "r")
    scheme = quantised.scheme if quantised is not None else None
    if module.kind != "MultiheadAttention":
        return lora_layers(module, rank, settings, _weight(module, "weight"), scheme)
    outer = lora_layers(module, rank, settings, _weight(module, "in_proj_weight"), scheme)
    output = index.modules[f"{name}.out_proj"]
    inner = lora_layers(output, rank, settings, _weight(output, "weight"), scheme)
    return [*outer, *(layer._replace(name=f"{name}.base_layer.out_proj") for layer in inner)]


def _weight(module: Module, name: str) -> Parameter | None:
    by_name = {parameter.name: parameter for parameter in module.parameters}
    if name in by_name:
        return by_name[name]
    # A parametrised weight (weight_norm) keeps its direction under another name, in the weight's own shape.
    return by_name.get(f"parametrizations.{name}.original1") or by_name.get(f"{name}_v")


def _refuse_mamba(tree: ModuleTree, name: str) -> None:
    """_check_lora_target_modules_mamba."""
    table, last = mamba_types(), name.rpartition(".")[2]
    if last in table["modules"] and tree.config.get("model_type") in table["model_types"]:
        raise InvalidLoraError(
            f"{name} is fused into a kernel of Mamba that would pass LoRA by; PEFT refuses it.",
            where="target_modules",
            way_out=f"leave out {' and '.join(table['modules'])}",
        )


def _of_parameters(index: TreeIndex, config: LoraConfig, wrapped: set[str]) -> list[LoraLayer]:
    """_inject_parameters: the last parameter of a module is wrapped outermost."""
    if not config.target_parameters:
        return []
    targets = set(config.target_parameters)
    by_module: dict[str, list[Parameter]] = {}
    for module in index.tree.modules:
        for parameter in module.parameters:
            key = f"{module.name}.{parameter.name}"
            if key in targets or any(key.endswith(f".{target}") for target in targets):
                by_module.setdefault(module.name, []).append(parameter)
    layers = []
    for name, parameters in by_module.items():
        _refuse_parameter(index, name, parameters[0], config, name in wrapped)
        for place, parameter in enumerate(parameters):
            key = f"{name}.{parameter.name}"
            rank = ranks(index, [key], config)[key]
            check_rank(rank, "r")
            outer = name + ".base_layer" * (len(parameters) - 1 - place)
            layers.append(
                parameter_layer(
                    index.modules[name],
                    outer,
                    parameter,
                    rank,
                    is_transposed=key in index.tree.transposed,
                    init=config.init_lora_weights,
                )
            )
    return layers[::-1] if len(by_module) == 1 else [layer for name in by_module for layer in _outer_first(layers, name)]


def _outer_first(layers: Sequence[LoraLayer], name: str) -> list[LoraLayer]:
    return [layer for layer in layers if layer.module == name][::-1]


def _refuse_parameter(index: TreeIndex, name: str, parameter: Parameter, config: LoraConfig, wrapped: bool) -> None:
    _refuse_mamba(index.tree, name)
    faults = (
        (name == "", "parameters of the model itself cannot be targeted", "name one inside a module"),
        (wrapped, f"{name} is targeted as a module already", "set target_modules to an empty list"),
        (bool(config.lora_dropout), "LoRA on a parameter does not work with lora_dropout", "set lora_dropout to 0"),
        (config.fan_in_fan_out, "LoRA on a parameter does not work with fan_in_fan_out", "leave it out"),
        (config.lora_bias, "LoRA on a parameter does not work with lora_bias", "leave it out"),
        (Settings.of(config).variant is not None, "LoRA on a parameter takes none of LoRA's variants", "leave it out"),
    )
    for broken, what, way_out in faults:
        if broken:
            raise InvalidLoraError(f"{what}: {name}.{parameter.name}.", where="target_parameters", way_out=way_out)


def _refuse_nothing(config: LoraConfig, prepared: Prepared, matched: Matched, layers: Sequence[LoraLayer]) -> None:
    if layers or prepared.config.target_modules == DUMMY_TARGET_MODULES:
        return
    asked = config.target_modules if config.target_modules is not None else prepared.config.target_modules
    shown = asked if isinstance(asked, str) else ", ".join(map(str, asked or ()))
    if matched.excluded and not matched.unmatched:
        what = "every module is excluded"
    elif not asked and not config.target_parameters:
        what = "no module is targeted"
    else:
        what = f"no module matches {shown[:200]!r}" if asked else "no parameter matches target_parameters"
    what += " in these layers" if config.layers_to_transform is not None else ""
    raise NoTargetModulesError(
        f"{what}, so PEFT would refuse.",
        where="target_modules",
        way_out="use all-linear, or names that the model has; --tree shows them",
    )


# Counts


def _trainable_by_part(injected: Injected) -> dict[str, int]:
    """Elements that train, by part; a tied one counts once."""
    parts: dict[str, int] = {}

    def add(part: str, count: int) -> None:
        if count:
            parts[part] = parts.get(part, 0) + count

    if not injected.config.inference_mode:
        for layer in injected.layers:
            for weight in layer.weights:
                if weight.trainable and weight.parameter:
                    add(weight.part, prod(weight.shape))
        add("saved_modules", sum(prod(parameter.shape) for parameter in injected.copied_parameters()))
        add("trainable_tokens", sum(t.rows * t.width for t in injected.wrapped.tokens if not t.tied))
    add("bias", sum(prod(parameter.shape) for parameter in injected.trained_biases()))
    return parts


def _added(injected: Injected) -> int:
    """Elements that are parameters beside the base's own, trained or not."""
    index = injected.index
    lora = sum(prod(w.shape) for layer in injected.layers for w in layer.weights if w.parameter)
    copies = sum(prod(parameter.shape) for parameter in injected.copied_parameters())
    tokens = sum(t.rows * t.width for t in injected.wrapped.tokens if not t.tied)
    replaced = index.all_parameters() - injected.original_parameters if injected.original_parameters is not None else 0
    return lora + copies + tokens + replaced

