"""The formulas of one class, read from the generated file: only the block of lines that holds it.

The file is text, one class a line, sorted, `class<TAB>JSON`, packed in blocks with zlib behind a table of first names.
The JSON: {"n": [node, ...] (the last is the root), "ties", "in", "out", "fp32", "fp32s", "declares", "tie", "types",
"composite",
"rules": {path: {"absent": rule, "null": rule}}, "aliases", "seen": {path: [values]}}, a node

    [cls, kind, [[name, when, [size, ...], dtype], ...], [[name, when, [size, ...], dtype, saved], ...], groups,
     transposed, [[child, when or how many, [[condition, number of a node], ...]], ...]]

where a child named "*" or "stage*" stands for as many as its size says, and a size is formula.py's, or
[[condition, size], ...].
"""

from __future__ import annotations

import bisect
import json
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

SHAPES = Path(__file__).with_name("shapes.facts")
_BLOCK_CHARACTERS = 40_000


def pack(text: str) -> bytes:
    """Blocks of lines, each packed by itself, behind a table of the first line's name and the size of each."""
    blocks: list[list[str]] = []
    size = 0
    for entry in text.rstrip("\n").split("\n"):
        if not blocks or size > _BLOCK_CHARACTERS:
            blocks.append([])
            size = 0
        blocks[-1].append(entry)
        size += len(entry)
    packed = [zlib.compress("\n".join(block).encode(), 9) for block in blocks]
    names = [block[0].partition("\t")[0] for block in blocks]
    table = json.dumps([names, [len(block) for block in packed]]).encode()
    return len(table).to_bytes(4, "little") + table + b"".join(packed)


@cache
def _packed() -> tuple[bytes, list[str], list[int]]:
    data = SHAPES.read_bytes()
    start = 4 + int.from_bytes(data[:4], "little")
    names, sizes = json.loads(data[4:start])
    places = [start]
    for size in sizes:
        places.append(places[-1] + size)
    return data, names, places


@cache
def _block(number: int) -> list[str]:
    data, _, places = _packed()
    return zlib.decompress(data[places[number] : places[number + 1]]).decode().split("\n")


def whole_text() -> str:
    """The file as text, one class a line."""
    return "\n".join(entry for number in range(len(_packed()[1])) for entry in _block(number)) + "\n"


@cache
def shapes_of(name: str) -> Mapping[str, Any] | None:
    """What the file says of a class; None where the class needs headers."""
    lines = _block(max(0, bisect.bisect_right(_packed()[1], name) - 1))
    for entry in lines:
        if entry.startswith(f"{name}\t"):
            return json.loads(entry[len(name) + 1 :])
    return None
