"""The model as transformers 4 built it, where transformers 5 fuses experts: a Linear for each matrix of each expert.

    v5   mlp.gate (a router)   mlp.experts.gate_up_proj [E, 2 inner, width]   mlp.experts.down_proj [E, width, inner]
    v4   mlp.gate (Linear)     mlp.experts.0.gate_proj, up_proj [inner, width], down_proj [width, inner], ...
    v4   block_sparse_moe.gate block_sparse_moe.experts.0.w1, w3, w2: Mixtral and what was made after it

Adapters made then hold matrices for each expert (peft 0.21.2 converts them on loading,
peft/utils/transformers_weight_conversion.py).
"""

from collections.abc import Container, Iterator
from typing import NamedTuple

from estimator.architecture.module import Module, ModuleTree, Parameter

_FUSED = {"gate_up_proj", "down_proj"}
_MOST_EXPERTS = 100_000  # of one model, over all layers; the largest published ones have some 40,000


class ExpertNames(NamedTuple):
    """What transformers 4 called the parts of one expert."""

    block: str | None  # what the block was called; None where it keeps its name
    gate: str
    up: str
    down: str


EXPERT_NAMES = (
    ExpertNames(None, "gate_proj", "up_proj", "down_proj"),
    ExpertNames("block_sparse_moe", "w1", "w3", "w2"),
)


def with_separate_experts(tree: ModuleTree, names: ExpertNames) -> ModuleTree | None:
    """The tree with experts one by one under these names; None where it fuses none."""
    fused = {module.name: module.parameters[0].shape[0] for module in tree.modules if _is_fused(module)}
    if not 0 < sum(fused.values()) <= _MOST_EXPERTS:
        return None
    blocks = {name.rpartition(".")[0] for name in fused}
    modules = tuple(new for module in tree.modules for new in _separate(module, fused, blocks, names))
    # PEFT translates the old names by the model type; on this tree they are modules' names
    config = {**tree.config, "model_type": None}
    return tree._replace(modules=modules, config=config)


def _is_fused(module: Module) -> bool:
    return module.name.endswith(".experts") and {p.name for p in module.parameters if len(p.shape) == 3} == _FUSED


def _separate(module: Module, fused: Container[str], blocks: set[str], names: ExpertNames) -> Iterator[Module]:
    name = _renamed(module.name, blocks, names)
    if module.name in fused:
        yield module._replace(name=name, cls="ModuleList", parameters=())
        yield from _experts(module, name, names)
    elif module.name.endswith(".gate") and module.name.rpartition(".")[0] in blocks and module.parameters:
        yield module._replace(name=name, cls="Linear", kind="Linear", parameters=module.parameters[:1])
    else:
        yield module._replace(name=name)


def _renamed(name: str, blocks: set[str], names: ExpertNames) -> str:
    if names.block is None:
        return name
    block = next((block for block in blocks if name == block or name.startswith(f"{block}.")), None)
    return name if block is None else f"{block.rpartition('.')[0]}.{names.block}{name.removeprefix(block)}"


def _experts(module: Module, name: str, names: ExpertNames) -> Iterator[Module]:
    fused = {parameter.name: parameter for parameter in module.parameters}
    (experts, twice, width), dtype = fused["gate_up_proj"].shape, fused["gate_up_proj"].dtype
    shapes = {names.gate: (twice // 2, width), names.up: (twice // 2, width), names.down: (width, twice // 2)}
    for expert in range(experts):
        for leaf, shape in shapes.items():
            yield Module(f"{name}.{expert}.{leaf}", "Linear", "Linear", (Parameter("weight", shape, dtype),))
