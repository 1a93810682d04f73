"""A safetensors header: from its JSON to tensors, with every limit of the format.

    {"__metadata__": {text: text}, name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...}

Offsets count from the end of the header. Sorted by them, tensors follow one another without a hole, and each takes
exactly shape x dtype. Rules: safetensors 0.8.0, safetensors/src/tensor.rs (`Metadata::validate`); stricter than the
library in one point, as the format demands: a name given twice is refused.
"""

import json
from collections import Counter
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from estimator.checkpoint.checkpoint import Tensor, Tensors, stacks_of
from estimator.dtypes import BITS
from estimator.errors import MalformedHeaderError
from estimator.source.bounded_json import NotUsable, check_affordable
from estimator.source.compact import LIMIT, compact
from estimator.source.stack import Compact

_DEPTH = 127  # serde_json's recursion limit, which the library keeps
_METADATA = "__metadata__"
_OFFSETS = attrgetter("offsets")
_FIELDS = ("dtype", "shape", "data_offsets")


class Header(NamedTuple):
    """What one safetensors header declares."""

    tensors: Tensors  # in the order of their data
    data_bytes: int  # where the last tensor ends
    metadata: Mapping[str, str]
    plain_names: bool = False  # whether all are short and ASCII; False where that was not looked at


class _Twice(dict[str, Any]):
    """A JSON object in which a name is given twice: `twice` is the first such name."""

    twice: str


def parse_header(header: bytes | Compact | Mapping[str, Any], *, file: str) -> Header:
    """The tensors that a header declares.

    Raises MalformedHeaderError for whatever the safetensors library refuses, and for a name given twice.
    """
    place = f"header of {file}"
    if isinstance(header, bytes):
        _check_affordable(header, place)
        header = compact(header) or _parse_json(header, place)
    if isinstance(header, Compact):
        stacks = (stack._replace(file=file) for stack in header.stacks)
        return Header(Tensors(stacks), header.data_bytes, header.metadata, True)
    entries = dict(header)
    metadata = _metadata(entries.pop(_METADATA, None), place)
    tensors = _ordinary(entries, file) or [_tensor(name, entry, file, place) for name, entry in entries.items()]
    tensors.sort(key=_OFFSETS)
    end = _contiguous_end(tensors, place)
    return Header(Tensors(stacks_of({tensor.name: tensor for tensor in tensors})), end, metadata)


def _check_affordable(header: bytes, where: str) -> None:
    try:
        check_affordable(header)
    except NotUsable as error:
        way_out = "this is not what a model looks like; check the file"
        raise MalformedHeaderError(f"the header can't be read: {error}.", where=where, way_out=way_out) from error


def _refuse(what: str, where: str) -> MalformedHeaderError:
    return MalformedHeaderError(what, where=where, way_out="fetch this file again; safetensors would refuse it too")


def _parse_json(text: bytes, where: str) -> dict[str, Any]:
    # A hook for every integer is slow, and only "-0" needs one.
    whole = _no_negative_zero if b"-0" in text else None
    try:
        entries = json.loads(
            text.decode(),
            object_pairs_hook=_noting_twice,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=whole,
        )
    except UnicodeDecodeError as error:
        raise _refuse(f"the header is not UTF-8 (byte {error.start:,}).", where) from error
    except RecursionError as error:
        raise _refuse("the header is nested too deeply.", where) from error
    except ValueError as error:
        raise _refuse(f"the header is not JSON as the format has it: {error}.", where) from error
    if not isinstance(entries, dict):
        raise _refuse(f"the header is a JSON {type(entries).__name__}, not an object.", where)
    if isinstance(entries, _Twice):
        raise _refuse(f"{entries.twice[:200]!r} is given twice.", where)
    return entries


def _noting_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) == len(pairs):
        return entries
    noted = _Twice(entries)
    noted.twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
    return noted


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is out of range")
    return value


def _no_negative_zero(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)


def _metadata(value: Any, where: str) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _refuse("__metadata__ is not an object of texts.", where)
    return value


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < LIMIT


