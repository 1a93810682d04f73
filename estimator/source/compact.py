"""A header as safetensors itself writes it, taken apart by one expression instead of a JSON parser.

    {"__metadata__":{"format":"pt"},"name":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},...}

No spaces but those behind the end, the tensors in the order of their data, one behind the other. Large models have few
different kinds of tensors (a dtype with a shape) and very many of each, so that a kind is looked at once. Whatever is
written in another way is no fault: it is for the JSON parser to read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

PLAIN_NAME = 120  # characters; with a longer one there is more to check
# What stands between two entries, or closes the header, is the last character of the match.
_TENSOR = re.compile(
    r'"([^"\\\x00-\x1f]{1,%d})":\{"dtype":"([^]]+)\],' % PLAIN_NAME
    + r'"data_offsets":\[([0-9]{1,20}),(0|[1-9][0-9]{0,19})\]\}(?:,(?=")|\}\Z)'
)
_AROUND = len('"":{"dtype":"],"data_offsets":[,]},')  # what an entry has beside its three parts
_KIND = re.compile(r'([A-Z0-9_]+)","shape":\[((?:(?:0|[1-9][0-9]*)(?:,(?:0|[1-9][0-9]*))*)?)')
_LONGEST_KIND = 1_000  # characters
_METADATA = re.compile(r'\{"__metadata__":(\{[^{}\[\]]*\}),')
_RESERVED = "__metadata__"


class Kind(NamedTuple):
    dtype: str  # as written; perhaps no dtype at all
    shape: tuple[int, ...]


class Compact(NamedTuple):
    """Column by column, in the order of the data. A name may be there twice."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]  # keys of `known`
    ends: tuple[int, ...]  # where each tensor's data ends; the first begins at 0, every other where the last one ended
    known: Mapping[str, Kind]
    metadata: Mapping[str, str]

    @property
    def data_bytes(self) -> int:
        return self.ends[-1]


def compact(header: bytes) -> Compact | None:
    """The tensors of a header; None where it is written in another way, or its tensors do not follow one another."""
    try:
        text = header.decode().rstrip(" ")
    except UnicodeDecodeError:
        return None
    metadata = _METADATA.match(text)
    begin = metadata.end() if metadata else 1
    found = _TENSOR.findall(text, begin)
    if not found or text[:1] != "{" or not text.isascii():
        return None
    names, kinds, begins, ends = zip(*found, strict=True)
    length = sum(sum(map(len, column)) for column in (names, kinds, begins, ends))
    if begin + length + len(found) * _AROUND != len(text) or _RESERVED in names:
        return None  # something stands between the entries
    known, said = _known(kinds), _texts(metadata[1]) if metadata else {}
    if known is None or said is None or begins[0] != "0" or begins[1:] != ends[:-1]:
        return None
    return Compact(names, kinds, tuple(map(int, ends)), known, said)


def _known(kinds: tuple[str, ...]) -> dict[str, Kind] | None:
    known = {}
    for text in set(kinds):
        match = _KIND.fullmatch(text) if len(text) <= _LONGEST_KIND else None
        if match is None:
            return None
        known[text] = Kind(match[1], tuple(map(int, filter(None, match[2].split(",")))))
    return known


def _texts(written: str) -> Mapping[str, str] | None:
    try:
        said = json.loads(written)
    except ValueError:
        return None
    return said if all(isinstance(text, str) for text in said.values()) else None
