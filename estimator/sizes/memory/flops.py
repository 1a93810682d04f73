"""Floating-point operations of a LoRA training run, as bounds for each token.

A multiplication and an addition for each weight in the forward pass (2 N); backwards as many again for the gradient of
the inputs, which frozen matrices pass on, and twice as many for adapters (4 n: inputs and weights). Gradient
checkpointing computes the forward pass twice. Attention's two products over s tokens are 4 s w for each query of
width w, and half of it where a causal kernel skips what is masked. Norms, activations and the loss are left out.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from estimator.architecture.module import Module, ModuleTree
from estimator.sizes.memory.shape import Shape


class Flops(NamedTuple):
    """Floating-point operations, as bounds."""

    lower: int
    upper: int


def training_flops(
    tree: ModuleTree, shape: Shape, adapter_parameters: int, sequence_length: int, *, checkpointing: bool
) -> Flops:
    """Operations for each token."""
    passes = 2 if checkpointing else 1
    frozen = active_elements(tree, shape) * 2 * (passes + 1)
    trained = adapter_parameters * 2 * (passes + 2)
    scores = sum(2 * sequence_length * block.query for block in shape.blocks) * (passes + 2)
    return Flops(frozen + trained + scores, frozen + trained + 2 * scores)


def active_elements(tree: ModuleTree, shape: Shape) -> int:
    """Elements of the matrices that one token meets: of experts only as many as are chosen."""
    experts = max((block.experts for block in shape.blocks), default=0)
    chosen = max((block.experts_per_token for block in shape.blocks if block.experts), default=1)
    dense = of_experts = 0
    for module in tree.modules:
        elements = _elements(module)
        if ".experts" in module.name and ".shared" not in module.name:
            of_experts += elements
        else:
            dense += elements
    return dense + (of_experts * chosen // experts if experts else of_experts)


def _elements(module: Module) -> int:
    if module.kind in ("Linear", "Conv1D"):
        return prod(module.parameters[0].shape) if module.parameters else 0
    return sum(prod(p.shape) for p in module.parameters if len(p.shape) == 3 and module.kind == "other")
