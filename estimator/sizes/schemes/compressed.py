"""compressed-tensors (0.20.0): each config group says its bits, strategy and format, and the modules that it targets.

Everything is a parameter at run time, as in the file: weight (I8, F8) or weight_packed (I32 with weight_shape; U8 for
floats of 4 and 6 bits), weight_scale, weight_zero_point where asymmetric, scales of static activations.
A packed module has no `weight`: PEFT 0.21.2 fails on it, and transformers on an embedding of that kind. Where
config.json does not say "compressed", weights stay as they are, every scale with its zero point beside it
(`CompressedTensorsConfig.is_quantization_compressed`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any

from estimator.architecture.module import Module, ModuleTree, Parameter, QuantisedLayer
from estimator.architecture.stored_names import run_time_names
from estimator.checkpoint.checkpoint import Checkpoint
from estimator.checkpoint.layer_fields import compressed_groups, named
from estimator.checkpoint.quantization import Quantization
from estimator.dtypes import from_torch
from estimator.errors import UnsupportedError
from estimator.sizes.schemes.compressed_attention import (
    attention_layer,
    cached_attention,
    caches,
    classes_of,
    is_narrow,
)
from estimator.sizes.schemes.read_weights import first_read

NO_WEIGHT = "compressed-tensors keeps it packed, without the `weight` that PEFT's LoRA layer reads"
_REMOVED_ORDERS = ("group", "dynamic", True)  # `QuantizationArgs`: each weight had the number of its group
_REMOVED_FORMATS = ("marlin-24", "sparse-bitmask", "sparse-24-bitmask")  # named still, and read no more
_KINDS = ("Linear", "Embedding")
_FLOATS = ("F8_E4M3", "F8_E5M2")
_PARTS = ("weights", "input_activations", "output_activations")

Weights = Mapping[str, Any]


def compressed_layers(tree: ModuleTree, quantization: Quantization, dtype: str) -> dict[str, QuantisedLayer]:
    """Every Linear, Embedding and cached attention that a group targets and `ignore` does not name, and attention whose
    cache has scales.

    `apply_quantization_config`. Raises UnsupportedError for what the library does not load, or not any more.
    """
    fields = quantization.fields
    if fields.get("dequantize") or fields.get("run_compressed") is False:
        return {}
    attention = cached_attention(tree)
    targetable = {m.name: m for m in tree.modules if m.name in attention or (m.kind in _KINDS and m.parameters)}
    classes = {name: classes_of(module) for name, module in targetable.items()}
    groups = compressed_groups(fields, classes)
    ignored = named(fields.get("ignore") or (), classes)
    make = _layer if is_compressed(fields) else _plain_layer
    layers = dict(caches(tree, attention, fields.get("kv_cache_scheme"), dtype))
    for name, group in groups.items():
        if name in ignored or not any(isinstance(group.get(part), Mapping) for part in _PARTS):
            continue
        if name not in attention:
            layers[name] = _not_tied(make(targetable[name], group, dtype), name, tree)
        elif is_narrow(tree, name, group.get("targets") or ()):
            layers[name] = attention_layer(tree, targetable[name], group, dtype, zeros=not is_compressed(fields))
    if read := first_read(
        tree.modules, (name for name, layer in layers.items() if layer.refusal == NO_WEIGHT), linear=True
    ):
        raise _not_read(f"{read[0]} packed, as what initialises {read[1]} reads its `weight`", "ignore")
    return layers


def _not_tied(layer: QuantisedLayer, name: str, tree: ModuleTree) -> QuantisedLayer:
    """Raises UnsupportedError for what is packed and tied: `mark_tied_weights_as_initialized` reads its weight."""
    if f"{name}.weight" in tree.tied and not any(parameter.name == "weight" for parameter in layer.parameters):
        raise _tied("packed", name, tree)
    return layer


def _tied(held: str, name: str, tree: ModuleTree) -> UnsupportedError:
    return _not_read(f"{name} {held}, which is tied to {tree.tied[f'{name}.weight']}", "ignore")


def untied(tree: ModuleTree, layers: Mapping[str, QuantisedLayer], checkpoint: Checkpoint | None) -> dict[str, str]:
    """The ties without those of heads that the file holds as integers, which are not an embedding's values.

    Raises UnsupportedError for 8-bit floats in the file, as torch does not compare them with an embedding's; without a
    file for all, as what quantises a head unties it.
    """
    weights = ((name, p.dtype) for name, layer in layers.items() for p in layer.parameters if p.name == "weight")
    narrow = ((f"{name}.weight", dtype) for name, dtype in weights if dtype in (*_FLOATS, "I8"))
    odd = {name: dtype for name, dtype in narrow if name in tree.tied}
    if odd and checkpoint is not None:
        stored = set(run_time_names(tree.config, tree, checkpoint.tensors).values())
        odd = {name: dtype for name, dtype in odd.items() if name in stored}
    for name, dtype in odd.items():
        if dtype in _FLOATS:
            raise _tied("in 8-bit floats", name.removesuffix(".weight"), tree)
    integers = {name for name, dtype in odd.items() if dtype == "I8" and checkpoint is not None}
    return {name: root for name, root in tree.tied.items() if name not in integers}


def check_formats(fields: Mapping[str, Any]) -> None:
    """Raises UnsupportedError for files in a format that the library has removed: their tensors are no layer's."""
    groups = (group for group in (fields.get("config_groups") or {}).values() if isinstance(group, Mapping))
    said = {str(part.get("format")) for part in (fields, *groups)}
    if is_compressed(fields) and (removed := said.intersection(_REMOVED_FORMATS)):
        raise _not_read(f"the format {min(removed)!r}", "format")


