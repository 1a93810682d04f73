"""compressed-tensors (0.20.0): each config group says its bits, strategy and format, and the modules that it targets.

Everything is a parameter at run time, as in the file: weight (I8, F8) or weight_packed (I32 with weight_shape; U8 for
floats of 4 and 6 bits), weight_scale, weight_zero_point where asymmetric, scales of static activations.
A packed module has no `weight`, and PEFT 0.21.2 fails on it. Where config.json does not say "compressed", weights stay
as they are, every scale with its zero point beside it (`CompressedTensorsConfig.is_quantization_compressed`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

from estimator.architecture.module import Module, ModuleTree, Parameter, QuantisedLayer
from estimator.checkpoint.layer_fields import compressed_groups, named
from estimator.checkpoint.quantized import Quantization
from estimator.dtypes import from_torch
from estimator.errors import UnsupportedError

NO_WEIGHT = "compressed-tensors keeps it packed, without the `weight` that PEFT's LoRA layer reads"
_REMOVED_ORDERS = ("group", "dynamic", True)  # `QuantizationArgs`: each weight had the number of its group
_KEYS_AND_VALUES = ("k_proj", "v_proj", "qkv_proj", "kv_b_proj")
_TOWER = re.compile(r"vision|visual|image|audio")  # whose attention caches nothing

Weights = Mapping[str, Any]


def compressed_layers(tree: ModuleTree, quantization: Quantization, dtype: str) -> dict[str, QuantisedLayer]:
    """Every module that a group targets and `ignore` does not name, and attention whose cache has scales.

    `apply_quantization_config`. Raises UnsupportedError for what the library does not load any more.
    """
    fields = quantization.fields
    if fields.get("dequantize") or fields.get("run_compressed") is False:
        return {}
    linears = {module.name: module for module in tree.modules if module.kind == "Linear" and module.parameters}
    ignored = named(fields.get("ignore") or (), tuple(linears), "Linear")
    groups = compressed_groups(fields, tuple(linears.keys() - ignored))
    make = _layer if is_compressed(fields) else _plain_layer
    layers = {name: make(module, groups[name], dtype) for name, module in linears.items() if name in groups}
    return {**layers, **dict(_caches(tree, fields.get("kv_cache_scheme"), dtype))}


def is_compressed(fields: Mapping[str, Any]) -> bool:
    return fields.get("quantization_status") == "compressed"


def _layer(module: Module, group: Mapping[str, Any], dtype: str) -> QuantisedLayer:
    weight, *rest = module.parameters
    weights, style = group["weights"], str(group.get("format") or _style(group))
    packed = "pack" in style
    if weights.get("actorder") in _REMOVED_ORDERS:
        raise UnsupportedError(
            f"compressed-tensors 0.20 loads no weights that are ordered by activations ({weights['actorder']!r}).",
            where="actorder of quantization_config in config.json",
            way_out="name the model that was quantised instead",
        )
    values = _packed(weight, weights, style) if packed else (weight._replace(dtype=_plain(weights), fixed=True),)
    return QuantisedLayer(
        scheme="compressed-tensors",
        cls="Linear",
        parameters=(*rest, *_scales(weight, weights, style, dtype), *values, *_activations(group, dtype)),
        saved_beside=(),
        refusal=NO_WEIGHT if packed else None,
    )


def _plain_layer(module: Module, group: Mapping[str, Any], dtype: str) -> QuantisedLayer:
    """A weight that nothing compresses, with scales and zero points."""
    weight, *rest = module.parameters
    scales = (*_scales(weight, group["weights"], "", dtype), *_activations(group, dtype))
    zeros = (
        scale._replace(name=scale.name.replace("_scale", "_zero_point"), dtype="I8", fixed=True)
        for scale in scales
        if scale.name in ("weight_scale", "input_scale", "output_scale")
    )
    parameters = {parameter.name: parameter for parameter in (*rest, *zeros, *scales, weight)}
    return QuantisedLayer(
        scheme="compressed-tensors", cls="Linear", parameters=tuple(parameters.values()), saved_beside=()
    )


def _style(group: Mapping[str, Any]) -> str:
    """The format that the library gives a group which names none (`infer_module_format`); the config's is not read."""
    weights, inputs = group["weights"], group.get("input_activations")
    size = weights.get("group_size")
    if weights.get("type") == "float":
        sized = {(4, 32): "mxfp4-pack-quantized", (6, 32): "mxfp6-pack-quantized", (4, 16): "nvfp4-pack-quantized"}
        by_bytes = from_torch(weights.get("scale_dtype")) == "U8" and (_bits(weights), size) == (8, 32)
        return "mxfp8-quantized" if by_bytes else sized.get((_bits(weights), size), "float-quantized")
    return "int-quantized" if isinstance(inputs, Mapping) else "pack-quantized"


