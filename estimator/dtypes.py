"""Names of dtypes, as safetensors writes them, and their width in bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# safetensors 0.8.0, `Dtype` in safetensors/src/tensor.rs; the order there is the order of tensors in a file.
BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

# torch's names, as config.json and BitsAndBytesConfig spell them, with the short forms of the command line.
FROM_TORCH = {
    "float32": "F32", "float": "F32", "fp32": "F32", "float16": "F16", "half": "F16", "fp16": "F16",
    "bfloat16": "BF16", "bf16": "BF16", "float64": "F64", "double": "F64", "uint8": "U8", "int8": "I8", "int16": "I16",
    "int32": "I32", "int64": "I64", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip


def from_torch(name: object) -> str | None:
    """`torch.bfloat16`, `bfloat16` or `bf16` as `BF16`; None for what names no dtype."""
    return FROM_TORCH.get(str(name).removeprefix("torch."))


def to_torch(dtype: str) -> str:
    """`BF16` as `bfloat16`."""
    return next(name for name, own in FROM_TORCH.items() if own == dtype)


def config_dtype(config: Mapping[str, Any]) -> str | None:
    """`dtype` of config.json, or its older spelling; None where neither names a dtype (a vocabulary may be there)."""
    for key in ("dtype", "torch_dtype"):
        value = config.get(key)
        if isinstance(value, str) and (dtype := from_torch(value)) is not None:
            return dtype
    return None


def stated_dtype(config: Mapping[str, Any]) -> str | None:
    """The dtype that config.json names, for the whole or for its text model; None where it names none."""
    text = config.get("text_config")
    return config_dtype(config) or (config_dtype(text) if isinstance(text, Mapping) else None)
