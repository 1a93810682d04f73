"""Weights that are packed in a way that is not known here, or that config.json does not name.

No class of transformers keeps a `weight` of integers, booleans or complex numbers, torch has no floats of six bits, and
a scale beside a weight is a quantiser's. What lies so after the known layouts were unpacked has a shape that is not the
layer's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator.checkpoint.checkpoint import Checkpoint
from estimator.checkpoint.packed_layouts import LAYOUTS
from estimator.checkpoint.quantization import quantization_of

_OF_NO_WEIGHT = (
    "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL", "C64", "F4", "F6_E2M3", "F6_E3M2",
)  # fmt: skip
# What quantisers call the packed weights, and scales of weights that keep their shape.
_PACKED = (
    ".qweight", ".q_weight", ".dqweight", ".weight_packed", "weight.absmax", "._weight_qdata", ".W_q", ".codes",
    ".Qidxs", ".trellis", ".dense_weights", ".compressed",
)  # fmt: skip
_SCALES = (".SCB", ".weight_scale_2", ".weight._scale")


def packed_otherwise(config: Mapping[str, Any], checkpoint: Checkpoint) -> list[str]:
    """The names of tensors that are packed, in a checkpoint whose known layouts are unpacked.

    A scheme of config.json that is not known counts by itself, as soon as any tensor is not of a plain dtype.
    """
    quantization = quantization_of(config)
    dtypes = {dtype for file in checkpoint.files for dtype in file.dtypes}
    odd = dtypes.intersection((*_OF_NO_WEIGHT, "F8_E4M3", "F8_E5M2"))
    if not odd:
        return []
    unknown = quantization is not None and quantization.scheme not in LAYOUTS
    if not unknown and not dtypes.intersection(_OF_NO_WEIGHT):
        return []  # floats of 8 bits keep their shape, and a known scheme's are recast
    packed = [
        name
        for name, tensor in checkpoint.tensors.items()
        if (tensor.dtype in _OF_NO_WEIGHT and name.endswith(".weight")) or name.endswith((*_PACKED, *_SCALES))
    ]
    others = (name for name, tensor in checkpoint.tensors.items() if tensor.dtype in odd)
    return packed or (list(others) if unknown else [])
