"""The size of a safetensors file that is yet to be written.

    8 bytes of length, the header as JSON without blanks, padded with spaces to a multiple of 8, the data

Order and form: safetensors 0.8.0, `prepare` in safetensors/src/tensor.rs (dtype by width downwards, then name).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from math import prod
from typing import Any

from estimator.dtypes import BITS

_ALIGNMENT = 8
_METADATA = '{"__metadata__":{"format":"pt"}'
_ORDER = {dtype: place for place, dtype in enumerate(BITS)}
# {"NAME":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}
_FORM = len(',:{"dtype":"","shape":[],"data_offsets":[,]}')


def adapter_file_bytes(tensors: Iterable[Any]) -> tuple[int, int]:
    """Bytes of the whole file and of its header, for tensors with name, dtype (safetensors') and shape."""
    by_dtype: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append((tensor.name, tensor.shape))
    at, header = 0, len(_METADATA) + 1
    for dtype in sorted(by_dtype, key=_ORDER.__getitem__, reverse=True):
        for name, shape in sorted(by_dtype[dtype]):
            form_bytes, data_bytes = _described_bytes(dtype, shape)
            end = at + data_bytes
            header += _name_bytes(name) + form_bytes + len(f"{at}{end}")
            at = end
    header += -header % _ALIGNMENT
    return 8 + header + at, header


def _name_bytes(name: str) -> int:
    if name.isascii() and name.isprintable() and '"' not in name and "\\" not in name:
        return len(name) + 2  # nothing is escaped
    return len(json.dumps(name, ensure_ascii=False).encode())


@lru_cache(maxsize=4096)
def _described_bytes(dtype: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Bytes of a tensor's entry without its name and offsets, and of its data."""
    form = _FORM + len(dtype) + sum(len(str(dimension)) for dimension in shape) + max(0, len(shape) - 1)
    return form, prod(shape) * BITS[dtype] // 8