def _plain(weights: Weights) -> str:
    return "F8_E4M3" if weights.get("type") == "float" else "I8"


def _packed(weight: Parameter, weights: Weights, style: str) -> tuple[Parameter, ...]:
    out, columns = weight.shape
    if style != "pack-quantized":  # floats
        return (Parameter("weight_packed", (out, columns * _bits(weights) // 8), "U8", True),)
    words = ceil(columns * _bits(weights) / 32)
    return (
        Parameter("weight_packed", (out, words), "I32", True),
        Parameter("weight_shape", (2,), "I64", True),
    )


def _scales(weight: Parameter, weights: Weights, style: str, dtype: str) -> tuple[Parameter, ...]:
    shape = _scale_shape(weight.shape, weights)
    parts = [Parameter("weight_scale", shape, _scale_dtype(weights, style, dtype))]
    if _is_asymmetric(weights):
        parts.append(Parameter("weight_zero_point", shape, "I8", True))
    if weights.get("strategy") == "tensor_group":
        parts.append(Parameter("weight_global_scale", (1,), "F32", True))
    return tuple(parts)


def _is_asymmetric(said: Weights) -> bool:
    return not said.get("symmetric", True)


def _bits(weights: Weights) -> int:
    return int(weights.get("num_bits", 8))  # as `QuantizationArgs` has it where nothing is said


def _scale_shape(shape: tuple[int, ...], weights: Weights) -> tuple[int, ...]:
    """`initialize_qparams`: one for the tensor, for each row, for each group of a row, or for each block."""
    out, columns = shape
    group = weights.get("group_size")
    strategy = weights.get("strategy") or ("tensor" if group is None else "group" if group > 0 else "channel")
    if strategy in ("group", "tensor_group") and group and group > 0:
        return out, ceil(columns / group)
    if strategy == "block" and weights.get("block_structure"):
        rows, width = (int(size) for size in weights["block_structure"])
        return ceil(out / rows), ceil(columns / width)
    return (1,) if strategy == "tensor" else (out, 1)


def _scale_dtype(weights: Weights, style: str, dtype: str) -> str:
    if style.startswith("mxfp"):
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
        if activations.get("dynamic", False) is False:
            parts.append(Parameter(f"{side}_scale", (1,), dtype))
            if _is_asymmetric(activations):
                parts.append(Parameter(f"{side}_zero_point", (1,), "I8", True))
        if activations.get("strategy") == "tensor_group" and activations.get("dynamic") == "local":
            parts.append(Parameter(f"{side}_global_scale", (1,), "F32", True))
    return tuple(parts)


def _caches(tree: ModuleTree, scheme: Any, dtype: str) -> Iterator[tuple[str, QuantisedLayer]]:
    """Scales of keys and values, in every attention that caches them (`is_cached_attention_module`)."""
    if not isinstance(scheme, Mapping) or scheme.get("dynamic", False) is not False:
        return
    names = {module.name for module in tree.modules}
    scales = tuple(Parameter(f"{side}_scale", (1,), dtype) for side in ("k", "v"))
    for module in tree.modules:
        holds = any(f"{module.name}.{name}" in names for name in _KEYS_AND_VALUES)
        if holds and "attention" in module.cls.lower() and not _TOWER.search(module.name):
            parameters = (*module.parameters, *scales)
            yield (
                module.name,
                QuantisedLayer(
                    scheme="compressed-tensors", cls=module.cls, parameters=parameters, is_linear=False, saved_beside=()
                ),
            )
