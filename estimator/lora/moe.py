"""Names of transformers 4 on models whose experts transformers 5 fuses.

peft 0.21.2: convert_peft_config_for_transformers, _convert_peft_config_moe, _resolve_string_target_modules
(peft/utils/transformers_weight_conversion.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from estimator.errors import InvalidLoraError
from estimator.lora.facts import moe_fused, moe_pattern, moe_targets
from estimator.lora.index import TreeIndex
from estimator.lora.match import INCLUDE_LINEAR_LAYERS_SHORTHAND, all_linear_modules, excluded_among
from estimator.request.lora_config import LoraConfig
from estimator.request.patterns import fullmatching


def converted(index: TreeIndex, config: LoraConfig) -> LoraConfig:
    """The config with expert names as parameters, and the rank of fused ones multiplied.

    Raises InvalidLoraError where only some of the names are targeted that one parameter fuses.
    """
    pattern = moe_pattern(str(index.tree.config.get("model_type"))) if config.peft_type == "LORA" else None
    if pattern is None:
        return config
    mapping, fused = moe_targets(pattern), moe_fused(pattern)
    targets = config.target_modules
    if isinstance(targets, str):
        targets = _resolved(index, config, targets, mapping)
        if not targets:
            return config
    parameters, remaining = set(config.target_parameters or ()), set()
    present: dict[str, set[str]] = {new: set() for new in fused}
    for target in set(targets or ()):
        old = next((old for old in mapping if target == old or target.endswith(f".{old}")), None)
        if old is None:
            remaining.add(target)
            continue
        parameters.add(mapping[old])
        present.setdefault(mapping[old], set()).add(old)
    ranks, alphas = dict(config.rank_pattern), dict(config.alpha_pattern)
    for new, olds in fused.items():
        missing = set(olds) - present[new]
        if present[new] and missing:
            raise _partial(present[new], missing, new)
        if present[new] and len(olds) > 1:
            ranks[rf".*\.{re.escape(new)}"] = config.r * len(olds)
            alphas[rf".*\.{re.escape(new)}"] = config.lora_alpha * len(olds)
    return config._replace(
        target_modules=tuple(sorted(remaining)),
        target_parameters=tuple(sorted(parameters)),
        rank_pattern=ranks,
        alpha_pattern=alphas,
    )


def _partial(present: set[str], missing: set[str], new: str) -> InvalidLoraError:
    return InvalidLoraError(
        f"{', '.join(sorted(present))} cannot be targeted without {', '.join(sorted(missing))}: "
        f"transformers 5 fuses them into {new}.",
        where="target_modules",
        way_out=f"target {', '.join(sorted(present | missing))} together, or name {new} in target_parameters",
    )


def _resolved(index: TreeIndex, config: LoraConfig, targets: str, mapping: Mapping[str, str]) -> set[str]:
    """The last parts of the names that a text targets, names of transformers 4 among them."""
    if targets.lower() == INCLUDE_LINEAR_LAYERS_SHORTHAND:
        return {name.rpartition(".")[2] for name in all_linear_modules(index, config.task_type)} | set(mapping)
    parameters = [name for name, _ in index.named_parameters() if name not in index.tree.tied]
    matched = {name.rpartition(".")[2] for name in _matched(config, targets, [*index.modules, *parameters])}
    for old, new in mapping.items():
        if old not in matched:
            containers = {name.rpartition(".")[0] for name in parameters if name.rpartition(".")[2] == new}
            if _matched(config, targets, sorted(f"{container}.{old}" for container in containers)):
                matched.add(old)
    return matched


def _matched(config: LoraConfig, targets: str, names: list[str]) -> list[str]:
    """check_target_module_exists on names of modules, of parameters and of transformers 4."""
    taken = fullmatching(targets, names, where="target_modules")
    excluded = excluded_among(taken, config)
    return [name for name in taken if name not in excluded]
