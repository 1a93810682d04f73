"""What of a config.json alone makes no tree: values that were not tried, numbers that transformers refuses."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from estimator.architecture.from_config import from_config
from estimator.errors import MalformedConfigError, NoWeightsError, UnsupportedError
from tests.architecture.published_configs import LLAMA_1B


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"architectures": ["NoSuchModel"], "model_type": "no_such"}, id="a class without formulas"),
        pytest.param(LLAMA_1B | {"attention_bias": "some"}, id="a switch with a value that was never tried"),
        pytest.param(LLAMA_1B | {"model_type": "mistral"}, id="a class and a model type that do not belong together"),
        pytest.param({}, id="an empty config.json"),
    ],
)
def test_what_was_not_tried_is_refused(config):
    with pytest.raises(NoWeightsError) as caught:
        from_config(config)
    assert "headers" in caught.value.what


@pytest.mark.parametrize(
    ("value", "said"),
    [("large", "'large'"), (True, "an object or true"), ({"text": 8}, "an object or true"), ([2048], "[2048]")],
)
def test_what_is_no_number_is_named(value, said):
    with pytest.raises(MalformedConfigError) as caught:
        from_config(LLAMA_1B | {"hidden_size": value})
    assert caught.value.what == f"hidden_size is {said}, which is no number."


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            {"num_attention_heads": 0, "head_dim": None},
            "num_attention_heads is 0, of which transformers builds no LlamaForCausalLM.",
            id="heads",
        ),
        pytest.param(
            {"num_hidden_layers": 4, "layer_types": ["full_attention"] * 3},
            "layer_types has 3 entries, and num_hidden_layers is 4, which transformers refuses.",
            id="kinds of layers for another number of them",
        ),
        pytest.param(
            {"num_hidden_layers": 2, "layer_types": ["full_attention"]},
            "layer_types has 1 entry, and num_hidden_layers is 2, which transformers refuses.",
            id="one kind for two layers",
        ),
    ],
)
def test_numbers_of_which_no_model_is_built_ask_for_no_headers(change, said):
    with pytest.raises(MalformedConfigError) as caught:
        from_config(LLAMA_1B | change)
    assert caught.value.what == said


def test_kinds_of_layers_in_a_section_are_as_many_as_its_layers():
    text = {"num_hidden_layers": 1, "layer_types": ["full_attention"], "mlp_layer_types": []}
    config = {"model_type": "glm_image", "architectures": ["GlmImageForConditionalGeneration"], "text_config": text}
    with pytest.raises(MalformedConfigError, match="text_config.mlp_layer_types has 0 entries, and text_config.num"):
        from_config(config)


GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 48, "n_head": 6, "vocab_size": 101}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"n_layer": 2, "layer_types": ["full_attention"]}, "n_layer is 2,", id="its own name"),
        pytest.param({"num_hidden_layers": 2, "layer_types": []}, "num_hidden_layers is 2,", id="its other name"),
        pytest.param({"layer_types": ["full_attention"] * 2}, "n_layer is 12,", id="the class's default"),
        pytest.param({"layer_types": ["full_attention"] * 12}, None, id="as many as by default"),
    ],
)
def test_kinds_of_layers_are_as_many_as_there_are_under_any_name(fields, said):
    """Truth: GPT2Config of transformers 5.23.0, which reads no layer_types and holds them against their number."""
    if said is None:
        assert from_config(GPT2 | fields).modules
        return
    with pytest.raises(MalformedConfigError, match=f"layer_types has .*{said}"):
        from_config(GPT2 | fields)


@pytest.mark.parametrize(
    ("kind", "field", "divides"),
    [
        pytest.param("gpt2", "n_head", True, id="a class that reads them for its shapes nowhere"),
        pytest.param("gpt2", "num_attention_heads", True, id="under their other name"),
        pytest.param("clip_text_model", "num_attention_heads", True, id="a tower"),
        pytest.param("gpt_neox", "num_attention_heads", True, id="a class that reads them for another shape"),
        pytest.param("clip_text_model", "n_head", False, id="another class's field"),
        pytest.param("clip", "num_attention_heads", False, id="beside the towers' sections"),
        pytest.param("mamba", "num_attention_heads", False, id="without attention"),
        pytest.param("granitemoehybrid", "num_attention_heads", False, id="without a layer of attention"),
        pytest.param("fnet", "num_attention_heads", False, id="what takes attention's place"),
    ],
)
def test_no_heads_are_refused_where_attention_divides_by_them(kind, field, divides):
    with pytest.raises(MalformedConfigError, match=f"{field} is 0, of which") if divides else nullcontext():
        from_config({"model_type": kind, field: 0})


def test_layers_without_end_are_beyond_a_limit_of_our_own():
    with pytest.raises(UnsupportedError) as caught:
        from_config(LLAMA_1B | {"num_hidden_layers": 1_000_000})
    assert caught.value.what == "1,000,000 modules in one list are more than the 10,000 that lora-size lays out."
    assert "lora-size's own" in caught.value.way_out


def test_what_is_no_list_is_named():
    blocks = {"model_type": "pp_lcnet_v3", "block_configs": "x"}
    with pytest.raises(MalformedConfigError) as caught:
        from_config({"model_type": "pp_ocrv5_mobile_rec", "backbone_config": blocks})
    assert caught.value.what == "backbone_config.block_configs is 'x', where a list belongs."


def test_a_composite_config_without_the_text_model_s_section_is_refused():
    with pytest.raises(NoWeightsError):
        from_config({"model_type": "qwen3_5", "hidden_size": 64}, task="CAUSAL_LM")


def test_lists_of_layers_within_an_object_are_refused_where_no_formula_knows_them():
    kimi = {"architectures": ["KimiLinearForCausalLM"], "model_type": "kimi_linear"}
    with pytest.raises(NoWeightsError, match="full_attn_layers"):
        from_config({**kimi, "linear_attn_config": {"full_attn_layers": [4], "kda_layers": [1, 2, 3]}})
