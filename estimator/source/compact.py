"""A header as safetensors itself writes it, taken apart by one expression instead of a JSON parser.

    {"__metadata__":{"format":"pt"},"name":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},...}

No spaces but those behind the end, the tensors in the order of their data, one behind the other, each of the bytes that
its shape needs. Whatever is written in another way is no fault: it is for the JSON parser to read.

In the cache a header so read is JSON, the indices of a stack in one text, its beginnings in a list of a list, or as
[first, step] where the distance is always the same:

    {"stacks": [[before, after, indices, dtype, shape, begins], ...], "metadata": {...}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from operator import sub
from typing import Any

from estimator.dtypes import BITS
from estimator.source.bounded_json import parse_json
from estimator.source.stack import Compact, Kind, Stack, gathered, same_name

LIMIT = 2**64  # of a number: the usize of the safetensors library
_LONGEST_NAME = 120  # characters; with a longer one there is more to check
# What is before a name's last index, that index, and all from there up to the end of the shape; or, where no such entry
# begins, all that is left. Only what reads the same when it is written again was read rightly.
# The numbers bound what a search goes through in vain.
_TENSOR = re.compile(r'"(?:([^"]{0,120}\.)([0-9]{1,9})(?=\.))?([^]]{1,1000})\],[^]]{1,99}\]\}[,}]|.+', re.DOTALL)
_TAIL = re.compile(r'([^"]+)":\{"dtype":"([A-Z0-9_]+)","shape":\[((?:(?:0|[1-9][0-9]*)(?:,(?:0|[1-9][0-9]*))*)?)')
_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_METADATA = re.compile(r'\{"__metadata__":(\{[^{}\[\]]*\}),')
_RESERVED = "__metadata__"
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError)  # what JSON of another form than expected raises


def compact(header: bytes) -> Compact | None:
    """The tensors of a header; None where it is written in another way, or its tensors do not follow one another."""
    try:
        text = header.decode("ascii").rstrip(" ")
    except UnicodeDecodeError:
        return None
    metadata = _METADATA.match(text)
    begin = metadata.end() if metadata else 1
    found = _TENSOR.findall(text, begin)
    known, said = _known({tail for _, _, tail in found}), _texts(metadata[1]) if metadata else {}
    if not known or said is None:
        return None
    sizes = {tail: kind.bytes for tail, (_, kind) in known.items()}
    ends = list(accumulate([sizes[tail] for _, _, tail in found]))
    begins = [0, *ends[:-1]]
    if ends[-1] >= LIMIT or text[:1] != "{" or _written(found, begins, ends) != text[begin:]:
        return None
    stacks = gathered(zip(*zip(*found, strict=True), begins, strict=True), known)
    return Compact(stacks, ends[-1], said) if _are_sound(stacks) else None


def _are_sound(stacks: Sequence[Stack]) -> bool:
    return all(map(_is_plain, stacks)) and same_name(stacks) is None


def _written(found: Sequence[tuple[str, str, str]], begins: Sequence[int], ends: Sequence[int]) -> str:
    entries = [
        f'"{before}{index}{tail}],"data_offsets":[{begin},{end}]}}'
        for (before, index, tail), begin, end in zip(found, begins, ends, strict=True)
    ]
    return ",".join(entries) + "}"


def _is_plain(stack: Stack) -> bool:
    ends, longest = stack.before + stack.after, max(map(len, stack.indices))
    return len(ends) + longest <= _LONGEST_NAME and _PLAIN.fullmatch(ends) is not None and ends != _RESERVED


def _known(tails: Iterable[str]) -> dict[str, tuple[str, Kind]] | None:
    """What each tail says: the end of a name, and a kind; None where one says something else."""
    known = {}
    for tail in tails:
        match = _TAIL.fullmatch(tail)
        kind = _kind(match[2], tuple(map(int, filter(None, match[3].split(","))))) if match else None
        if match is None or kind is None:
            return None
        known[tail] = match[1], kind
    return known


def _kind(dtype: str, shape: tuple[int, ...]) -> Kind | None:
    """A kind of tensors; None where there is no such dtype, or no such tensor."""
    bits = BITS.get(dtype)
    if bits is None:
        return None
    for dimension in shape:
        if type(dimension) is not int or not 0 <= dimension < LIMIT:
            return None
        bits *= dimension
        if bits >= LIMIT:
            return None
    return Kind(dtype, shape, bits // 8) if bits % 8 == 0 else None


def _texts(written: str) -> Mapping[str, str] | None:
    try:
        said = json.loads(written)
    except ValueError:
        return None
    return said if _are_texts(said) else None


def _are_texts(said: Mapping[str, Any]) -> bool:
    return all(isinstance(text, str) for text in said.values())


def to_json(header: Compact) -> bytes:
    """The header as the cache keeps it."""
    stacks = [
        [stack.before, stack.after, " ".join(stack.indices), *stack.kind[:2], _spaced(stack.begins)]
        for stack in header.stacks
    ]
    return json.dumps({"stacks": stacks, "metadata": header.metadata}, separators=(",", ":")).encode()


def of_json(text: bytes) -> Compact:
    """The header that the cache keeps. Raises one of UNREADABLE where it is none."""
    said = parse_json(text)
    kinds: dict[str, Kind | None] = {}
    stacks = []
    for before, after, joined, dtype, shape, begins in said["stacks"]:
        name = f"{dtype} {shape}"
        if name not in kinds:
            kinds[name] = _kind(dtype, tuple(shape))
        indices, kind = tuple(joined.split(" ")), kinds[name]
        if kind is None:
            raise ValueError(f"there are no tensors of {name}")
        stacks.append(Stack(before, after, indices, kind, _read(begins, len(indices))))
    if not stacks or not _are_sound(stacks) or not _are_texts(said["metadata"]):
        raise ValueError("this is no header")
    data_bytes = sum(len(stack.indices) * stack.kind.bytes for stack in stacks)
    return Compact(tuple(stacks), data_bytes, said["metadata"])


def _spaced(begins: Sequence[int]) -> list[Any]:
    steps = set(map(sub, begins[1:], begins))
    return [begins[0], steps.pop()] if len(steps) == 1 and 0 not in steps else [list(begins)]


def _read(begins: list[Any], count: int) -> Sequence[int]:
    if len(begins) == 2:
        first, step = begins
        return range(first, first + count * step, step)
    (each,) = begins
    if len(each) != count or not all(type(begin) is int for begin in each):
        raise ValueError("as many beginnings as tensors")
    return each
