"""What vLLM 0.33.0 sets aside for LoRA, and which adapters it refuses.

A server with LoRA wraps every linear layer of the language model, adapted or not, and allocates for each `max_loras`
stacks of A and B at `max_lora_rank` in the model's dtype (vllm/lora/layers/base_linear.py and its siblings,
create_lora_weights; model_manager.py, _create_lora_modules; towers of other senses are left out). Classes that name
their embeddings in `embedding_modules` have input embedding and head wrapped as well. Experts have stacks of their own
(fused_moe.py): two A for gate and up where the weights are kept apart, one where they are fused.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from estimator.architecture.module import Module, ModuleTree

RELEASE = "0.33.0"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # config/lora.py, MaxLoRARanks
DEFAULT_RANK = 16
GPU_MEMORY_UTILIZATION = 0.92  # config/cache.py
MAX_VOCABULARY = 258_048  # layers/logits_processor.py: of a class whose head is wrapped
_TOWER = re.compile(r"vision|visual|image|audio|speech|multi_modal_projector|mm_projector|connector|merger")


class Elements(NamedTuple):
    """Elements of the stacks for each unit of rank, one adapter and one GPU."""

    lower: int
    upper: int


@cache
def _facts() -> dict[str, bool]:
    """Class -> whether its embeddings are wrapped, of the classes that vLLM serves LoRA on."""
    text = Path(__file__).with_name("vllm.facts").read_text(encoding="utf-8")
    rows = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
    return {row[0]: len(row) > 1 for row in rows}


def serves(architecture: str | None) -> bool:
    return architecture in _facts()


def wraps_embeddings(architecture: str | None) -> bool:
    return _facts().get(architecture or "", False)


def stacked_elements(tree: ModuleTree, gpus: int) -> Elements:
    """With several GPUs either A or B of a layer is cut among them: bounds."""
    lower = upper = 0
    for module in tree.modules:
        low, high = _elements(module, tree, gpus)
        lower, upper = lower + low, upper + high
    return Elements(lower, upper)


def _elements(module: Module, tree: ModuleTree, gpus: int) -> tuple[int, int]:
    if not module.parameters or _TOWER.search(module.name):
        return 0, 0
    if module.name in (tree.output_embedding, tree.input_embedding):
        return _of_embedding(module, tree, gpus)
    shape = module.parameters[0].shape
    if module.kind in ("Linear", "Conv1D"):
        whole = sum(shape[:2])
        return (-(-whole // gpus), whole - min(shape[:2]) + -(-min(shape[:2]) // gpus)) if gpus > 1 else (whole, whole)
    if module.kind == "other":
        return _of_experts(module, gpus)
    return 0, 0


def _of_embedding(module: Module, tree: ModuleTree, gpus: int) -> tuple[int, int]:
    """A head that shares its weight with the input embedding is wrapped all the same."""
    rows, width = module.parameters[0].shape[:2]
    if wraps_embeddings(tree.architecture):
        return rows + width, rows + width
    return 0, rows + width if tree.is_composite else 0  # the language model inside may be of a class that wraps


def _of_experts(module: Module, gpus: int) -> tuple[int, int]:
    """Fused experts; a router's matrix counts as a layer."""
    lower = upper = 0
    for parameter in module.parameters:
        if len(parameter.shape) == 3:
            experts, *sides = parameter.shape
            lower += experts * sum(sides) // gpus
            upper += experts * (sum(sides) + (min(sides) if "gate_up" in parameter.name else 0))
        elif len(parameter.shape) == 2 and all(parameter.shape) and parameter.name == "weight":
            upper += sum(parameter.shape)
    return lower, upper
