"""Experts stored one by one by compressed-tensors; truth: what from_pretrained made of a tiny Mixtral and Qwen 3 MoE.

transformers 5.23.0, compressed-tensors 0.20.0.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.errors import UnsupportedError
from estimator.sizes.schemes.compressed_experts import check_compressed_experts, check_joined

INT8, FLOAT8 = {"num_bits": 8, "type": "int"}, {"num_bits": 8, "type": "float"}
PLAIN = {"weight": ("BF16", (64, 96))}
PACKED = {"weight_packed": ("I32", (64, 12)), "weight_scale": ("BF16", (64, 3)), "weight_shape": ("I64", (2,))}


def scaled(dtype, *scales):
    return {"weight": (dtype, (64, 96)), "weight_scale": ("BF16", scales)}


def groups(*weights, targets=("Linear",)):
    return {str(at): {"targets": list(targets), "weights": one} for at, one in enumerate(weights)}


BY_NAME = {"0": {"targets": ["Linear"], "weights": INT8}, "1": {"targets": ["re:.*experts.*"], "weights": FLOAT8}}
BY_CLASS = {"0": {"targets": ["re:.*self_attn.*"], "weights": FLOAT8}, "1": {"targets": ["Linear"], "weights": INT8}}


@pytest.mark.parametrize(
    ("parts", "config_groups", "fault"),
    [
        pytest.param(PACKED, groups({"num_bits": 4, "type": "int"}), None, id="packed"),
        pytest.param(PLAIN, groups(INT8), "is not packed", id="plain, where Linears are of 8 bits"),
        pytest.param(PLAIN, groups(INT8, targets=["re:.*self_attn.*"]), "is not packed", id="where attention alone is"),
        pytest.param(scaled("I8", 64, 1), groups(INT8), "is not packed", id="integers that are not packed"),
        pytest.param(PLAIN, groups(FLOAT8), None, id="plain, where Linears are of 8-bit floats"),
        pytest.param(scaled("F8_E4M3", 64, 1), groups(FLOAT8), None, id="8-bit floats, a scale a row"),
        pytest.param(scaled("F8_E4M3", 1), groups(FLOAT8), None, id="a scale for all"),
        pytest.param(scaled("F8_E4M3", 2, 3), groups(FLOAT8), "scales in blocks", id="scales in blocks"),
        pytest.param(PLAIN, BY_NAME, None, id="the group that names experts goes before"),
        pytest.param(PLAIN, BY_CLASS, "is not packed", id="then the first of a class"),
        pytest.param(PLAIN, {}, "is not packed", id="no group at all"),
    ],
)
def test_experts_are_fused_or_refused(parts, config_groups, fault):
    stem = "model.layers.0.mlp.experts.{}.up_proj.{}"
    tensors = {
        (name := stem.format(expert, part)): Tensor(name, dtype, shape, "one")
        for expert in (0, 1)
        for part, (dtype, shape) in parts.items()
    }
    head = Tensor("lm_head.weight", "BF16", (128, 96), "one")
    checkpoint = Checkpoint(tensors={**tensors, head.name: head}, files=(), bytes=0)
    with pytest.raises(UnsupportedError, match=fault) if fault else nullcontext():
        check_compressed_experts(checkpoint, {"config_groups": config_groups})


@pytest.mark.parametrize(
    ("weights", "scaled_layers", "fault"),
    [  # OLMo hybrid's three convolutions, stored apart; truth as above
        pytest.param(INT8, (), True, id="plain beside Linears of 8 bits"),
        pytest.param({"num_bits": 4, "type": "int"}, (), True, id="of 4 bits"),
        pytest.param(FLOAT8, (), False, id="of 8-bit floats"),
        pytest.param(INT8, ("model.layers.0.linear_attn.conv1d",), False, id="a module with scales of its own"),
    ],
)
def test_plain_weights_that_the_class_joins(weights, scaled_layers, fault):
    conv1d = Module(
        "model.layers.0.linear_attn.conv1d", "Conv1d", "Conv1d", (Parameter("weight", (144, 1, 4), "BF16"),)
    )
    config = {"model_type": "olmo_hybrid", "architectures": ["OlmoHybridForCausalLM"]}
    tree = ModuleTree(architecture="OlmoHybridForCausalLM", config=config, modules=(conv1d,), tied={})
    names = [f"model.layers.0.linear_attn.{one}_conv1d.weight" for one in "qkv"]
    checkpoint = Checkpoint({name: Tensor(name, "BF16", (48, 1, 4), "one") for name in names}, files=(), bytes=0)
    with pytest.raises(UnsupportedError, match="q_conv1d.weight is not packed") if fault else nullcontext():
        check_joined(tree, scaled_layers, checkpoint, {"config_groups": groups(weights)})
