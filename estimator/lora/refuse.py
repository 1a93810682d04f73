"""What to say where nothing matched (peft 0.21.2: the end of inject_adapter)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from estimator.errors import NoTargetModulesError
from estimator.lora.closest import SHOWN, closest, last_parts, listed
from estimator.lora.index import TreeIndex
from estimator.lora.match import DUMMY_TARGET_MODULES, Matched, all_linear_modules, modules_named
from estimator.request.lora_config import LoraConfig


def refuse_nothing_matched(index: TreeIndex, config: LoraConfig, matched: Matched) -> NoReturn | None:
    """Raises NoTargetModulesError that says what was targeted, and what there is instead."""
    if config.target_modules == DUMMY_TARGET_MODULES:
        return None
    excluded = bool(matched.excluded) and (not matched.unmatched or bool(modules_named(index, config)))
    if excluded and not matched.unmatched:
        what, where = "every module is excluded", "exclude_modules"
    elif config.target_parameters and not config.target_modules:
        what, where = f"no parameter is called {_or(config.target_parameters)}", "target_parameters"
    elif not config.target_modules:
        what, where = "no module and no parameter is targeted", "target_modules"
    elif excluded:
        what, where = "what target_modules names is excluded, by exclude_modules or modules_to_save", "target_modules"
    else:
        what, where = f"no module matches {_said(config.target_modules)}", "target_modules"
    layers = config.layers_to_transform
    if layers is not None:
        numbers = [layers] if isinstance(layers, int) else layers
        what += f" in layer{'s' * (len(numbers) != 1)} {listed(map(str, numbers))} of"
    else:
        what += " in"
    raise NoTargetModulesError(
        f"{what[0].upper()}{what[1:]} {index.tree.architecture or 'this model'}, so PEFT would refuse.",
        where=where,
        way_out=_way_out(index, config, where, excluded),
    )


def _way_out(index: TreeIndex, config: LoraConfig, where: str, excluded: bool) -> str:
    if excluded:
        return "leave them out of exclude_modules and modules_to_save, or target others"
    return _parameters(index, config) if where == "target_parameters" else _instead(index, config)


def _said(targets: Iterable[str]) -> str:
    return repr(targets[:200]) if isinstance(targets, str) else _or(targets)


def _or(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return " or ".join(name[:60] for name in names[:SHOWN]) + more


def _instead(index: TreeIndex, config: LoraConfig) -> str:
    linear = [name for name, module in index.modules.items() if module.kind in ("Linear", "Conv1D")]
    refused = [name for name, layer in index.tree.quantised.items() if layer.refusal]
    there = sorted({*last_parts(linear)} - {*last_parts(refused)})
    if refused and not there:
        return "load a base that is not quantised so: PEFT has no layer for what stands in place of its Linear modules"
    if isinstance(config.target_modules, str):
        found = [name for name in there if name in config.target_modules]
        if found:
            return f"an expression is matched against the whole name: .*\\.({'|'.join(found[:SHOWN])})"
        asked: list[str] = []
    else:
        # peft 0.21.2, _maybe_include_all_linear_layers: only a text means all
        if there and "all-linear" in (config.target_modules or ()):
            return 'in a list all-linear is a name: give it alone, as a text ("target_modules": "all-linear")'
        asked = last_parts(sorted(config.target_modules or ())[:SHOWN])
        if _has(index, asked) and config.layers_to_transform is not None:
            return (
                "the names are there, but in none of these layers: layers count from 0, where the first number stands"
            )
    all_linear = ["all-linear"] if there and all_linear_modules(index, config.task_type) else []
    close = closest(asked, [*there, *all_linear])
    if close:
        return f"did you mean {listed(close)}?"
    if not there:
        return "this model has no Linear modules"
    return f"target {listed(there)}{', or all-linear' if all_linear else ''}"


def _has(index: TreeIndex, names: Iterable[str]) -> bool:
    return any(index.with_suffix(name) for name in names)


def _parameters(index: TreeIndex, config: LoraConfig) -> str:
    names = [name for name, parameter in index.named_parameters() if len(parameter.shape) in (2, 3)]
    close = closest(config.target_parameters or (), {".".join(name.split(".")[-2:]) for name in names})
    fused = [name for name, parameter in index.named_parameters() if len(parameter.shape) == 3]
    if close:
        return f"did you mean {listed(close)}?"
    return f"name one such as {(fused or names or ['weight'])[0]}, or the end of its name"
