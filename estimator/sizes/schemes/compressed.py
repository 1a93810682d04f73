"""compressed-tensors (0.20.0): each config group says its bits, strategy and format, and the modules that it targets.

Everything is a parameter at run time, as in the file: weight (I8, F8) or weight_packed (I32 with weight_shape; U8 for
4-bit floats), weight_scale, weight_zero_point where asymmetric, input_scale where activations are static.
A packed module has no `weight`, and PEFT 0.21.2 fails on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from estimator.architecture.module import Module, ModuleTree, Parameter, QuantisedLayer
from estimator.checkpoint.layer_fields import compressed_groups, named
from estimator.checkpoint.quantized import Quantization
from estimator.dtypes import from_torch

NO_WEIGHT = "compressed-tensors keeps it packed, without the `weight` that PEFT's LoRA layer reads"
FOUR_BIT_FLOATS = ("nvfp4-pack-quantized", "mxfp4-pack-quantized")

Weights = Mapping[str, Any]


def compressed_layers(tree: ModuleTree, quantization: Quantization, dtype: str) -> dict[str, QuantisedLayer]:
    """Every module that a group targets and `ignore` does not name (`apply_quantization_config`)."""
    fields = quantization.fields
    if fields.get("dequantize") or fields.get("run_compressed") is False:
        return {}
    linears = {module.name: module for module in tree.modules if module.kind == "Linear" and module.parameters}
    ignored = named(fields.get("ignore") or (), tuple(linears), "Linear")
    groups = compressed_groups(fields, tuple(linears.keys() - ignored))
    return {name: _layer(module, groups[name], fields, dtype) for name, module in linears.items() if name in groups}


def _layer(module: Module, group: Mapping[str, Any], fields: Mapping[str, Any], dtype: str) -> QuantisedLayer:
    weight, *rest = module.parameters
    weights, style = group["weights"], str(group.get("format") or fields.get("format") or "")
    packed = "pack" in style
    values = _packed(weight, weights, style) if packed else (weight._replace(dtype=_plain(weights), fixed=True),)
    parameters = (*rest, *_scales(weight, weights, style, dtype), *values, *_activations(group, dtype))
    return QuantisedLayer(
        scheme="compressed-tensors",
        cls="Linear",
        parameters=parameters,
        saved_beside=(),
        refusal=NO_WEIGHT if packed else None,
    )


def _plain(weights: Weights) -> str:
    return "F8_E4M3" if weights.get("type") == "float" else "I8"


def _packed(weight: Parameter, weights: Weights, style: str) -> tuple[Parameter, ...]:
    out, columns = weight.shape
    if style in FOUR_BIT_FLOATS:
        return (Parameter("weight_packed", (out, columns // 2), "U8", True),)
    words = ceil(columns * _bits(weights) / 32)
    return (
        Parameter("weight_packed", (out, words), "I32", True),
        Parameter("weight_shape", (2,), "I64", True),
    )


def _scales(weight: Parameter, weights: Weights, style: str, dtype: str) -> tuple[Parameter, ...]:
    shape = _scale_shape(weight.shape, weights)
    scale = Parameter("weight_scale", shape, _scale_dtype(weights, style, dtype))
    parts = [scale]
    if not weights.get("symmetric", True):
        parts.append(Parameter("weight_zero_point", *_zero_point(shape, weights, style), True))
    if weights.get("strategy") == "tensor_group":
        parts.append(Parameter("weight_global_scale", (1,), "F32", True))
    if weights.get("actorder") == "group":
        parts.append(Parameter("weight_g_idx", (weight.shape[1],), "I32", True))
    return tuple(parts)


def _zero_point(shape: tuple[int, ...], weights: Weights, style: str) -> tuple[tuple[int, ...], str]:
    """As the file has it: packed along the rows where the weight is packed and groups have their own."""
    if "pack" in style and weights.get("strategy") in ("group", "channel"):
        return (ceil(shape[0] * _bits(weights) / 32), *shape[1:]), "I32"
    return shape, "I8"


def _bits(weights: Weights) -> int:
    return int(weights.get("num_bits", 8))  # as `QuantizationArgs` has it where nothing is said


def _scale_shape(shape: tuple[int, ...], weights: Weights) -> tuple[int, ...]:
    """`initialize_qparams`: one for the tensor, for each row, for each group of a row, or for each block."""
    out, columns = shape
    strategy, group = weights.get("strategy"), weights.get("group_size")
    if strategy in ("group", "tensor_group") and group and group > 0:
        return out, ceil(columns / group)
    if strategy == "block" and weights.get("block_structure"):
        rows, width = (int(size) for size in weights["block_structure"])
        return ceil(out / rows), ceil(columns / width)
    return (1,) if strategy == "tensor" else (out, 1)


def _scale_dtype(weights: Weights, style: str, dtype: str) -> str:
    if style == "mxfp4-pack-quantized":
        return "U8"
    stated = from_torch(weights.get("scale_dtype"))
    if stated is not None:
        return stated
    return "F8_E4M3" if weights.get("strategy") == "tensor_group" else dtype


def _activations(group: Mapping[str, Any], dtype: str) -> tuple[Parameter, ...]:
    """Scales of static activations; `local` ones (nvfp4) keep a global scale."""
    parts = []
    for side in ("input", "output"):
        activations = group.get(f"{side}_activations")
        if not isinstance(activations, Mapping):
            continue
        if activations.get("dynamic") is False:
            parts.append(Parameter(f"{side}_scale", (1,), dtype))
        if activations.get("strategy") == "tensor_group" and activations.get("dynamic") == "local":
            parts.append(Parameter(f"{side}_global_scale", (1,), "F32", True))
    return tuple(parts)
