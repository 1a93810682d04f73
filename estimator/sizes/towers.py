"""Which of a model's towers see tokens; the others see pieces of images or sound, of another number."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile


def sees_tokens(block: str, words: str | None, stems: Iterable[str]) -> bool:
    """Whether the embedding of words is at least as near in the tree as a convolution of patches or frames."""
    near = max((_shared(block, stem) for stem in stems), default=0)
    return near == 0 or (words is not None and _shared(block, words) >= near)


def _shared(one: str, other: str) -> int:
    """Parts of two names that are the same, from the left."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
