"""Whether and how config.json says that the weights are stored quantised.

Asked of every model, most of which are not: how packed weights lie in a file is imported where one is.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from estimator.errors import MalformedConfigError


class Quantization(NamedTuple):
    """`quantization_config`, wherever config.json keeps it."""

    scheme: str  # quant_method, bitsandbytes split by width; "mlx" where MLX wrote it
    fields: Mapping[str, Any] = {}  # as they came


def quantization_of(config: Mapping[str, Any]) -> Quantization | None:
    """How config.json says the weights are stored; None for plain ones.

    The text model's section counts as well (transformers 5.23.0, `get_hf_quantizer`), the `compression_config` of older
    files does not. MLX writes `quantization` and gives no method. compressed-tensors has had its fields in a section of
    its own, and then reads no other (`CompressedTensorsConfig.from_dict`).

    Raises MalformedConfigError for a section without a method, and for fields that no quantiser could read.
    """
    for section in (config, config.get("text_config") or {}):
        for key in ("quantization_config", "quantization"):
            said = section.get(key) if isinstance(section, Mapping) else None
            if isinstance(said, Mapping) and (scheme := _scheme(said)) is not None:
                return Quantization(scheme=scheme, fields=_fields(said, scheme))
            if said is not None and key == "quantization_config":
                raise _no_section(said)
    return None


def _fields(said: Mapping[str, Any], scheme: str) -> Mapping[str, Any]:
    """Raises MalformedConfigError for fields that no quantiser could read."""
    from estimator.checkpoint.packed_layouts import LAYOUTS
    from estimator.checkpoint.quantization_fields import check_fields, check_spared

    if scheme == "compressed-tensors":
        inner = said.get("quantization_config")
        said = inner if isinstance(inner, Mapping) else said
        if isinstance(said.get("config_groups"), Mapping):
            from estimator.checkpoint.compressed_presets import spelt_out

            said = {**said, "config_groups": spelt_out(said["config_groups"])}
    (check_fields if scheme in LAYOUTS else check_spared)(said)
    return said


def _no_section(said: Any) -> MalformedConfigError:
    """Of a section that transformers cannot read (`supports_quant_method`)."""
    fault = "names no quant_method" if isinstance(said, Mapping) else f"is {repr(said)[:60]}, not an object"
    return MalformedConfigError(
        f"quantization_config {fault}, and transformers fails to load it.",
        where="config.json",
        way_out="mend it, or fetch config.json again; take it out where the weights are plain",
    )


def _scheme(fields: Mapping[str, Any]) -> str | None:
    if fields.get("load_in_4bit"):
        return "bitsandbytes_4bit"
    if fields.get("load_in_8bit"):
        return "bitsandbytes_8bit"
    method = fields.get("quant_method")
    if method is None:
        return "mlx" if "group_size" in fields and "bits" in fields else None
    if method == "auto-round" and not _packs_integers(fields):
        return f"auto-round ({str(fields.get('data_type') or fields.get('packing_format'))[:30]})"
    return str(method)


def _packs_integers(fields: Mapping[str, Any]) -> bool:
    """Whether AutoRound packed as GPTQ or AWQ does; it writes other formats, and floats, under the same name."""
    form = str(fields.get("packing_format") or fields.get("backend") or "auto")
    return fields.get("data_type") in (None, "int") and not any(other in form for other in _NOT_INTEGERS)


_NOT_INTEGERS = ("llm_compressor", "fp8", "mx_fp", "nv_fp", "mlx", "gguf", "fake")
