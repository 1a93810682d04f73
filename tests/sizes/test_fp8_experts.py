"""Experts that FP8 packs: those that transformers fails to make are refused."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest

from estimator.architecture.from_config import from_config
from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.errors import UnsupportedError
from estimator.request.load_options import LoadOptions
from estimator.sizes.base import base_sizes

WEIGHT = "gate_up_proj", (4, 32, 64)


@pytest.mark.parametrize(
    ("cls", "parameters", "why"),
    [
        pytest.param("Experts", (WEIGHT, ("gate_up_proj_bias", (4, 32))), "cannot have gate_up_proj_bias", id="biases"),
        pytest.param("Experts", (WEIGHT, ("down_proj", (4, 48, 16))), "48 wide", id="a width of their own"),
        pytest.param("Experts", (WEIGHT, ("down_proj", (2, 64, 16))), "two numbers", id="experts that do nothing"),
        pytest.param("DbrxExperts", (WEIGHT,), "no num_experts", id="a config without what is asked for"),
        pytest.param("SwitchTransformersExperts", (), "no intermediate_size", id="experts one by one"),
    ],
)
def test_fp8_experts_that_transformers_cannot_make(cls, parameters, why):
    experts = tuple(Parameter(name, shape, "F8_E4M3") for name, shape in parameters)
    tree = ModuleTree(
        architecture="TinyForCausalLM",
        config={"hidden_size": 64, "quantization_config": {"quant_method": "fp8", "weight_block_size": [16, 16]}},
        modules=(Module("", "Tiny", "other"), Module("mlp.experts", cls, "other", experts)),
        tied={},
    )
    with pytest.raises(UnsupportedError, match=why):
        base_sizes(tree, None, LoadOptions())


@pytest.mark.parametrize(
    ("cls", "said", "is_made"),
    [
        pytest.param("Lfm2MoeExperts", {}, False, id="the config class has no activation"),
        pytest.param("Lfm2MoeExperts", {"hidden_act": "silu"}, True, id="config.json has one"),
        pytest.param("DbrxExperts", {"hidden_act": "silu"}, False, id="the others are still lost"),
        pytest.param("Ernie4_5_VLMoeMoeExperts", {"moe_intermediate_size": [48, 16]}, False, id="two sizes"),
    ],
)
def test_what_fp8_experts_ask_of_the_config(cls, said, is_made):
    """Of the config as loaded: config.json's fields, and what the class has beside (transformers 5.23.0)."""
    quantization = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    tree = ModuleTree(
        architecture="TinyForCausalLM",
        config={"hidden_size": 64, "quantization_config": quantization, **said},
        modules=(Module("", "Tiny", "other"), Module("mlp.experts", cls, "other", (Parameter(*WEIGHT, "F8_E4M3"),))),
        tied={},
    )
    with nullcontext() if is_made else pytest.raises(UnsupportedError, match="its config gives them no"):
        assert "mlp.experts" in base_sizes(tree, None, LoadOptions()).model.quantised


@pytest.mark.judges
@pytest.mark.parametrize(
    "name",
    [
        "AriaTextForCausalLM", "DbrxForCausalLM", "JetMoeForCausalLM", "Lfm2MoeForCausalLM", "NemotronHForCausalLM",
        "SwitchTransformersForConditionalGeneration", "GptOssForCausalLM", "MixtralForCausalLM", "Qwen3MoeForCausalLM",
    ],
)  # fmt: skip
def test_fp8_experts_are_refused_where_transformers_fails(name):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers import FineGrainedFP8Config
    from transformers.quantizers.quantizer_finegrained_fp8 import FineGrainedFP8HfQuantizer

    from estimator.architecture.surveying import tiny

    said = FineGrainedFP8Config(weight_block_size=[16, 16])
    config = tiny.make(name, tiny.base_fields(name))
    with torch.device("meta"):
        model = tiny.build(name, config)
    try:
        FineGrainedFP8HfQuantizer(said, pre_quantized=True)._process_model_before_weight_loading(model)
        fails = False
    except (AttributeError, AssertionError):
        fails = True
    fields = {**json.loads(config.to_json_string(use_diff=False)), "architectures": [name], "dtype": "bfloat16"}
    tree = from_config({**fields, "quantization_config": {**said.to_dict(), "quant_method": "fp8"}})
    with pytest.raises(UnsupportedError) if fails else nullcontext():
        base_sizes(tree, None, LoadOptions())
