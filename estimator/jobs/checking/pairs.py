"""What an adapter's tensors and its config say of each other without the base: halves, ranks, names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from estimator.checkpoint.checkpoint import Checkpoint
from estimator.report.findings import Problem

_HALF = re.compile(r"(?:base_model\.model\.)*(.*)\.lora_(embedding_)?([AB])(?:\.[^.]+)?(?:\.weight)?")


class Pair(NamedTuple):
    """Both matrices of LoRA on one module, as an adapter's file has them."""

    module: str
    a: tuple[int, ...]  # Linear: (r, in); Embedding: (r, rows)
    b: tuple[int, ...]  # (out, r)


def pair_problems(config: Mapping[str, Any], checkpoint: Checkpoint) -> list[Problem]:
    """Faults that no base is needed for, at most one of a kind; [] for another method than LoRA."""
    if config.get("peft_type", "LORA") not in ("LORA", None):
        return []
    halves: dict[str, dict[str, tuple[int, ...]]] = {}
    for tensor in checkpoint.tensors.values():
        if match := _HALF.fullmatch(tensor.name):
            halves.setdefault(match[1], {})[match[3]] = tensor.shape
    pairs = [Pair(name, half["A"], half["B"]) for name, half in halves.items() if len(half) == 2]
    alone = [name for name, half in halves.items() if len(half) == 1]
    found = (_alone(alone), _unequal(pairs), _rank(config, pairs), _untargeted(config, pairs))
    return [problem for problem in found if problem is not None]


def _alone(names: list[str]) -> Problem | None:
    if not names:
        return None
    message = f"{len(names)} modules have only one of lora_A and lora_B, {names[0][:200]} among them."
    return Problem("missing_modules", message + " Save the adapter again.")


def _unequal(pairs: list[Pair]) -> Problem | None:
    for pair in pairs:
        if len(pair.a) == len(pair.b) == 2 and pair.a[0] != pair.b[1]:
            message = f"lora_A of {pair.module[:200]} has rank {pair.a[0]:,}, its lora_B has {pair.b[1]:,}."
            return Problem("other_rank", message + " Save the adapter again.")
    return None


def _rank(config: Mapping[str, Any], pairs: list[Pair]) -> Problem | None:
    """Fused experts have one rank for each, so they are passed by."""
    pattern = config.get("rank_pattern")
    ranks = [config.get("r", 8), *(pattern.values() if isinstance(pattern, Mapping) else ())]
    odd = [p for p in _plain(pairs) if len(p.a) == len(p.b) == 2 and p.a[0] == p.b[1] and p.a[0] not in ranks]
    if not odd:
        return None
    message = f"{len(odd)} modules have rank {odd[0].a[0]:,}, {odd[0].module[:200]} among them; the config has no such"
    return Problem("other_rank", message + " rank. Set r and rank_pattern to the ranks of the file.")


def _untargeted(config: Mapping[str, Any], pairs: list[Pair]) -> Problem | None:
    targets = config.get("target_modules")
    if not isinstance(targets, (list, tuple)) or not targets:
        return None
    ends = tuple(f".{name}" for name in targets)
    odd = [pair.module for pair in _plain(pairs) if not f".{pair.module}".endswith(ends)]
    if not odd:
        return None
    message = f"{len(odd)} modules are not in target_modules, {odd[0][:200]} among them. Name what was trained."
    return Problem("extra_modules", message)


def _plain(pairs: list[Pair]) -> Iterator[Pair]:
    return (pair for pair in pairs if "experts" not in pair.module)
