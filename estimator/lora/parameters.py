"""target_parameters: LoRA around a parameter, where there is no module to put it around.

peft 0.21.2: BaseTuner._inject_parameters (peft/tuners/tuners_utils.py), ParamWrapper (peft/tuners/lora/layer.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from estimator.architecture.module import Module, Parameter
from estimator.errors import InvalidLoraError
from estimator.lora.config_rules import check_alpha, check_rank
from estimator.lora.index import TreeIndex, suffixes_of
from estimator.lora.layers import LoraLayer, Settings, lora_layers, parameter_layer
from estimator.lora.loaded import loaded, weight_of
from estimator.lora.match import alphas, ranks
from estimator.lora.variants import OWN_LAYERS, asked_variants, heard_unquantised
from estimator.request.lora_config import LoraConfig

Targeted = tuple[str, Module, Parameter]  # full name of the parameter, its module, itself


def targeted_parameters(index: TreeIndex, config: LoraConfig) -> list[Targeted]:
    """_inject_parameters: names match a parameter's full name or its end."""
    if not config.target_parameters:
        return []
    names = set(config.target_parameters)
    found = []
    for module in index.tree.modules:
        if f"{module.name}.parametrizations" in index.modules:
            name, weight = f"{module.name}.weight", weight_of(index, module)
            found += [(name, module, weight)] if name in names and weight is not None else []
            continue
        for parameter in index.held(module):
            key = f"{module.name}.{parameter.name}"
            if any(suffix in names for suffix in suffixes_of(key)):
                found.append((key, module, parameter))
    return found


def parameter_layers(
    index: TreeIndex, config: LoraConfig, parameters: list[Targeted], wrapped: set[str], before: Sequence[LoraLayer]
) -> list[LoraLayer]:
    """A layer for each targeted parameter; `wrapped` are modules that target_modules adapts, `before` their layers.

    Raises InvalidLoraError and UnsupportedModuleError where PEFT refuses.
    """
    chosen = ranks([key for key, _, _ in parameters], config)
    for rank in chosen.values():
        check_rank(rank, "r" if rank == config.r else "rank_pattern")
    check_alphas(config, chosen)
    _refuse_nested({module.name for _, module, _ in parameters})
    left = Counter(module.name for _, module, _ in parameters)
    layers: list[LoraLayer] = []
    settings_checked = False
    for key, module, parameter in parameters:
        _refuse_place(index, module, wrapped)
        left[module.name] -= 1  # the first parameter's wrapper is the innermost
        weight, packing = loaded(index, module.name)
        if packing is not None and packing.scheme in OWN_LAYERS:  # its own kind of layer goes before ParamWrapper
            layers += lora_layers(module, chosen[key], Settings.of(config), weight, packing)
            continue
        if not settings_checked:
            _check_parameter_settings(index, config, before)  # the same for all, of which there may be thousands
            settings_checked = True
        name = module.name + ".base_layer" * left[module.name]
        turned = key in index.tree.transposed or module.name in index.tree.transposed
        layers.append(
            parameter_layer(module, name, parameter, chosen[key], is_transposed=turned, init=config.init_lora_weights)
        )
    return sorted(layers, key=lambda layer: (index.order[layer.module], len(layer.name)))


def _refuse_place(index: TreeIndex, module: Module, wrapped: set[str]) -> None:
    """A layer of LoRA has not the submodules of what it wraps, parametrizations say; MultiheadAttention's has."""
    what = None
    parts = module.name.split(".")
    around = (".".join(parts[:end]) for end in range(1, len(parts)))
    outer = next((n for n in around if n in wrapped and index.modules[n].kind != "MultiheadAttention"), None)
    if not module.name:
        what = "a parameter of the model itself"
    elif module.name in wrapped:
        what = f"{module.name}, which target_modules adapts already"
    elif outer is not None:
        what = f"{module.name} in {outer}, which target_modules adapts already"
    if what is not None:
        raise InvalidLoraError(
            f"target_parameters names {what}.", where="target_parameters", way_out="set target_modules to []"
        )


def _refuse_nested(modules: set[str]) -> None:
    """A ParamWrapper does not pass on the modules below: PEFT looks for the inner one by its old name."""
    for name in modules:
        parts = name.split(".")
        outer = next((above for end in range(1, len(parts)) if (above := ".".join(parts[:end])) in modules), None)
        if outer is not None:
            raise InvalidLoraError(
                f"target_parameters names parameters of {outer} and of {name} in it; PEFT ends in an AttributeError.",
                where="target_parameters",
                way_out="name parameters of one of the two",
            )


def _check_parameter_settings(index: TreeIndex, config: LoraConfig, before: Sequence[LoraLayer]) -> None:
    """ParamWrapper.__init__. Adapting a Linear or a Conv1D has set fan_in_fan_out by then, what is packed has not."""
    plain = (one.kind for one in reversed(before) if one.kind in ("Linear", "Conv1D") and not _is_packed(index, one))
    last = next(plain, None)
    fan = config.fan_in_fan_out if last is None else last == "Conv1D"
    refused = {
        "lora_dropout": config.lora_dropout, "fan_in_fan_out": fan, "lora_bias": config.lora_bias,
        "use_dora": config.use_dora, "velora_config": config.velora_config is not None,
        "kasa_config": config.kasa_config is not None, "peft_type": config.peft_type == "ADALORA",
        "a variant of LoRA": bool(heard_unquantised(asked_variants(config))),
    }  # fmt: skip
    for name, set_ in refused.items():
        if set_:
            raise InvalidLoraError(
                f"{name} does not work with target_parameters.",
                where=name,
                way_out=f"turn {name} off, or leave out target_parameters and names of experts, which PEFT makes such",
            )


def _is_packed(index: TreeIndex, layer: LoraLayer) -> bool:
    _, packing = loaded(index, layer.module)
    return packing is not None and packing.scheme in OWN_LAYERS


def check_alphas(config: LoraConfig, chosen: Mapping[str, int]) -> None:
    """Raises InvalidLoraError where PEFT could not divide a layer's alpha by its rank."""
    if not config.alpha_pattern:
        for rank in set(chosen.values()):
            check_alpha(config.lora_alpha, rank, "lora_alpha")
        return
    for name, alpha in alphas(list(chosen), config).items():
        check_alpha(alpha, chosen[name], "alpha_pattern")
