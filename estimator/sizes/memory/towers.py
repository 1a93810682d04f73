"""Which of a model's towers see tokens; the others see pieces of images or sound, of another number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from estimator.architecture.module import Module

_STEMS = frozenset({"Conv1d", "Conv2d", "Conv3d"})
_POSITIONS = re.compile(r"pos(?:ition(?:al)?)?_?(?:s|embed\w*)?$|embed_positions")
_ADDED = re.compile(r"(?:cls|class|distillation|register)_(?:token|embedding)s?$")
_REGISTERS = re.compile(r"register_tokens$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """One stack of layers and what stands around it."""

    stack: str  # what stands before a layer's number
    width: int
    around: tuple[Module, ...]
    stem: str  # kind of the convolution that makes the pieces
    pieces: int | None  # of one image or sound: rows of the table of positions; None where there is no table
    is_rotary: bool
    embedded: int  # tensors as wide as a layer's input that are kept before the first where it needs gradients


def seeing_tokens(blocks: Iterable[str], outside: Iterable[Module], embedding: str | None) -> frozenset[str]:
    """Those layers to which the embedding of words is at least as near in the tree as a convolution of pieces.

    outside: the modules that stand in no layer; embedding: the one behind get_input_embeddings(), which an encoder of
    images or sound answers with its convolution, or with what holds it. Where nothing is embedded, nothing is a word.
    """
    outside = tuple(outside)
    stems = tuple(module.name for module in outside if module.kind in _STEMS)
    is_words = any(module.name == embedding and module.kind == "Embedding" for module in outside)
    has_words = any(m.kind == "Embedding" or ("embed" in m.name and _has_table(m)) for m in outside)
    reads_pieces = any(f"{stem}.".startswith(f"{embedding}.") for stem in stems)

    def sees(block: str) -> bool:
        near = max((shared_parts(block, stem) for stem in stems), default=0)
        if near == 0:
            return has_words and not reads_pieces
        return is_words and shared_parts(block, embedding or "") >= near

    return frozenset(filter(sees, blocks))


def tower_of(stack: str, width: int, outside: Sequence[Module]) -> Tower:
    """The tower of these layers; outside: the modules that stand in no layer."""
    near = max((shared_parts(stack, m.name) for m in outside if m.kind in _STEMS), default=0)
    around = tuple(m for m in outside if shared_parts(stack, m.name) >= near)
    stems = [m for m in around if m.kind in _STEMS]
    named = [(m, f"{m.name}.{p.name}".removesuffix(".weight"), p.shape) for m in around for p in m.parameters]
    tables = [shape for _, name, shape in named if _POSITIONS.search(name) and _is_table(shape, width)]
    registers = sum(shape[-2] for _, name, shape in named if _REGISTERS.search(name) and len(shape) > 1)
    adds = bool(tables) or any(_ADDED.search(name) for _, name, _ in named)
    # Convolutions along time keep what goes in and comes out, and each but the last has twice the positions of the
    # next (modeling_whisper.py); one that cuts an image in pieces keeps its output, which is made to need a gradient
    along = [m for m in stems if m.kind == "Conv1d"]
    kept = sum(2 ** (len(along) - i) for i in range(len(along))) - 1 if along else 1
    return Tower(
        stack=stack,
        width=width,
        around=around,
        stem=stems[0].kind if stems else "",
        pieces=tables[0][-2] + registers if len(tables) == 1 else None,
        is_rotary=any("rotary" in m.name or "rope" in m.name for m in around),
        embedded=kept if adds else 0,
    )


def _has_table(module: Module) -> bool:
    return any(p.name == "weight" and len(p.shape) == 2 for p in module.parameters)


def _is_table(shape: Sequence[int], width: int) -> bool:
    return len(shape) in (2, 3) and shape[-1] == width and (len(shape) == 2 or shape[0] == 1)


def shared_parts(one: str, other: str) -> int:
    """Parts of two names that are the same, from the left."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
