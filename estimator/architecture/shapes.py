"""The formulas of one class, read from the generated file.

A line is a class's name and JSON: {"n": [node, ...] (the last is the root), "ties": [[target, source, condition], ...],
"in", "out": the embeddings' names, as options, "types": the model types whose config it was tried with,
"rules": {path: {"absent": rule, "null": rule, "alone": rule where its section is left out too}}, "aliases",
"seen": {path: [values; "#" for any number]}, "outside": {section: [fields that may stand at the top in its place]},
"replaced": [sections whose `_dict` stands in their place], "longer": [lists of the layers' kinds that may have more
entries than there are layers]}, a node

    [cls, kind, [[name, when, [size, ...], dtype], ...], [[name, when, [size, ...], dtype, saved], ...], groups,
     transposed, [[child, when or how many, [[condition, number of a node], ...]], ...]]

where a child named "*" or "stage*" stands for as many as its size says, or as {"stages": size, "each": size} where
the blocks of several stages stand in one list: a block's index is that within its stage, the stage's the outer one. A
size is formula.py's, or [[condition, size], ...].
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from estimator.architecture.packed import PackedLines

SHAPES = Path(__file__).with_name("shapes.facts")
BLOCK_CHARACTERS = 505_000
_LINES = PackedLines(SHAPES)


def shapes_of(name: str) -> Mapping[str, Any] | None:
    """What the file says of a class; None where the class needs headers."""
    said: Mapping[str, Any] | None = _LINES.parsed(name)
    return said


def whole_text() -> str:
    """The file as text, one class a line."""
    return _LINES.whole_text()