def _ordinary(entries: Mapping[str, Any], file: str) -> list[Tensor] | None:
    """All tensors of a header in which nothing is odd, in half the time of `_tensor`; None where anything is."""
    tensors = []
    make, bits_of = tuple.__new__, BITS
    for name, entry in entries.items():
        if type(entry) is not dict or len(entry) != 3 or not name.isascii():
            return None
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            needed = bits_of[dtype]
        except (TypeError, ValueError, KeyError):
            return None
        if type(shape) is not list or type(begin) is not int or type(end) is not int or begin < 0:
            return None
        for dimension in shape:
            if type(dimension) is not int or not 0 <= dimension < LIMIT:
                return None
            needed *= dimension
            if needed >= LIMIT:
                return None
        if (end - begin) * 8 != needed or end >= LIMIT:
            return None
        tensors.append(make(Tensor, (name, dtype, tuple(shape), file, (begin, end))))
    return tensors


def _tensor(name: str, entry: Any, file: str, where: str) -> Tensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        bits = BITS[dtype]
        well_formed = (
            len(entry) == 3 and type(entry) is dict and type(shape) is list and _is_size(begin) and _is_size(end)
        )
    except (TypeError, ValueError, KeyError):
        well_formed = False
    if not well_formed:
        dtype, shape, begin, end = _unusual(name, entry, where)
        bits = BITS[dtype]
    _check_name(name, where)
    needed = _elements(name, shape, where) * bits
    if needed >= LIMIT:
        raise _refuse(f"tensor {name[:200]!r} of shape {str(shape)[:80]} is larger than any file.", where)
    if (end - begin) * 8 != needed:
        what = (
            f"tensor {name[:200]!r} takes {end - begin:,} bytes, but {dtype} {str(shape)[:80]} needs {_bytes(needed)}."
        )
        raise _refuse(what, where)
    return Tensor(name, dtype, tuple(shape), file, (begin, end))


def _bytes(bits: int) -> str:
    return f"{bits // 8:,}" if bits % 8 == 0 else f"{bits / 8:,}"


def _check_name(name: str, where: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise _refuse(f"the name {name[:200]!r} is no text: it holds half a surrogate pair.", where) from error


def _elements(name: str, shape: list[Any], where: str) -> int:
    elements = 1
    for dimension in shape:
        if not _is_size(dimension):
            raise _refuse(
                f"tensor {name[:200]!r} has the shape {str(shape)[:80]}; dimensions are whole numbers.", where
            )
        elements *= dimension
        if elements >= LIMIT:
            raise _refuse(f"tensor {name[:200]!r} of shape {str(shape)[:80]} is larger than any file.", where)
    return elements


def _unusual(name: str, entry: Any, where: str) -> tuple[str, list[Any], int, int]:
    """A description in one of the forms that nobody writes and the library reads; refused where it reads it not."""
    if isinstance(entry, list) and len(entry) == len(_FIELDS):
        entry = dict(zip(_FIELDS, entry, strict=True))
    if isinstance(entry, dict) and isinstance(entry.get("dtype"), dict) and list(entry["dtype"].values()) == [None]:
        entry = {**entry, "dtype": next(iter(entry["dtype"]))}
    if (odd := _what_is_odd(name, entry)) is not None:
        raise _refuse(odd, where)
    begin, end = entry["data_offsets"]
    return entry["dtype"], entry["shape"], begin, end


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def _what_is_odd(name: str, entry: Any) -> str | None:
    shown = f"tensor {name[:200]!r}"
    if not isinstance(entry, dict):
        return f"{shown} is described by {str(entry)[:40]!r}, not by an object."
    if missing := [key for key in _FIELDS if key not in entry]:
        return f"{shown} has no {missing[0]}."
    if isinstance(entry, _Twice) and entry.twice in _FIELDS:
        return f"{shown} has its {entry.twice} given twice."
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in BITS:
        return f"{shown} has the unknown dtype {str(entry['dtype'])[:40]!r}."
    if not isinstance(entry["shape"], list):
        return f"{shown} has the shape {str(entry['shape'])[:40]!r}, not a list."
    offsets = entry["data_offsets"]
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        return f"{shown} has the data_offsets {str(offsets)[:60]}, not two whole numbers."
    if 1 + _depth(entry) > _DEPTH:
        return f"{shown} is nested too deeply."
    return None


def _contiguous_end(tensors: list[Tensor], where: str) -> int:
    at = 0
    for tensor in tensors:
        begin, end = tensor.offsets
        if begin != at:
            what = (
                f"tensor {tensor.name[:200]!r} starts at data byte {begin:,}, but the tensor before it ends at {at:,}."
            )
            raise _refuse(what, where)
        at = end
    return at
