"""Adapters of other methods than LoRA, as far as their size is explained: PEFT's adaption prompts and OSF.

    ADAPTION_PROMPT   in each of `adapter_layers` layers a prompt [1, adapter_len, hidden size] and a gate [1]
    OSF               of each targeted weight the directions below the rank kept: U [out, low], S [low], V [low, in]

peft 0.21.2, tuners/adaption_prompt/layer.py and tuners/osf/layer.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

from estimator.architecture.module import ModuleTree
from estimator.sizes.adapter_causes import Cause

Shapes = Iterator[tuple[int, ...]]
HEADER_BYTES_A_TENSOR = 300  # a name, a dtype, a shape and two offsets


def other_method_causes(config: Mapping[str, Any], tree: ModuleTree, actual_bytes: int) -> tuple[Cause, ...] | None:
    """Why the file of another method has its size; None where its rule is not known or does not fit."""
    method = str(config.get("peft_type"))
    shapes = list(_SHAPES[method](config, tree)) if method in _SHAPES else []
    elements = sum(map(prod, shapes))
    for width in (4, 2):
        beside = actual_bytes - elements * width
        if shapes and 0 < beside <= HEADER_BYTES_A_TENSOR * len(shapes) + 64:
            message = f"This is an adapter of {method}, not of LoRA: {elements:,} elements in {len(shapes):,} tensors."
            halved = Cause("sixteen_bit", "The tensors have 16 bits.", len(shapes), -2 * elements)
            return (Cause("other_method", message, len(shapes), 0), *([halved] if width == 2 else []))
    return None


def _adaption_prompts(config: Mapping[str, Any], tree: ModuleTree) -> Shapes:
    text = tree.config.get("text_config")
    width = (text if isinstance(text, Mapping) else tree.config).get("hidden_size")
    length, layers = config.get("adapter_len"), config.get("adapter_layers")
    if all(type(value) is int for value in (width, length, layers)):
        for _ in range(layers):
            yield 1, length, width
            yield (1,)


def _low_rank_parts(config: Mapping[str, Any], tree: ModuleTree) -> Shapes:
    targets, ranks = config.get("target_modules") or (), config.get("rank_pattern") or {}
    for module in tree.modules:
        name = module.name.rpartition(".")[2]
        if module.kind != "Linear" or isinstance(targets, str) or name not in targets:
            continue
        out, columns = module.parameters[0].shape
        kept = ranks.get(name, config.get("effective_rank"))
        low = min(out, columns) - kept if type(kept) is int else 0
        if low > 0:
            yield from ((out, low), (low,), (low, columns))


_SHAPES: Mapping[str, Callable[[Mapping[str, Any], ModuleTree], Shapes]] = {
    "ADAPTION_PROMPT": _adaption_prompts,
    "OSF": _low_rank_parts,
}
