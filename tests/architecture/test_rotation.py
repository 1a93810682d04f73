"""Rotations of which transformers builds no model, and those that it builds: the same rows before lora-size and it."""

from __future__ import annotations

import copy

import pytest

from estimator.architecture.from_config import from_config
from estimator.architecture.module import named_buffers
from estimator.errors import MalformedConfigError

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1,
         "num_attention_heads": 4, "intermediate_size": 32, "vocab_size": 99}  # fmt: skip
GEMMA_3 = {**LLAMA, "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "head_dim": 16}
LAGUNA = {**LLAMA, "architectures": ["LagunaForCausalLM"], "model_type": "laguna", "head_dim": 16,
          "num_key_value_heads": 2, "num_attention_heads_per_layer": [4], "mlp_layer_types": ["dense"],
          "layer_types": ["full_attention"], "num_experts": 2, "moe_intermediate_size": 8}  # fmt: skip
DEEPSEEK = {**LLAMA, "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "q_lora_rank": None,
            "first_k_dense_replace": 1}  # fmt: skip
YOUTU = {**LLAMA, "architectures": ["YoutuForCausalLM"], "model_type": "youtu", "q_lora_rank": None,
         "num_key_value_heads": 4}  # fmt: skip
LINEAR = {"rope_type": "linear", "factor": 2.0}
LONG = {"rope_type": "longrope", "factor": 2.0, "short_factor": [1.0] * 8, "long_factor": [1.0] * 8}
GEMMA_4 = {**LLAMA, "architectures": ["Gemma4ForCausalLM"], "model_type": "gemma4_text", "num_key_value_heads": 2,
           "head_dim": 16, "global_head_dim": 16, "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0,
           "num_hidden_layers": 2, "layer_types": ["sliding_attention"] * 2}  # fmt: skip
PHI_3 = {**LLAMA, "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "pad_token_id": 0}
QWEN_2_VL = {**LLAMA, "architectures": ["Qwen2VLTextModel"], "model_type": "qwen2_vl_text", "num_key_value_heads": 2}
MIXTRAL = {**LLAMA, "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_key_value_heads": 2}
COHERE = {**LLAMA, "architectures": ["Cohere2ForCausalLM"], "model_type": "cohere2"}
ROWS = [  # config, how many frequencies; None: no model
    pytest.param({**LLAMA, "rope_scaling": LINEAR}, 8, id="a factor"),
    pytest.param({**LLAMA, "rope_scaling": {"rope_type": "linear"}}, None, id="no factor"),
    pytest.param({**LLAMA, "rope_scaling": {"type": "llama3", "factor": 8.0}}, None, id="a factor alone, of Llama 3.1"),
    pytest.param({**LLAMA, "rope_scaling": LONG}, 8, id="a factor for each frequency"),
    pytest.param({**LLAMA, "rope_scaling": LONG | {"short_factor": [1.0] * 6}}, None, id="factors of other heads"),
    pytest.param({**GEMMA_3, "rope_scaling": LINEAR}, 8, id="of kinds of layers, which share it out"),
    pytest.param({**LAGUNA, "rope_parameters": {"full_attention": {**LINEAR, "rope_theta": 1e4}}}, 8, id="by kind of layer"),
    pytest.param({**LAGUNA, "rope_parameters": {"full_attention": {**LINEAR, "rope_type": "yarn"}}}, None,
                 id="by kind of layer, without the length before"),
    pytest.param({**LLAMA, "rope_scaling": {**LINEAR, "rope_type": "yarn"}}, 8, id="the length before is the length"),
    pytest.param({**LAGUNA, "rope_scaling": LINEAR}, None, id="by no kind"),
    pytest.param({**LAGUNA, "rope_parameters": {"sliding_attention": LINEAR}}, None, id="by another kind"),
    pytest.param({**COHERE, "head_dim": 32}, 16, id="heads as stated, which the class works out else"),
    pytest.param(COHERE, 8, id="heads as worked out"),
    pytest.param({**DEEPSEEK, "qk_rope_head_dim": 8, "head_dim": 32}, 4, id="the rotated part is the head"),
    pytest.param({**YOUTU, "qk_rope_head_dim": 8}, 4, id="so is it where none is stated"),
    pytest.param({**YOUTU, "qk_rope_head_dim": 8, "head_dim": 24}, 12, id="the stated head comes first"),
    pytest.param({**DEEPSEEK, "qk_rope_head_dim": 8, "rope_scaling": LINEAR, "partial_rotary_factor": 0.5}, 2,
                 id="a share of that part"),
    *(pytest.param({**LLAMA, "rope_scaling": rope}, None, id=said) for said, rope in {
        "no such way": {"type": "ntk", "factor": 2.0}, "a way of Phi-3's": {**LONG, "rope_type": "su"},
        "a way of Qwen2-VL's": {"rope_type": "mrope", "mrope_section": [2, 3, 3]}, "no way": {"rope_type": None},
        "no long factors": {key: value for key, value in LONG.items() if key != "long_factor"},
        "no factor, though there are lists": {"type": "yarn", "short_factor": [1.0] * 8, "long_factor": [1.0] * 8},
        "a factor that is null": {"type": "linear", "factor": None}, "a factor in words": {"type": "linear", "factor": "2"},
        "no short factors": LONG | {"short_factor": []}, "a word": "linear",
        "images' way": {"rope_type": "axial"}, "a way that is a list": {"rope_type": ["linear"]},
    }.items()),
    pytest.param({**LLAMA, "rope_scaling": {"type": "yarn", "factor": None}}, 8, id="a factor that the lengths have"),
    pytest.param({**PHI_3, "rope_scaling": {**LONG, "type": "yarn", "rope_type": "yarn"}}, 8, id="yarn of Phi-3's"),
    pytest.param({**PHI_3, "rope_scaling": {**LONG, "rope_type": "su"}}, None, id="the length comes before its word"),
    pytest.param({**PHI_3, "rope_scaling": {**LONG, "rope_type": "su", "original_max_position_embeddings": 64}}, 8,
                 id="su of Phi-3's"),
    pytest.param({**PHI_3, "rope_scaling": LINEAR}, None, id="one way alone"),
    pytest.param({**QWEN_2_VL, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}, 8, id="mrope"),
    pytest.param({**QWEN_2_VL, "rope_scaling": {"type": "su", "factor": 2.0}}, None, id="su is not mrope"),
    pytest.param({**MIXTRAL, "rope_scaling": {"type": "yarn", "factor": 2.0}}, None, id="a head that is not said"),
    pytest.param({**MIXTRAL, "head_dim": 16, "rope_scaling": {"type": "yarn", "factor": 2.0}}, 8, id="one that is"),
    pytest.param({**MIXTRAL, "rope_scaling": LINEAR}, 8, id="one that is worked out"),
    pytest.param({**LLAMA, "architectures": ["GemmaForCausalLM"], "model_type": "gemma", "head_dim": 16,
                  "rope_scaling": {"rope_type": "frob"}}, None, id="no such way, of another class"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "frequencies"), ROWS)
def test_a_rotation_has_so_many_frequencies_or_is_refused(config, frequencies):
    if frequencies is None:
        with pytest.raises(MalformedConfigError, match="transformers builds no such model"):
            from_config(config)
        return
    tree = from_config(config)
    assert {b.shape[0] for name, b in named_buffers(tree.modules) if name.endswith("inv_freq")} == {frequencies}


GEMMA_4_S = {"rotary_emb.full_attention_inv_freq", "rotary_emb.sliding_attention_inv_freq"}


def test_frequencies_of_kinds_of_layers_are_those_of_the_layers_that_are_built():
    found = {name.removeprefix("model.") for name, _ in named_buffers(from_config(GEMMA_4).modules)}
    assert {name for name in found if name.endswith("attention_inv_freq")} == GEMMA_4_S


@pytest.mark.judges
def test_gemma_4_makes_its_last_layer_one_of_full_attention():
    transformers = pytest.importorskip("transformers")
    import torch

    fields = {key: value for key, value in GEMMA_4.items() if key != "model_type"}
    with torch.device("meta"):
        model = transformers.Gemma4ForCausalLM(transformers.CONFIG_MAPPING["gemma4_text"].from_dict(fields))
    found = {name.removeprefix("model.") for name, _ in model.named_buffers()}
    assert {name for name in found if name.endswith("attention_inv_freq")} == GEMMA_4_S


@pytest.mark.judges
@pytest.mark.parametrize(("config", "frequencies"), ROWS)
def test_transformers_builds_and_refuses_the_same(config, frequencies):
    transformers = pytest.importorskip("transformers")
    import torch

    def built():
        fields = copy.deepcopy(config)  # its class adds to them
        del fields["model_type"]
        with torch.device("meta"):
            cls = getattr(transformers, config["architectures"][0])
            return cls(transformers.CONFIG_MAPPING[config["model_type"]].from_dict(fields))

    if frequencies is None:
        from huggingface_hub.errors import StrictDataclassError

        with pytest.raises((KeyError, RuntimeError, TypeError, ValueError, StrictDataclassError)):
            built()
        return
    sizes = {b.shape[0] for name, b in built().named_buffers() if name.endswith("original_inv_freq")}
    assert sizes == {frequencies}
