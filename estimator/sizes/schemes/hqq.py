"""HQQ's layers (hqq 0.2.8.post1, core/quantize.py and core/bitpack.py).

A weight is laid out as rows and columns: [groups, group] where axis is 1, [group, groups] where it is 0, and as it is
without groups. Rows are packed, the columns stay:

    8, 6, 5 bits   W_q U8 [rows, columns]              4, 2, 1 bits (1.58 as 2)   W_q U8 [rows x bits / 8, columns]
    3 bits         W_q I32 [rows / 10, columns], the last word not full

`view_as_float` has the same bytes as float16. W_q alone is a parameter; scale and zero of each group and the bias
(float16) are plain tensors, in no footprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod
from typing import Any

from estimator.architecture.module import Module, ModuleTree, Parameter, QuantisedLayer
from estimator.checkpoint.quantization import Quantization
from estimator.errors import UnsupportedError
from estimator.sizes.schemes.others import linears

_PACKED_AS: Mapping[float, int] = {6: 8, 5: 8, 1.58: 2}  # `Quantizer.bit_to_packing`, where it is another number
_BITS, _GROUP, _AXIS = 4, 64, 0  # `Quantizer.quantize`


def hqq_layers(tree: ModuleTree, quantization: Quantization, _dtype: str) -> dict[str, QuantisedLayer]:
    """HQQLinear in place of each Linear, as one config for all or one for each tag of a name says.

    Raises UnsupportedError for a layer that does not divide into its groups (`Quantizer.quantize` asserts it).
    """
    said = quantization.fields.get("quant_config") or {}
    layers = {}
    for module in linears(tree, {"modules_to_not_convert": quantization.fields.get("skip_modules")}):
        own = said if "weight_quant_params" in said or not said else said.get(_tag(module.name))
        if isinstance(own, Mapping):
            layers[module.name] = _layer(module, own.get("weight_quant_params") or {})
    return layers


def _layer(module: Module, fields: Mapping[str, Any]) -> QuantisedLayer:
    out, columns = module.parameters[0].shape
    group = fields.get("group_size", _GROUP) if fields.get("channel_wise", True) else None
    axis, bits = fields.get("axis", _AXIS), fields.get("nbits") or _BITS
    rows, width = out, columns
    if group:
        if out * columns % group:
            raise UnsupportedError(
                f"{module.name} has {out * columns:,} weights, which HQQ can't put into groups of {group}.",
                where="group_size of quantization_config in config.json",
                way_out="name the model that was quantised instead",
            )
        rows, width = (out * columns // group, group) if axis == 1 else (group, out * columns // group)
    groups = (rows if axis == 1 else width) if fields.get("channel_wise", True) else 1
    return QuantisedLayer(
        scheme="hqq",
        cls="HQQLinear",
        parameters=(_packed(rows, width, _PACKED_AS.get(bits, bits), bool(fields.get("view_as_float"))),),
        state_bytes=2 * 2 * groups + 2 * sum(prod(bias.shape) for bias in module.parameters[1:]),
        is_linear=False,
    )


def _packed(rows: int, width: int, bits: int, as_float: bool) -> Parameter:
    words, dtype, word_bytes = (ceil(rows / 10), "I32", 4) if bits == 3 else (rows * bits // 8, "U8", 1)
    if as_float:
        return Parameter("W_q", (words, width * word_bytes // 2), "F16", True)
    return Parameter("W_q", (words, width), dtype, True)


def _tag(name: str) -> str:
    """The layer's name as HQQ's `dynamic_config` has it (`name_to_linear_tag`)."""
    return ".".join(part for part in name.split(".") if part not in ("model", "layers") and not part.isnumeric())
