"""Checkpoints that are stored quantised: what they say of themselves, and the logical weights behind packed tensors.

A packed checkpoint has `q_proj.qweight` in place of `q_proj.weight`, and its shape is not the layer's. `unpack` puts
the logical weight back, so that the model can be built from it as from any other; where headers do not hold the in
and out features (a 4-bit weight of bitsandbytes is one column of bytes), the layer is named in `unknown` and the shape
has to come from config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any, NamedTuple

from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.checkpoint.packed_layouts import LAYOUTS, Layout
from estimator.checkpoint.quantization_fields import check_fields
from estimator.dtypes import stated_dtype
from estimator.errors import MalformedHeaderError


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
    unknown: Mapping[str, PackedLayer] = field(default_factory=dict)  # layers whose shape must come from config.json


def quantization_of(config: Mapping[str, Any]) -> Quantization | None:
    """How config.json says the weights are stored; None for plain ones.

    The text model's section counts as well (transformers 5.23.0, `get_hf_quantizer`), and older compressed-tensors
    files call it `compression_config`. MLX writes `quantization` and gives no method.

    Raises MalformedConfigError for fields that no quantiser could read.
    """
    for section in (config, config.get("text_config") or {}):
        for key in ("quantization_config", "compression_config", "quantization"):
            fields = section.get(key) if isinstance(section, Mapping) else None
            if isinstance(fields, Mapping):
                check_fields(fields)
                return Quantization(scheme=_scheme(fields), fields=fields)
    return None


def unpack(config: Mapping[str, Any], checkpoint: Checkpoint) -> Unpacked:
    """The checkpoint with logical weights in place of packed ones."""
    quantization = quantization_of(config)
    layout = LAYOUTS.get(quantization.scheme) if quantization else None
    if layout is None:
        return Unpacked(checkpoint=checkpoint)
    stored, dtype = checkpoint.tensors, stated_dtype(config) or "BF16"
    if layout.in_place:
        return Unpacked(checkpoint=replace(checkpoint, tensors=_recast(stored, layout, dtype)))
    tensors, layers = dict(stored), packed_layers(config, checkpoint)
    for stem, layer in layers.items():
        for tensor in layer.tensors:
            del tensors[tensor.name]
        if layer.shape is not None:
            logical = stem + layout.logical
            tensors[logical] = Tensor(logical, dtype, layer.shape, layer.tensors[0].file)
    return Unpacked(
        checkpoint=replace(checkpoint, tensors=tensors),
        unknown={stem: layer for stem, layer in layers.items() if layer.shape is None},
    )


def packed_layers(config: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, PackedLayer]:
    """What is packed, by the module's name as stored (fused experts: by the parameter's)."""
    quantization = quantization_of(config)
    layout = LAYOUTS.get(quantization.scheme) if quantization else None
    layers, stored = {}, checkpoint.tensors
    stems = _stems(stored, layout) if layout else []
    own = layout.fields_by_layer(quantization.fields, stems) if stems and layout.fields_by_layer else {}
    for stem in stems:
        parts = {part: stored[stem + part] for part in layout.parts if stem + part in stored}
        shape = _shape(layout, parts, own.get(stem, quantization.fields), checkpoint)
        layers[stem] = PackedLayer(quantization.scheme, shape, tuple(parts.values()))
    return layers


def _shape(
    layout: Layout, parts: Mapping[str, Tensor], fields: Mapping[str, Any], checkpoint: Checkpoint
) -> tuple[int, ...] | None:
    """Raises MalformedHeaderError where the tensors have other dimensions than the quantiser writes."""
    try:
        return layout.shape(parts, fields, checkpoint)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        stored = ", ".join(f"{tensor.name[:100]} {list(tensor.shape[:6])}" for tensor in parts.values())
        what = f"these are no tensors of one packed layer: {stored[:400]}."
        way_out = "check that config.json belongs to these weights"
        raise MalformedHeaderError(what, where="quantization_config in config.json", way_out=way_out) from error


def _stems(stored: Mapping[str, Tensor], layout: Layout) -> list[str]:
    marker, end = layout.marker, -len(layout.marker)
    stems = [name[:end] for name in stored if name.endswith(marker)]
    for part in layout.needs:
        stems = [stem for stem in stems if stem + part in stored]
    return stems


def _recast(stored: Mapping[str, Tensor], layout: Layout, dtype: str) -> dict[str, Tensor]:
    """Weights in their own shape under their own name: the scales left out. There may be fifty thousand of them."""
    marker, weight, end = layout.marker, layout.logical, -len(layout.marker)
    scales = [name for name in stored if name.endswith(marker) and name[:end] + weight in stored]
    names = [name[:end] + weight for name in scales]
    _, _, shapes, files, offsets = zip(*map(stored.__getitem__, names), strict=True) if names else ((),) * 5
    recast = map(tuple.__new__, repeat(Tensor), zip(names, repeat(dtype), shapes, files, offsets))
    packed = dict(zip(names, recast, strict=True))
    tensors = {**stored, **packed}
    for name in scales:
        del tensors[name]
    others = tuple(part for part in layout.parts if part not in (weight, marker))
    for name in [name for name in tensors if name.endswith(others)]:
        if name.rpartition(".")[0] + weight in packed:
            del tensors[name]
    return tensors


def _scheme(fields: Mapping[str, Any]) -> str:
    if fields.get("load_in_4bit") or fields.get("_load_in_4bit"):
        return "bitsandbytes_4bit"
    if fields.get("load_in_8bit") or fields.get("_load_in_8bit"):
        return "bitsandbytes_8bit"
    method = fields.get("quant_method")
    if method is None:
        return "mlx" if "group_size" in fields and "bits" in fields else "unnamed"
    return str(method)
