"""What to say where nothing matched (peft 0.21.2: the end of inject_adapter)."""

from __future__ import annotations

from typing import NoReturn

from estimator.errors import NoTargetModulesError
from estimator.lora.index import TreeIndex
from estimator.lora.match import DUMMY_TARGET_MODULES, Matched
from estimator.request.lora_config import LoraConfig

_SHOWN = 8


def refuse_nothing_matched(index: TreeIndex, config: LoraConfig, matched: Matched) -> NoReturn | None:
    """Raises NoTargetModulesError that says what was targeted, and what there is instead."""
    if config.target_modules == DUMMY_TARGET_MODULES:
        return None
    if matched.excluded and not matched.unmatched:
        what, where = "every module is excluded", "exclude_modules"
    elif not config.target_modules and not matched.excluded:
        what, where = "no module and no parameter is targeted", "target_modules"
    elif matched.excluded:
        what, where = "what target_modules names is excluded, by exclude_modules or modules_to_save", "target_modules"
    else:
        what, where = f"no module matches {_said(config.target_modules)}", "target_modules"
    if config.layers_to_transform is not None:
        what += f" in layers {str(config.layers_to_transform)[:60]}"
    raise NoTargetModulesError(
        f"{what[0].upper()}{what[1:]} in {index.tree.architecture or 'this model'}, so PEFT would refuse.",
        where=where,
        way_out=_instead(index, config),
    )


def _said(targets) -> str:
    if isinstance(targets, str):
        return repr(targets[:200])
    names = sorted(targets)
    return " or ".join(name[:60] for name in names[:_SHOWN]) + (
        f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    )


def _instead(index: TreeIndex, config: LoraConfig) -> str:
    from difflib import get_close_matches

    there = sorted(
        {name.rpartition(".")[2] for name, module in index.modules.items() if module.kind in ("Linear", "Conv1D")}
    )
    asked = [] if isinstance(config.target_modules, str) else sorted(config.target_modules or ())[:_SHOWN]
    close = list(dict.fromkeys(name for one in asked for name in get_close_matches(one.rpartition(".")[2], there, n=2)))
    if close:
        return f"did you mean {', '.join(close[:_SHOWN])}?"
    return f"target {', '.join(there[:_SHOWN])}, or all-linear" if there else "this model has no Linear modules"
