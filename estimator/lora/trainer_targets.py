"""What trainers make of their own ways to name targets, on the modules of a model.

Each rule hands on fields of a LoraConfig and, where the trainer's own modules are split or fused otherwise than the
published class's, the tree as the trainer builds it: the count is then the trainer's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from estimator.architecture.module import ModuleTree
from estimator.lora.trainer_modules import litgpt, torchtune
from estimator.lora.trainer_rule import Resolved, leaf, linear
from estimator.lora.trainer_towers import llamafactory, swift
from estimator.notes import Note


def apply_rule(name: str, settings: Mapping[str, Any], tree: ModuleTree, lora: Mapping[str, Any]) -> Resolved:
    """Raises UnsupportedError where the trainer's own modules are not known here."""
    return _RULES[name](settings, tree, dict(lora))


def _axolotl_linear(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """axolotl 0.18.0, loaders/adapter.py, find_all_linear_names: no part of a model is left out but the head."""
    head = "embed_out" if tree.config.get("model_type") == "gpt_neox" else "lm_head"
    names = {leaf(module.name) for module in linear(tree)} - {head}
    lora["target_modules"] = sorted(names | set(settings.get("and") or ()))
    return Resolved(tree, lora)


def _nemo(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """NeMo Automodel's ModuleMatcher: wildcards over full names, the head not spared; nn.Linear alone is wrapped."""
    wanted, excluded = (
        [re.compile(re.escape(pattern).replace(r"\*", ".*")) for pattern in settings[key]]
        for key in ("target_modules", "exclude_modules")
    )

    def named(patterns: Sequence[re.Pattern[str]], name: str) -> bool:
        return any(pattern.fullmatch(name) or pattern.fullmatch(leaf(name)) for pattern in patterns)

    every = settings.get("match_all_linear") or not wanted
    names = [m.name for m in linear(tree) if (every or named(wanted, m.name)) and not named(excluded, m.name)]
    lora["target_modules"] = names
    notes: tuple[Note, ...] = ()
    if tree.output_embedding in names:
        notes = (
            Note("head_adapted", f"{tree.output_embedding} is adapted too; PEFT's all-linear would leave it out."),
        )
    return Resolved(tree, lora, notes)


def _listed(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """The names as they are, on the class that the checkpoint names."""
    return Resolved(tree, lora)


_RULES: Mapping[str, Callable[[Mapping[str, Any], ModuleTree, dict[str, Any]], Resolved]] = {
    "listed": _listed,
    "axolotl_linear": _axolotl_linear,
    "llamafactory": llamafactory,
    "swift_all_linear": swift,
    "torchtune": torchtune,
    "litgpt": litgpt,
    "nemo": _nemo,
}
