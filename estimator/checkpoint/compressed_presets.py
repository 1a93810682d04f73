"""Config groups of compressed-tensors that are a preset's name and its targets: `{"FP8_DYNAMIC": ["Linear"]}`.

compressed-tensors 0.20.0, `preset_name_to_scheme` and PRESET_SCHEMES (quant_scheme.py). Of activations that are scaled
as they come nothing is kept, so no more is said of them here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from estimator.errors import MalformedConfigError

Fields = Mapping[str, Any]

_INTEGERS = re.compile(r"W([2-8])A(4|8|16)")  # weights in groups of 128


def spelt_out(groups: Fields) -> dict[str, Any]:
    """The groups with presets in full. Raises MalformedConfigError for a name that is no preset's."""
    return {
        name: {"targets": group, **_preset(str(name))} if isinstance(group, list | tuple) else group
        for name, group in groups.items()
    }


def _preset(name: str) -> Fields:
    integers = _INTEGERS.fullmatch(name.upper())
    if name.upper() in _PRESETS:
        return _PRESETS[name.upper()]
    if integers and int(integers[1]) <= int(integers[2]):
        inputs = {"input_activations": _AS_THEY_COME} if integers[2] != "16" else {}
        return {"weights": _INTEGER | {"num_bits": int(integers[1])}, **inputs}
    raise MalformedConfigError(
        f"config_groups names no group's fields but targets for {name[:40]!r}, which is no preset of "
        "compressed-tensors 0.20.0.",
        where="quantization_config in config.json",
        way_out=f"one of {', '.join(_PRESETS)}, or W4A16 and the like",
    )


_AS_THEY_COME = {"dynamic": True}
_INTEGER = {"type": "int", "strategy": "group", "group_size": 128, "symmetric": True}
_ROWS_OF_INTEGERS = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
_FLOAT = {"num_bits": 8, "type": "float", "symmetric": True}
_NVFP4 = {**_FLOAT, "num_bits": 4, "strategy": "tensor_group", "group_size": 16, "scale_dtype": "torch.float8_e4m3fn"}
_MX = {**_FLOAT, "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}

_PRESETS: Mapping[str, Fields] = {
    "UNQUANTIZED": {},
    "W4A16_ASYM": {"weights": {**_INTEGER, "num_bits": 4, "symmetric": False}},
    **dict.fromkeys(("W8A8", "INT8"), {"weights": _ROWS_OF_INTEGERS, "input_activations": _AS_THEY_COME}),
    "W4AFP8": {"weights": {**_INTEGER, "num_bits": 4}, "input_activations": _AS_THEY_COME},
    "FP8": {"weights": {**_FLOAT, "strategy": "tensor"}, "input_activations": {**_FLOAT, "strategy": "tensor"}},
    "FP8_DYNAMIC": {"weights": {**_FLOAT, "strategy": "channel"}, "input_activations": _AS_THEY_COME},
    "FP8_BLOCK": {
        "weights": {**_FLOAT, "strategy": "block", "block_structure": [128, 128]},
        "input_activations": _AS_THEY_COME,
    },
    "NVFP4A16": {"weights": _NVFP4},
    "NVFP4": {"weights": _NVFP4, "input_activations": {**_NVFP4, "dynamic": "local"}},
    "MXFP4A16": {"weights": {**_MX, "num_bits": 4}},
    **dict.fromkeys(("MXFP4", "MXFP4XFP8"), {"weights": {**_MX, "num_bits": 4}, "input_activations": _AS_THEY_COME}),
    "MXFP6A16": {"weights": {**_MX, "num_bits": 6}},
    "MXFP6A8": {"weights": {**_MX, "num_bits": 6}, "input_activations": _AS_THEY_COME},
    "MXFP8A16": {"weights": _MX},
    "MXFP8": {"weights": _MX, "input_activations": _AS_THEY_COME},
}
