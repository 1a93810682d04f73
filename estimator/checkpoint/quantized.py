"""Checkpoints that are stored quantised: the logical weights behind packed tensors.

A packed checkpoint has `q_proj.qweight` in place of `q_proj.weight`, and its shape is not the layer's. `unpack` puts
the logical weight back, so that the model can be built from it as from any other; where headers do not hold the in
and out features (a 4-bit weight of bitsandbytes is one column of bytes), the layer is named in `unknown` and the shape
has to come from config.json.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from estimator.checkpoint.checkpoint import Checkpoint, Tensor, Tensors, stacks_of
from estimator.checkpoint.packed_layouts import LAYOUTS, Layout
from estimator.checkpoint.quantization import quantization_of
from estimator.dtypes import stated_dtype
from estimator.errors import MalformedHeaderError
from estimator.source.stack import Kind, Stack


class PackedLayer(NamedTuple):
    """A layer of which the file holds packed parts in place of the weight."""

    scheme: str
    shape: tuple[int, ...] | None  # of the logical weight, torch's order; None where headers can't tell
    tensors: tuple[Tensor, ...]  # as stored


class Unpacked(NamedTuple):
    """A quantised checkpoint with a logical weight in place of each layer's parts."""

    checkpoint: Checkpoint  # logical: a float weight for each packed layer whose shape is known; `bytes` as stored
    unknown: Mapping[str, PackedLayer] = {}  # layers whose shape must come from config.json


def unpack(config: Mapping[str, Any], checkpoint: Checkpoint) -> Unpacked:
    """The checkpoint with logical weights in place of packed ones."""
    quantization = quantization_of(config)
    layout = LAYOUTS.get(quantization.scheme) if quantization else None
    if layout is None:
        return Unpacked(checkpoint=checkpoint)
    stored, dtype = checkpoint.tensors, stated_dtype(config) or "BF16"
    if layout.in_place:
        stacks = _under_one_name(stacks_of(stored), layout)
        return Unpacked(checkpoint=checkpoint._replace(tensors=Tensors(_recast(stacks, layout, dtype))))
    layers = packed_layers(config, checkpoint)
    packed = {tensor.name for layer in layers.values() for tensor in layer.tensors}
    tensors = {
        name: tensor for name, tensor in stored.items() if name not in packed and not name.endswith(layout.others)
    }
    for stem, layer in layers.items():
        if layer.shape is not None:
            logical = stem + layout.logical
            tensors[logical] = Tensor(logical, dtype, layer.shape, layer.tensors[0].file)
    return Unpacked(
        checkpoint=checkpoint._replace(tensors=tensors),
        unknown={stem: layer for stem, layer in layers.items() if layer.shape is None},
    )


def packed_layers(config: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, PackedLayer]:
    """What is packed, by the module's name as stored (fused experts: by the parameter's)."""
    quantization = quantization_of(config)
    layout = LAYOUTS.get(quantization.scheme) if quantization else None
    if quantization is None or layout is None:
        return {}
    layers, stored = {}, dict(checkpoint.tensors.items())
    stems = _stems(stored, layout)
    own = layout.fields_by_layer(quantization.fields, stems) if stems and layout.fields_by_layer else {}
    for stem in stems:
        parts = {part: stored[stem + part] for part in layout.parts if stem + part in stored}
        if layout.is_whole and not layout.is_whole(parts):
            continue
        shape = _shape(layout, parts, own.get(stem) or quantization.fields, checkpoint)
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
    markers = (layout.marker, *layout.also)
    stems = [name.removesuffix(marker) for marker in markers for name in stored if name.endswith(marker)]
    for part in layout.needs:
        stems = [stem for stem in stems if stem + part in stored]
    return stems


def _under_one_name(stacks: Sequence[Stack], layout: Layout) -> Sequence[Stack]:
    """The stacks with scales that go by another name called as the layout calls them."""
    if not any(stack.after.endswith(layout.called) for stack in stacks):
        return stacks
    weight = layout.logical
    packed = {
        (stack.before, stack.after.removesuffix(weight))
        for stack in stacks
        if stack.after.endswith(weight) and stack.kind.dtype in _OF_A_BYTE
    }
    stems = [next((s.after.removesuffix(one) for one in layout.called if s.after.endswith(one)), None) for s in stacks]
    return [
        stack._replace(after=stem + layout.marker) if stem is not None and (stack.before, stem) in packed else stack
        for stack, stem in zip(stacks, stems, strict=True)
    ]


def _recast(stacks: Sequence[Stack], layout: Layout, dtype: str) -> Iterator[Stack]:
    """Weights that have scales, in their logical shape under their own name; what the quantiser adds left out."""
    marker, weight = layout.marker, layout.logical
    held: dict[tuple[str, str], set[str]] = {}
    for stack in stacks:
        if stack.after.endswith((marker, weight)):
            held.setdefault((stack.before, stack.after), set()).update(stack.indices)

    @cache
    def both(before: str, stem: str) -> set[str]:
        """The indices at which a weight and its scales are stored."""
        return held.get((before, stem + weight), set()) & held.get((before, stem + marker), set())

    others = tuple(part for part in layout.parts if part not in (weight, marker))
    for stack in (stack for stack in stacks if not stack.after.endswith(layout.others)):
        if stack.after.endswith(weight):
            packed, plain = _parted(stack, both(stack.before, stack.after.removesuffix(weight)))
            yield from (part._replace(kind=_logical(part.kind, layout, dtype)) for part in packed)
            yield from plain
        elif stack.after.endswith(marker):
            yield from _parted(stack, both(stack.before, stack.after.removesuffix(marker)))[1]
        elif stack.after.endswith(others):
            yield from _parted(stack, both(stack.before, stack.after.rpartition(".")[0]))[1]
        else:
            yield stack


def _logical(kind: Kind, layout: Layout, dtype: str) -> Kind:
    shape = (*kind.shape[:-1], 2 * kind.shape[-1]) if kind.dtype in layout.two_a_byte and kind.shape else kind.shape
    return kind._replace(dtype=dtype, shape=shape)


def _parted(stack: Stack, indices: set[str]) -> tuple[list[Stack], list[Stack]]:
    """What of a stack has these indices, and what has others: a stack or none."""
    if indices.issuperset(stack.indices):
        return [stack], []
    inside = [at for at, index in enumerate(stack.indices) if index in indices]
    outside = [at for at, index in enumerate(stack.indices) if index not in indices]
    return [stack.part(inside)] if inside else [], [stack.part(outside)]


_OF_A_BYTE = ("F8_E4M3", "F8_E5M2", "I8", "U8")
