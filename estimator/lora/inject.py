"""inject_adapter: the config made ready for the model, then layer by layer.

peft 0.21.2, peft/tuners/tuners_utils.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from estimator.architecture.module import Module, Parameter
from estimator.errors import InvalidLoraError, UnsupportedModuleError
from estimator.lora.config_rules import adalora_fields, check_names, check_rank
from estimator.lora.facts import default_targets, mamba_types
from estimator.lora.index import TreeIndex
from estimator.lora.layers import LoraLayer, Settings, lora_layers, parameter_layer
from estimator.lora.match import (
    INCLUDE_LINEAR_LAYERS_SHORTHAND,
    Matched,
    all_linear_modules,
    match_modules,
    minimal_targets,
    ranks,
)
from estimator.lora.moe import converted
from estimator.lora.refuse import refuse_nothing_matched
from estimator.lora.replicate import replicated
from estimator.lora.svd import svd_layers
from estimator.lora.ties import is_tied_target, with_ties
from estimator.request.lora_config import LoraConfig

_TASK_HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The request in the form in which PEFT matches it."""

    index: TreeIndex
    config: LoraConfig
    later_saves: tuple[str, ...]  # modules_to_save that the task adds once LoRA is in place
    tied_saves: tuple[str, ...]
    tied_targets: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    layers: list[LoraLayer]
    matched: Matched
    parameters: tuple[str, ...]  # targeted by target_parameters


def prepared(index: TreeIndex, config: LoraConfig) -> Prepared:
    """The config as inject_adapter leaves it before it matches. Raises InvalidLoraError."""
    check_names(config.modules_to_save, "modules_to_save")
    check_names(config.target_parameters, "target_parameters")
    if config.bias not in ("none", "all") and not config.bias.endswith("_only"):
        raise InvalidLoraError(
            f"there is no bias {config.bias[:40]!r}.", where="bias", way_out="none, all or lora_only"
        )
    heads = _TASK_HEADS.get(config.task_type or "", ())
    if config.task_type == "SEQ_CLS":
        config, heads = replace(config, modules_to_save=(*(config.modules_to_save or ()), *heads)), ()
    config = converted(index, config)
    config, tied_saves, tied_targets = with_ties(index, config)
    config = _with_default_targets(index, config)
    if config.layer_replication:
        layers = tuple(map(tuple, config.layer_replication))
        source = index
        index = source.remembered(("replicated", layers), lambda: TreeIndex(replicated(source, layers)))
    targets = config.target_modules
    if isinstance(targets, str) and targets.lower() == INCLUDE_LINEAR_LAYERS_SHORTHAND:
        targets = frozenset(all_linear_modules(index, config.task_type))
    if targets is not None and not isinstance(targets, str):
        targets = minimal_targets(index, targets)
    config = replace(config, target_modules=targets)
    return Prepared(index=index, config=config, later_saves=heads, tied_saves=tied_saves, tied_targets=tied_targets)


def _with_default_targets(index: TreeIndex, config: LoraConfig) -> LoraConfig:
    """LoraModel._prepare_adapter_config."""
    if config.target_modules is not None:
        return config
    model_type = index.tree.config.get("model_type")
    targets = default_targets(config.peft_type).get(str(model_type))
    if targets is None and not config.target_parameters:
        raise InvalidLoraError(
            f"PEFT has no default target_modules for the model type {str(model_type)[:60]!r}.",
            where="target_modules",
            way_out="name them, or say all-linear",
        )
    return replace(config, target_modules=targets if isinstance(targets, str) or targets is None else tuple(targets))


def injected(request: Prepared) -> Injection:
    """The layers that PEFT puts in. Raises NoTargetModulesError, UnsupportedModuleError, InvalidLoraError."""
    index, config = request.index, request.config
    matched = match_modules(index, config)
    names: Sequence[str] = matched.targeted
    if request.tied_targets:
        tied = [name for name in index.modules if is_tied_target(name, request.tied_targets)]
        names = [*(name for name in names if name not in tied), *tied]
    layers = _module_layers(index, config, names)
    parameters = _targeted_parameters(index, config)
    if parameters:
        layers = [*layers, *_parameter_layers(index, config, parameters, {layer.module for layer in layers}, layers)]
    if not names and not parameters:
        refuse_nothing_matched(index, config, matched)
    return Injection(
        layers=_inside_wrappers(layers), matched=matched, parameters=tuple(key for key, _, _ in parameters)
    )


def _inside_wrappers(layers: list[LoraLayer]) -> list[LoraLayer]:
    """Layers of modules that lie in a module whose parameter is wrapped go by its ".base_layer"."""
    outer: dict[str, int] = {}
    for layer in layers:
        if layer.what in ("ParamWrapper", "MultiheadAttention"):
            outer[layer.module] = outer.get(layer.module, 0) + 1
    if not outer:
        return layers
    return [layer._replace(name=_inside(layer, outer)) for layer in layers]


def _inside(layer: LoraLayer, outer: dict[str, int]) -> str:
    for name, count in outer.items():
        within = f"{name}."
        if layer.module.startswith(within) and not layer.name.startswith(f"{name}.base_layer."):
            return f"{name}{'.base_layer' * count}.{layer.name[len(within) :]}"
    return layer.name


