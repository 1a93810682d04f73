"""Features of packed layers that headers do not tell: from the class, else from the number of elements and the width.

A 4-bit weight of bitsandbytes is one column of bytes. Nearly every Linear has the model's width on one side, which
side its name tells; LoRA's count does not depend on the side. What comes of it is inferred, and said to be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import Any

from estimator.checkpoint.checkpoint import Tensor
from estimator.checkpoint.quantized import PackedLayer, Unpacked
from estimator.dtypes import BITS

_TO_THE_WIDTH = re.compile(r"(o_proj|out_proj|down_proj|c_proj|attn_out|ff_out|fc2|wo|w2|dense_4h_to_h|output\.dense)$")
_WIDTHS = ("hidden_size", "n_embd", "d_model", "embed_dim", "dim")
_FROM_INSIDE = re.compile(r"\bx_proj$")  # Mamba's, which reads the inner width
_TOWERS = (("vision", "vision_config"), ("visual", "vision_config"), ("audio", "audio_config"))


def put_known(unpacked: Unpacked, shapes: Mapping[str, tuple[int, ...]]) -> Unpacked:
    """The same with shapes for layers in `unknown` that a class builds from config.json.

    `shapes`: out and in features by stored name. Of a layout whose bytes tell the number of elements a shape counts
    where it fills them; layers that it does not fill stay unknown.
    """
    tensors, unknown = dict(unpacked.checkpoint.tensors), {}
    for stem, layer in unpacked.unknown.items():
        shape = shapes.get(stem)
        elements = _elements(stem, layer)
        if shape is None or (elements and prod(shape) not in elements):
            unknown[stem] = layer
            continue
        name = stem + ".weight"
        tensors[name] = Tensor(name, "BF16", shape, layer.tensors[0].file)
    return Unpacked(checkpoint=unpacked.checkpoint._replace(tensors=tensors), unknown=unknown)


def infer_unknown(config: Mapping[str, Any], unpacked: Unpacked) -> Unpacked:
    """The same with inferred shapes for layers in `unknown`; those that the width does not divide stay there."""
    tensors, unknown = dict(unpacked.checkpoint.tensors), {}
    for stem, layer in unpacked.unknown.items():
        shape = _shape(stem, layer, config, tensors)
        if shape is None:
            unknown[stem] = layer
            continue
        name = stem + ".weight"
        tensors[name] = Tensor(name, "BF16", shape, layer.tensors[0].file)
    return Unpacked(checkpoint=unpacked.checkpoint._replace(tensors=tensors), unknown=unknown)


def _shape(
    stem: str, layer: PackedLayer, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[int, int] | None:
    bias, width = tensors.get(stem + ".bias"), _width(stem, config)
    out = bias.shape[0] if bias is not None and len(bias.shape) == 1 else None
    for elements in _elements(stem, layer):
        if out and elements % out == 0:
            return out, elements // out
        if not out and width and elements % width == 0:
            other = elements // width
            return (width, other) if _TO_THE_WIDTH.search(stem) else (other, width)
    return None


def _elements(stem: str, layer: PackedLayer) -> tuple[int, ...]:
    """How many elements a 4-bit weight can have: an odd number fills half of the last byte. () for other layouts."""
    packed = next((tensor for tensor in layer.tensors if tensor.name == stem + ".weight"), None)
    if layer.scheme != "bitsandbytes_4bit" or packed is None or not packed.shape:
        return ()
    even = 2 * packed.shape[0] * BITS[packed.dtype] // 8
    return even, even - 1


def _width(stem: str, config: Mapping[str, Any]) -> int | None:
    if _FROM_INSIDE.search(stem):
        inner, expand = config.get("intermediate_size"), config.get("expand")
        hidden = config.get("hidden_size")
        return inner if type(inner) is int else expand * hidden if expand and hidden else None
    tower = next((section for word, section in _TOWERS if word in stem), "text_config")
    section = config.get(tower)
    section = section if isinstance(section, Mapping) else config
    return next((section[field] for field in _WIDTHS if type(section.get(field)) is int), None)
