"""Held against the safetensors library itself."""

from __future__ import annotations

import ctypes
from math import prod

import pytest

from estimator.lora.tensors import SavedTensor
from estimator.sizes.adapter_file import adapter_file_bytes

BYTES = {"F32": ("float32", 4), "BF16": ("bfloat16", 2), "F16": ("float16", 2), "I64": ("int64", 8)}


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param([], id="empty"),
        pytest.param([("a.weight", "F32", (8, 80)), ("b.weight", "F32", (80, 8))], id="two"),
        pytest.param([("z", "BF16", (3,)), ("b", "F32", (2, 2)), ("a", "I64", ())], id="dtypes and a scalar"),
        pytest.param([('quote"\\', "F16", (1,)), ("größe", "F16", (0, 4))], id="names that JSON escapes"),
        pytest.param([(f"layer.{i}.weight", "F32", (i + 1, 7)) for i in range(200)], id="many offsets"),
    ],
)
def test_bytes_are_the_librarys(tensors):
    safetensors = pytest.importorskip("safetensors")
    buffers, data = [], {}
    for name, dtype, shape in tensors:
        torch_name, width = BYTES[dtype]
        buffers.append(ctypes.create_string_buffer(max(prod(shape) * width, 1)))
        address = ctypes.addressof(buffers[-1])
        data[name] = safetensors.TensorSpec(
            dtype=torch_name, shape=list(shape), data_ptr=address, data_len=prod(shape) * width
        )
    written = bytes(safetensors.serialize(data, metadata={"format": "pt"}))
    size, header = adapter_file_bytes([SavedTensor(*row, "lora") for row in tensors])
    assert (size, header) == (len(written), int.from_bytes(written[:8], "little"))
