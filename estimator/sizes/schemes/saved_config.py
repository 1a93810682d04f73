"""A saved BitsAndBytesConfig as options of loading (transformers 5.23.0, utils/quantization_config.py)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from estimator.checkpoint.quantization import Quantization
from estimator.dtypes import FROM_TORCH
from estimator.errors import MalformedConfigError
from estimator.request.load_options import LoadOptions
from estimator.sizes.skipping import CONFIG


def bitsandbytes_options(quantization: Quantization) -> LoadOptions:
    """Raises MalformedConfigError where the constructor refuses the fields, and where no model comes of them."""
    fields = quantization.fields
    four_bit = quantization.scheme == "bitsandbytes_4bit"
    _check_types(fields)
    if fields.get("load_in_4bit") and fields.get("load_in_8bit"):
        raise _no_config("load_in_4bit and load_in_8bit are both true", "one of them")
    if fields.get("llm_int8_has_fp16_weight") and not four_bit:
        raise _no_config("llm_int8_has_fp16_weight is true, and a saved model fails to load so", "false")
    skipped = fields.get("llm_int8_skip_modules")
    return LoadOptions(
        base_precision=("nf4" if fields.get("bnb_4bit_quant_type") == "nf4" else "fp4") if four_bit else "int8",
        double_quant=bool(fields.get("bnb_4bit_use_double_quant")),
        quant_storage=_dtype(fields, "bnb_4bit_quant_storage", _STORAGES, "uint8"),
        compute_dtype=_dtype(fields, "bnb_4bit_compute_dtype", FROM_TORCH.keys() - _SHORT, "float32"),
        skip_modules=tuple(skipped) if skipped is not None else None,
    )


def _check_types(fields: Mapping[str, Any]) -> None:
    for field, (wanted, named) in _TYPES.items():
        if field in fields and type(fields[field]) is not wanted:
            raise _no_config(f"{field} is {repr(fields[field])[:60]}, which is no {named}", f"a {named}")


def _dtype(fields: Mapping[str, Any], field: str, known: Collection[str], default: str) -> str:
    """safetensors' name of a dtype, of those by torch's own names that the field takes."""
    said = fields.get(field)
    name = default if said is None else said
    if not isinstance(name, str) or name not in known:
        raise _no_config(
            f"{field} is {str(said)[:60]!r}, which is none of its dtypes", f"one of {', '.join(sorted(known))}"
        )
    return FROM_TORCH[name]


def _no_config(what: str, way_out: str) -> MalformedConfigError:
    return MalformedConfigError(f"{what}.", where=CONFIG, way_out=way_out)


_BOOLEAN = (bool, "boolean")
_TYPES: Mapping[str, tuple[type, str]] = {
    **dict.fromkeys(("load_in_4bit", "load_in_8bit", "bnb_4bit_use_double_quant"), _BOOLEAN),
    **dict.fromkeys(("llm_int8_has_fp16_weight", "llm_int8_enable_fp32_cpu_offload"), _BOOLEAN),
    "llm_int8_threshold": (float, "number with a point"),
    "bnb_4bit_quant_type": (str, "text"),
}
_STORAGES = ("uint8", "int8", "float16", "bfloat16", "float32", "float64")
_SHORT = {"fp32", "fp16", "bf16"}  # of the command line, no attributes of torch
