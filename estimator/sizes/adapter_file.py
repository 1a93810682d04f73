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
    at, header = 0, len(_METADATA) + 1
    for tensor in sorted(tensors, key=lambda tensor: (-_ORDER[tensor.dtype], tensor.name)):
        end = at + prod(tensor.shape) * BITS[tensor.dtype] // 8
        header += _FORM + _name_bytes(tensor.name) + len(tensor.dtype) + _shape_bytes(tensor.shape)
        header += len(str(at)) + len(str(end))
        at = end
    header += -header % _ALIGNMENT
    return 8 + header + at, header


@lru_cache(maxsize=200_000)
def _name_bytes(name: str) -> int:
    return len(json.dumps(name, ensure_ascii=False).encode())


@lru_cache(maxsize=4096)
def _shape_bytes(shape: tuple[int, ...]) -> int:
    return sum(len(str(dimension)) for dimension in shape) + max(0, len(shape) - 1)
