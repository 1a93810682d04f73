"""Checkpoints that are stored quantised: what they say of themselves, and the logical weights behind packed tensors.

A packed checkpoint has `q_proj.qweight` in place of `q_proj.weight`, and its shape is not the layer's. `unpack` puts
the logical weight back, so that the model can be built from it as from any other; where headers do not hold the in
and out features (a 4-bit weight of bitsandbytes is one column of bytes), the layer is named in `unknown` and the shape
has to come from config.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.checkpoint.packed_layouts import LAYOUTS, Layout
from estimator.dtypes import FROM_TORCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """`quantization_config`, wherever config.json keeps it."""

    scheme: str  # quant_method, bitsandbytes split by width; "mlx" where MLX wrote it
    fields: Mapping[str, Any] = field(default_factory=dict)  # as they came


class PackedLayer(NamedTuple):
    scheme: str
    shape: tuple[int, ...] | None  # of the logical weight, torch's order; None where headers can't tell
    tensors: tuple[Tensor, ...]  # as stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    checkpoint: Checkpoint  # logical: a float weight for each packed layer whose shape is known; `bytes` as stored
    layers: Mapping[str, PackedLayer]  # by stored module name (fused experts: by stored parameter name)
    unknown: tuple[str, ...] = ()  # layers whose shape must come from config.json


def quantization_of(config: Mapping[str, Any]) -> Quantization | None:
    """How config.json says the weights are stored; None for plain ones.

    The text model's section counts as well (transformers 5.23.0, `get_hf_quantizer`), and older compressed-tensors
    files call it `compression_config`. MLX writes `quantization` and gives no method.
    """
    for section in (config, config.get("text_config") or {}):
        for key in ("quantization_config", "compression_config", "quantization"):
            fields = section.get(key) if isinstance(section, Mapping) else None
            if isinstance(fields, Mapping):
                return Quantization(scheme=_scheme(fields), fields=fields)
    return None


def unpack(config: Mapping[str, Any], checkpoint: Checkpoint) -> Unpacked:
    """The checkpoint with logical weights in place of packed ones, and what was packed."""
    quantization = quantization_of(config)
    layout = LAYOUTS.get(quantization.scheme) if quantization else None
    if layout is None:
        return Unpacked(checkpoint=checkpoint, layers={})
    stored, dtype, make = checkpoint.tensors, _logical_dtype(config), tuple.__new__  # they come by the ten thousand
    tensors, layers = dict(stored), {}
    for stem, parts in _packed(stored, layout):
        shape = layout.shape(parts, _fields_for(stem, quantization.fields, layout), checkpoint)
        layers[stem] = make(PackedLayer, (quantization.scheme, shape, tuple(parts.values())))
        for tensor in layers[stem].tensors:
            del tensors[tensor.name]
        if shape is not None:
            logical = stem + layout.logical
            tensors[logical] = make(Tensor, (logical, dtype, shape, layers[stem].tensors[0].file, (0, 0)))
    return Unpacked(
        checkpoint=replace(checkpoint, tensors=tensors),
        layers=layers,
        unknown=tuple(stem for stem, layer in layers.items() if layer.shape is None),
    )


def _packed(stored: Mapping[str, Tensor], layout: Layout) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The packed layers by name, and their tensors by part. A model may have fifty thousand."""
    marker = layout.marker
    stems = [name[: -len(marker)] for name in stored if name.endswith(marker)]
    present = [part for part in layout.parts if any(stem + part in stored for stem in stems)]
    if not layout.is_packed(present):
        return
    columns = [map(stored.get, [stem + part for stem in stems]) for part in present]
    for stem, row in zip(stems, zip(*columns, strict=True), strict=True):
        parts = dict(zip(present, row, strict=True))
        if None in row:
            parts = {part: tensor for part, tensor in parts.items() if tensor is not None}
        if None not in row or layout.is_packed(parts):
            yield stem, parts


def _scheme(fields: Mapping[str, Any]) -> str:
    if fields.get("load_in_4bit") or fields.get("_load_in_4bit"):
        return "bitsandbytes_4bit"
    if fields.get("load_in_8bit") or fields.get("_load_in_8bit"):
        return "bitsandbytes_8bit"
    method = fields.get("quant_method")
    if method is None:
        return "mlx" if "group_size" in fields and "bits" in fields else "unnamed"
    return str(method)


def _fields_for(stem: str, fields: Mapping[str, Any], layout: Layout) -> Mapping[str, Any]:
    """The config's fields for one layer: MLX names layers that differ from the rest."""
    if not layout.fields_by_layer:
        return fields
    own = fields.get(stem)
    return {**fields, **own} if isinstance(own, Mapping) else fields


def _logical_dtype(config: Mapping[str, Any]) -> str:
    """The dtype that the weights would have unpacked: config.json's, else bfloat16."""
    for section in (config, config.get("text_config") or {}):
        for key in ("dtype", "torch_dtype"):
            value = section.get(key) if isinstance(section, Mapping) else None
            if isinstance(value, str) and value.removeprefix("torch.") in FROM_TORCH:
                return FROM_TORCH[value.removeprefix("torch.")]
    return "BF16"
