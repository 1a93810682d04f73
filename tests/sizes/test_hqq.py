"""How HQQ packs a weight, against what hqq's own layer holds."""

from __future__ import annotations

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.checkpoint.quantization import Quantization
from estimator.errors import UnsupportedError
from estimator.sizes.schemes.hqq import hqq_layers


@pytest.mark.parametrize(
    ("fields", "shape", "dtype", "groups"),
    [  # hqq 0.2.8.post1: HQQLinear of 48 x 64 weights
        pytest.param({"nbits": 4, "group_size": 64, "axis": 0}, (32, 48), "U8", 48, id="groups as columns"),
        pytest.param({"nbits": 3, "group_size": 64, "axis": 0}, (7, 48), "I32", 48, id="3 bits in columns"),
        pytest.param({"nbits": 3, "group_size": 64, "axis": 1}, (5, 64), "I32", 48, id="3 bits in rows"),
        pytest.param({"nbits": 3, "group_size": None, "axis": 0}, (5, 64), "I32", 64, id="3 bits of whole columns"),
        pytest.param({"nbits": 2, "group_size": 8, "axis": 1}, (96, 8), "U8", 384, id="2 bits"),
        pytest.param({"nbits": 1.58, "group_size": 8, "axis": 1}, (96, 8), "U8", 384, id="1.58 bits lie as 2"),
        pytest.param({"nbits": 1, "group_size": None, "axis": 1}, (6, 64), "U8", 48, id="1 bit of whole rows"),
        pytest.param({"nbits": 5, "group_size": 64, "axis": 1}, (48, 64), "U8", 48, id="5 bits lie as 8"),
        pytest.param(
            {"nbits": 4, "group_size": 64, "axis": 0, "view_as_float": True}, (32, 24), "F16", 48, id="bytes as floats"
        ),
        pytest.param(
            {"nbits": 3, "group_size": 8, "axis": 1, "view_as_float": True}, (39, 16), "F16", 384, id="words as floats"
        ),
    ],
)
def test_hqq_packs_rows(fields, shape, dtype, groups):
    layer = packed(fields)
    assert [(p.shape, p.dtype) for p in layer.parameters] == [(shape, dtype)]
    assert layer.state_bytes == groups * 2 * 2 + 48 * 2


def test_weights_that_no_groups_hold_are_refused():
    with pytest.raises(UnsupportedError, match="groups of 36"):  # hqq asserts that a group divides the weights
        packed({"nbits": 4, "group_size": 36, "axis": 1})


def packed(fields):
    module = Module("q", "Linear", "Linear", (Parameter("weight", (48, 64), "BF16"), Parameter("bias", (48,), "BF16")))
    model = ModuleTree(architecture=None, config={}, modules=(module,), tied={}, output_embedding=None)
    said = Quantization("hqq", {"quant_config": {"weight_quant_params": fields}, "skip_modules": []})
    return hqq_layers(model, said, "F16")["q"]