def _module_layers(index: TreeIndex, config: LoraConfig, names: Sequence[str]) -> list[LoraLayer]:
    adalora = config.peft_type == "ADALORA"
    chosen = dict.fromkeys(names, adalora_fields(config)["init_r"]) if adalora else ranks(index, names, config)
    if not adalora:
        for rank in set(chosen.values()):
            check_rank(rank, "r" if rank == config.r else "rank_pattern")
    settings = Settings.of(config) if names else None
    layers: list[LoraLayer] = []
    for name in names:
        module = index.modules[name]
        _check_compatible(index, name)
        if adalora:
            layers += svd_layers(module, chosen[name], weight_of(index, module))
            continue
        scheme = _scheme(index, name)
        layers += lora_layers(module, chosen[name], settings, weight_of(index, module), scheme)
        if module.kind == "MultiheadAttention":
            layers += _attention_output(index, module, chosen[name], settings)
    return layers


def _attention_output(index: TreeIndex, module: Module, rank: int, settings: Settings) -> list[LoraLayer]:
    """MultiheadAttention's out_proj is wrapped with it."""
    output = index.modules[f"{module.name}.out_proj"]
    layers = lora_layers(output, rank, settings, weight_of(index, output), None)
    return [layer._replace(name=f"{module.name}.base_layer.out_proj") for layer in layers]


def weight_of(index: TreeIndex, module: Module) -> Parameter | None:
    """A module's weight; MultiheadAttention's in_proj_weight; a parametrised module's weight as it is computed."""
    wanted = "in_proj_weight" if module.kind == "MultiheadAttention" else "weight"
    own = next((p for p in module.parameters if p.name == wanted), None)
    if own is not None or f"{module.name}.parametrizations.weight" not in index.modules:
        return own
    originals = index.modules[f"{module.name}.parametrizations.weight"].parameters
    return max(originals, key=lambda p: (len(p.shape), *p.shape))._replace(name="weight")


def _scheme(index: TreeIndex, name: str) -> str | None:
    layer = index.tree.quantised.get(name)
    if layer is None:
        return None
    if layer.refusal is not None:
        raise UnsupportedModuleError(
            f"{name} is stored as {layer.cls}, which PEFT cannot wrap: {layer.refusal}.",
            where="target_modules",
            way_out="load a base that is not quantised so, or leave this module out",
        )
    return layer.scheme


def _check_compatible(index: TreeIndex, name: str) -> None:
    """_check_lora_target_modules_mamba."""
    mamba = mamba_types()
    if index.tree.config.get("model_type") not in mamba["model_types"]:
        return
    last = name.rpartition(".")[2]
    if last in mamba["modules"]:
        raise UnsupportedModuleError(
            f"{name} would be adapted, and PEFT refuses {' and '.join(mamba['modules'])} of Mamba-like models.",
            where="target_modules",
            way_out=f"leave out {last}, or exclude it",
        )


Targeted = tuple[str, Module, Parameter]  # full name of the parameter, its module, itself


def _targeted_parameters(index: TreeIndex, config: LoraConfig) -> list[Targeted]:
    """_inject_parameters: names match a parameter's full name or its end."""
    if not config.target_parameters:
        return []
    names = set(config.target_parameters)
    found = []
    for module in index.tree.modules:
        if f"{module.name}.parametrizations" in index.modules:
            found += [(n, module, weight_of(index, module)) for n in sorted(names) if n == f"{module.name}.weight"]
            continue
        for parameter in module.parameters:
            key = f"{module.name}.{parameter.name}"
            if any(suffix in names for suffix in _ends(key)):
                found.append((key, module, parameter))
    return found


def _ends(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[place:]) for place in range(len(parts))]


def _parameter_layers(
    index: TreeIndex, config: LoraConfig, parameters: list[Targeted], wrapped: set[str], before: Sequence[LoraLayer]
) -> list[LoraLayer]:
    _check_parameter_settings(index, config, before)
    chosen = ranks(index, [key for key, _, _ in parameters], config)
    count: dict[str, int] = {}
    for _, module, _ in parameters:
        count[module.name] = count.get(module.name, 0) + 1
    layers = []
    for key, module, parameter in parameters:
        if not module.name or module.name in wrapped:
            what = (
                "a parameter of the model itself"
                if not module.name
                else f"{module.name}, which target_modules adapts already"
            )
            raise InvalidLoraError(
                f"target_parameters names {what}.", where="target_parameters", way_out="set target_modules to []"
            )
        _check_compatible(index, module.name)
        check_rank(chosen[key], "r")
        count[module.name] -= 1  # the first parameter's wrapper is the innermost
        name = module.name + ".base_layer" * count[module.name]
        transposed = key in index.tree.transposed or module.name in index.tree.transposed
        layers.append(
            parameter_layer(
                module, name, parameter, chosen[key], is_transposed=transposed, init=config.init_lora_weights
            )
        )
    return sorted(layers, key=lambda layer: (index.order[layer.module], len(layer.name)))


def _check_parameter_settings(index: TreeIndex, config: LoraConfig, before: Sequence[LoraLayer]) -> None:
    """ParamWrapper.__init__. Adapting a Linear or a Conv1D has set fan_in_fan_out by then."""
    linear = [layer.kind for layer in before if layer.kind in ("Linear", "Conv1D")]
    fan = linear[-1] == "Conv1D" if linear else config.fan_in_fan_out
    refused = {
        "lora_dropout": config.lora_dropout, "fan_in_fan_out": fan, "lora_bias": config.lora_bias,
        "use_dora": config.use_dora, "velora_config": config.velora_config is not None,
        "kasa_config": config.kasa_config is not None, "peft_type": config.peft_type == "ADALORA",
        "other variants": Settings.of(config).variant is not None,
    }  # fmt: skip
    for name, set_ in refused.items():
        if set_:
            raise InvalidLoraError(
                f"{name} does not work with target_parameters.",
                where=name,
                way_out=f"leave out {name} or target_parameters",
            )
