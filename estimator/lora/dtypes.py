"""The dtype of what PEFT adds (peft 0.21.2: _move_adapter_to_device_of_base_layer and cast_adapter_dtype)."""

from __future__ import annotations

_PACKED = ("F4", "F6_E2M3", "F6_E3M2")


def is_float(dtype: str) -> bool:
    return dtype.startswith(("F", "BF"))


def adapter_dtype_of(base: str, adapter_dtype: str | None) -> str:
    """The dtype of a LoRA weight on a base of dtype `base`: autocast, "base", or one that is given."""
    if adapter_dtype not in (None, "base"):
        return adapter_dtype
    if not is_float(base) or base in _PACKED:
        return "F32"
    if adapter_dtype is None and base != "F64":
        return "F32"
    return base


def is_cast(dtype: str, adapter_dtype: str | None) -> bool:
    """Whether a weight on a base of this dtype is made anew in another; autocast leaves float32 and float64 alone."""
    return adapter_dtype != "base" and adapter_dtype_of(dtype, adapter_dtype) != adapter_dtype_of(dtype, "base")
