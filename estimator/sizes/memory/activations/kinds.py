"""Which layers are alike in all that a step asks of them: one of each kind is played."""

from __future__ import annotations

from collections.abc import Iterable

from estimator.sizes.memory.blocks import Block
from estimator.sizes.memory.training import Adapter


def kinds_of(blocks: Iterable[Block], adapter: Adapter, packed: frozenset[str]) -> tuple[int, ...]:
    """A number for each layer, the same for those of a kind; packed: matrices that are unpacked as they are used."""
    every = (packed, adapter.still, adapter.still_down, adapter.still_up, adapter.biased_up, adapter.opened,
             adapter.biased)  # fmt: skip
    parts = [part for part in every if part]
    numbers: dict[object, int] = {}
    return tuple(numbers.setdefault(_likeness(block, adapter, parts), len(numbers)) for block in blocks)


def _likeness(block: Block, adapter: Adapter, parts: list[frozenset[str]]) -> object:
    ranks = adapter.ranks
    matrices = tuple(
        (i.name.rpartition(".")[2], i.inputs, i.outputs, ranks.get(i.name), *[i.name in part for part in parts])
        for i in (*block.attention, *block.cross, *block.state, *block.mlp, *block.given)
    )
    fused = block.fused and (block.fused.name, f"{block.fused.name}.base_layer", block.fused.router)
    experts = [(ranks.get(name), adapter.wrapped.get(name), *[name in part for part in parts]) for name in fused or ()]
    norms = [(*norm[:3], norm.name.rpartition(".")[2], norm.name in adapter.open_norms) for norm in block.norms]
    widths = (block.query, block.key_value, block.window, block.inner, block.experts)
    return block.tower, matrices, tuple(norms), widths, tuple(experts)
