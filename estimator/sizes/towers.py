"""Which of a model's towers see tokens; the others see pieces of images or sound, of another number."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from estimator.architecture.module import Module

_STEMS = frozenset({"Conv1d", "Conv2d", "Conv3d"})


def seeing_tokens(blocks: Iterable[str], outside: Iterable[Module], embedding: str | None) -> frozenset[str]:
    """Those layers to which the embedding of words is at least as near in the tree as a convolution of pieces.

    outside: the modules that stand in no layer; embedding: the one behind get_input_embeddings(), which an encoder of
    images or sound answers with its convolution, or with what holds it.
    """
    outside = tuple(outside)
    stems = tuple(module.name for module in outside if module.kind in _STEMS)
    is_words = any(module.name == embedding and module.kind == "Embedding" for module in outside)
    reads_pieces = any(f"{stem}.".startswith(f"{embedding}.") for stem in stems)

    def sees(block: str) -> bool:
        near = max((_shared(block, stem) for stem in stems), default=0)
        if near == 0:
            return not reads_pieces
        return is_words and _shared(block, embedding or "") >= near

    return frozenset(filter(sees, blocks))


def _shared(one: str, other: str) -> int:
    """Parts of two names that are the same, from the left."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
