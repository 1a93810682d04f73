"""A generated file of lines, `name<TAB>JSON`, sorted by name and packed in blocks: one is read without the rest.

Four bytes say how long the table is; the table (LZMA of JSON) has each block's first name and size; the blocks (LZMA)
follow.
"""

from __future__ import annotations

import bisect
import json
import lzma
from functools import cache, cached_property
from pathlib import Path
from typing import Any

# Stated, so that bytes stay the same; no block is longer than the dictionary.
_FILTERS = [
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 20, "lc": 2, "lp": 0, "pb": 0}
]


class PackedLines:
    """The lines of one file; read where they are first asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._block, self.parsed = cache(self._read_block), cache(self._parse)

    @cached_property
    def _table(self) -> tuple[bytes, list[str], list[int]]:
        """The file's bytes, the name that each block begins with, where each begins; one more for the end."""
        packed = self.path.read_bytes()
        start = 4 + int.from_bytes(packed[:4], "little")
        names, sizes = json.loads(_decompressed(packed[4:start]))
        places = [start]
        for size in sizes:
            places.append(places[-1] + size)
        return packed, names, places

    def _read_block(self, number: int) -> str:
        packed, _, places = self._table
        return _decompressed(packed[places[number] : places[number + 1]])

    def line(self, name: str) -> str | None:
        """The JSON text behind a name; None where there is no such line."""
        number = bisect.bisect_right(self._table[1], name) - 1
        if number < 0:
            return None
        block = self._block(number)
        start = 0 if block.startswith(f"{name}\t") else block.find(f"\n{name}\t") + 1
        if not start and not block.startswith(f"{name}\t"):
            return None
        end = block.find("\n", start)
        return block[start + len(name) + 1 : end if end >= 0 else None]

    def _parse(self, name: str) -> Any:
        """What the JSON behind a name says; None where there is no such line."""
        text = self.line(name)
        return None if text is None else json.loads(text)

    def first_line(self) -> str:
        """What stands first, whether it has a name or not."""
        return self._block(0).partition("\n")[0]

    def whole_text(self) -> str:
        """The file as text."""
        return "\n".join(self._block(number) for number in range(len(self._table[1]))) + "\n"


def pack(text: str, block_characters: int) -> bytes:
    """The file's bytes, from its text: lines sorted by name."""
    blocks: list[list[str]] = []
    size = 0
    for entry in text.rstrip("\n").split("\n"):
        if not blocks or size > block_characters:
            blocks.append([])
            size = 0
        blocks[-1].append(entry)
        size += len(entry)
    packed = [_compressed("\n".join(block)) for block in blocks]
    table = _compressed(json.dumps([[block[0].partition("\t")[0] for block in blocks], list(map(len, packed))]))
    return len(table).to_bytes(4, "little") + table + b"".join(packed)


def _compressed(text: str) -> bytes:
    return lzma.compress(text.encode(), format=lzma.FORMAT_RAW, filters=_FILTERS)


def _decompressed(packed: bytes) -> str:
    return lzma.decompress(packed, format=lzma.FORMAT_RAW, filters=_FILTERS).decode()