def is_compressed(fields: Mapping[str, Any]) -> bool:
    return fields.get("quantization_status") == "compressed"


def _layer(module: Module, group: Mapping[str, Any], dtype: str) -> QuantisedLayer:
    weight, *rest = module.parameters
    weights, style = group.get("weights"), str(group.get("format") or _style(group))
    if not isinstance(weights, Mapping) or style == "dense":
        return _layer_of(module, (*module.parameters, *_activations(group, dtype)))
    if weights.get("actorder") in _REMOVED_ORDERS:
        raise _not_read(f"weights that are ordered by activations ({weights['actorder']!r})", "actorder")
    packed = "pack" in style
    if packed and module.kind == "Embedding":
        raise _not_read(f"{module.name}, an embedding whose weight is packed", "config_groups")
    values = _packed(weight, weights, style) if packed else (weight._replace(dtype=_plain(weights), fixed=True),)
    parameters = (*rest, *_scales(weight, weights, style, dtype), *values, *_activations(group, dtype))
    return _layer_of(module, parameters, refusal=NO_WEIGHT if packed else None)


def _layer_of(module: Module, parameters: Iterable[Parameter], *, refusal: str | None = None) -> QuantisedLayer:
    return QuantisedLayer(
        scheme="compressed-tensors",
        cls=module.cls,
        parameters=tuple(parameters),
        saved_beside=(),
        is_linear=module.kind == "Linear",
        refusal=refusal,
    )


def _not_read(what: str, field: str) -> UnsupportedError:
    return UnsupportedError(
        f"transformers 5.23 with compressed-tensors 0.20 does not load {what}.",
        where=f"{field} of quantization_config in config.json",
        way_out="name the model that was quantised instead",
    )


def _plain_layer(module: Module, group: Mapping[str, Any], dtype: str) -> QuantisedLayer:
    """A weight that nothing compresses, with scales and zero points."""
    weight, *rest = module.parameters
    weights = group.get("weights")
    scales = (*(_scales(weight, weights, "", dtype) if weights else ()), *_activations(group, dtype))
    zeros = (
        scale._replace(name=scale.name.replace("_scale", "_zero_point"), dtype="I8", fixed=True)
        for scale in scales
        if scale.name in ("weight_scale", "input_scale", "output_scale")
    )
    parameters = {parameter.name: parameter for parameter in (*rest, *zeros, *scales, weight)}
    return _layer_of(module, parameters.values())


_OF_FLOATS: Mapping[tuple[int, Any], str] = {  # by bits and group size
    (4, 32): "mxfp4-pack-quantized",
    (6, 32): "mxfp6-pack-quantized",
    (4, 16): "nvfp4-pack-quantized",
}


def _style(group: Mapping[str, Any]) -> str:
    """The format that the library gives a group which names none (`infer_module_format`); the config's is not read."""
    weights, inputs = group.get("weights") or {}, group.get("input_activations")
    size = weights.get("group_size")
    if weights.get("type") == "float":
        by_bytes = from_torch(weights.get("scale_dtype")) == "U8" and (_bits(weights), size) == (8, 32)
        return "mxfp8-quantized" if by_bytes else _OF_FLOATS.get((_bits(weights), size), "float-quantized")
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
