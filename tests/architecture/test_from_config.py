"""Trees from config.json alone: published parameter counts, and what differs from headers."""

from __future__ import annotations

import math

import pytest

from estimator.architecture.difference import compare
from estimator.architecture.from_config import from_config, winning_names
from estimator.architecture.module import ModuleTree, named_buffers
from tests.architecture.published_configs import (
    BLIP_2_T5,
    CLIP_LARGE_336,
    DEBERTA_V3_LARGE,
    DPT_LARGE,
    FALCON,
    GEMMA_4_THAT_SHARES,
    GLM_45,
    HIERA_LARGE,
    LLAMA_1B,
    MAMBA,
    MISTRAL_7B,
    MMS_1B,
    NOMIC,
    QWEN_05B,
    QWEN_2_VL_2B,
    VIT_GPT2,
    WAV2VEC2_LV60,
)


def count(tree: ModuleTree) -> int:
    sizes = {f"{m.name}.{p.name}": math.prod(p.shape) for m in tree.modules for p in m.parameters}
    return sum(size for name, size in sizes.items() if name not in tree.tied)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        pytest.param(LLAMA_1B, 1_235_814_400, id="tied head, grouped keys"),
        pytest.param(MISTRAL_7B, 7_241_732_096, id="a head_dim that config.json leaves out"),
        pytest.param(QWEN_05B, 494_032_768, id="biases that no field switches"),
        pytest.param(
            {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}, 124_439_808, id="nothing but defaults"
        ),
        pytest.param(
            {
                "architectures": ["GPT2LMHeadModel"],
                "model_type": "gpt2",
                "hidden_size": 1024,
                "n_layer": 24,
                "n_head": 16,
            },
            354_823_168,
            id="a field under its other name",
        ),
        pytest.param(HIERA_LARGE, 212_149_296, id="the blocks of stages in one list, as many in each as a field says"),
        pytest.param(
            {
                "model_type": "lxmert",
                "num_hidden_layers": {"vision": 5, "cross_encoder": 5, "language": 9},
                "l_layers": 2,
            },
            178_436_648,
            id="an object for a size that the class has from other fields",
        ),
        pytest.param({"architectures": ["VitsModel"], "model_type": "vits"}, 36_284_592, id="and as many in each"),
        pytest.param(QWEN_05B | {"sliding_window": 32768}, 494_032_768, id="a number that changes no shape"),
        pytest.param(LLAMA_1B | {"transformers.js_config": {}}, 1_235_814_400, id="an object with a dot in its name"),
        pytest.param(QWEN_2_VL_2B, 2_208_985_600, id="an older config: the text model's fields at the top"),
        pytest.param(CLIP_LARGE_336, 427_944_193, id="sections that others stand in place of"),
        pytest.param(DEBERTA_V3_LARGE, 435_191_908, id="several words in one text"),
        pytest.param(VIT_GPT2, 239_195_904, id="a tower whose class has another name for its width"),
        pytest.param(WAV2VEC2_LV60, 315_471_520, id="a text of which the class takes no other values"),
        pytest.param(GLM_45, 352_797_814_784, id="norms that a switch adds follow a head_dim that is given"),
        pytest.param(GEMMA_4_THAT_SHARES, 1_716_736, id="layers that share keys and values have none of their own"),
        pytest.param(MMS_1B, 964_845_850, id="a field that is read beside a switch alone"),
        pytest.param(BLIP_2_T5, 3_876_648_448, id="a tower with an encoder where others are causal models"),
        pytest.param(DPT_LARGE, 343_030_465, id="a section that the class does without"),
        pytest.param(NOMIC, 25_317, id="a switch that is a constant of the class"),
        pytest.param(NOMIC | {"tie_word_embeddings": False}, 28_650, id="and that config.json turns"),
        pytest.param(MAMBA | {"expand": 3}, 174_385_920, id="a width made of a factor that no model reads"),
        pytest.param(FALCON, 369_920, id="a switch that another overrules"),
    ],
)
def test_parameters_are_the_published_count(config, parameters):
    tree = from_config(config)
    assert count(tree) == parameters
    assert tree.shapes == "config"


SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
         "vocab_size": 100}  # fmt: skip
SMALL_BERT = {**SMALL, "model_type": "bert", "architectures": ["BertModel"]}
SMALL_LLAMA = {**SMALL, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        pytest.param({**SMALL_BERT, "type_vocab_size": 0}, 28_208, id="no types of tokens"),
        pytest.param({**SMALL_LLAMA, "vocab_size": 0}, 8_800, id="no vocabulary"),
        pytest.param({**SMALL_LLAMA, "intermediate_size": 0}, 10_592, id="no MLP"),
    ],
)
def test_a_size_may_be_zero(config, parameters):
    """torch 2.13 builds layers of no size; counted in models that PEFT adapts."""
    assert count(from_config(config)) == parameters


def test_tree_is_in_named_modules_order_with_containers_and_buffers():
    tree = from_config(LLAMA_1B)
    names = [module.name for module in tree.modules]
    assert names[:4] == ["", "model", "model.embed_tokens", "model.layers"]
    assert names[-2:] == ["model.rotary_emb", "lm_head"]
    rotary = tree.modules[-2].buffers[0]
    assert (rotary.name, rotary.shape, rotary.dtype, rotary.persistent) == ("inv_freq", (32,), "F32", False)
    assert tree.modules[2].parameters[0].dtype == "BF16"
    assert tree.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert (tree.input_embedding, tree.output_embedding) == ("model.embed_tokens", "lm_head")


def test_kinds_of_layers_that_are_not_there_are_dropped_where_the_class_drops_them():
    """transformers 5.23.0, `DeepseekV4Config.__post_init__`: both lists end with the layers."""
    kinds = {"layer_types": ["sliding_attention"] * 3, "mlp_layer_types": ["moe"] * 4}
    config = {"model_type": "deepseek_v4", "architectures": ["DeepseekV4ForCausalLM"], "num_hidden_layers": 2, **kinds}
    assert [m.name for m in from_config(config).modules if m.name.endswith(".mlp")] == [
        f"model.layers.{layer}.mlp" for layer in range(2)
    ]


@pytest.mark.parametrize(
    ("change", "code", "name"),
    [
        pytest.param({"num_hidden_layers": 14}, "layers", "model.layers", id="pruned"),
        pytest.param({"vocab_size": 128258}, "vocabulary", "model.embed_tokens.weight", id="resized"),
        pytest.param({"attention_bias": True}, "additional", "model.layers.0.self_attn.k_proj.bias", id="biases"),
    ],
)
def test_a_difference_has_a_name(change, code, name):
    found = compare(from_config(LLAMA_1B | change), from_config(LLAMA_1B))
    assert (code, name) in [(difference.code, difference.name) for difference in found]


def test_the_same_tree_has_no_difference():
    tree = from_config(LLAMA_1B)
    assert compare(tree._replace(shapes="headers"), tree) == []


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        pytest.param({}, 124_697_433, id="an encoder"),
        pytest.param({"is_decoder": True}, 124_697_433, id="a decoder alone"),
        pytest.param({"is_decoder": True, "add_cross_attention": True}, 153_064_281, id="a decoder beside an encoder"),
    ],
)
def test_of_two_switches_the_one_that_adds_modules_counts(fields, parameters):
    roberta = {"model_type": "roberta", "architectures": ["RobertaForCausalLM"], "type_vocab_size": 1}
    assert count(from_config({**roberta, "vocab_size": 50265, "max_position_embeddings": 514, **fields})) == parameters


@pytest.mark.parametrize(
    ("projection", "activation", "parameters"), [("gated-gelu", "relu", 52_992), ("relu", "silu", 44_800)]
)
def test_the_field_that_makes_the_switch_counts_and_not_its_neighbour(projection, activation, parameters):
    """transformers 5.23.0: T5Config, __post_init__."""
    sizes = {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4, "vocab_size": 100}
    fields = {"feed_forward_proj": projection, "dense_act_fn": activation, **sizes}
    assert (
        count(from_config({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", **fields}))
        == parameters
    )


@pytest.mark.parametrize(
    ("name", "kind", "fields", "parameters"),
    [
        ("TextNetModel", "textnet", {"hidden_sizes": [64, 128, 128, 256, 512]}, 11_258_944),
        ("UniSpeechSatForXVector", "unispeech-sat", {"do_stable_layer_norm": True, "adapter_attn_dim": 2}, 100_547_444),
        ("HubertModel", "hubert", {"do_stable_layer_norm": True, "adapter_attn_dim": 2}, 94_436_248),
        ("SEWDModel", "sew-d", {"mask_time_prob": 0.0, "mask_feature_prob": 0.1}, 93_589_632),
        ("RoCBertModel", "roc_bert", {"enable_pronunciation": False, "enable_shape": False}, 123_499_008),
        ("XLMModel", "xlm", {"n_langs": 15, "use_lang_emb": False}, 667_088_896),
        ("XLMModel", "xlm", {"n_langs": 15, "use_lang_emb": True}, 667_119_616),
        ("FlaubertModel", "flaubert", {"n_langs": 2, "use_lang_emb": False}, 667_088_896),
        ("VitsModel", "vits", {"num_speakers": 4, "speaker_embedding_size": 24}, 36_621_776),
    ],
)  # fmt: skip
def test_what_two_fields_decide_together_follows_both(name, kind, fields, parameters):
    """Counted by transformers 5.23.0 on the meta device."""
    assert count(from_config({"architectures": [name], "model_type": kind, **fields})) == parameters


def test_a_tied_parameter_is_as_large_as_the_one_that_takes_its_place():
    tree = from_config(
        {"architectures": ["UdopForConditionalGeneration"], "model_type": "udop", "relative_attention_num_buckets": 16}
    )
    name = "encoder.relative_bias.biases.0.relative_attention_bias"
    shapes = {module.name: module.parameters[0].shape for module in tree.modules if module.kind == "Embedding"}
    assert f"{name}.weight" in tree.tied
    assert shapes[name] == (16, 16)
    assert shapes[name.replace("biases.0", "biases.1")] == (32, 16)


QWEN35 = {"model_type": "qwen3_5_text", "num_hidden_layers": 8, "hidden_size": 64, "intermediate_size": 96}


def test_a_text_model_of_a_composite_config_is_built_from_its_own_section():
    whole = {"model_type": "qwen3_5", "text_config": QWEN35, "vision_config": {"depth": 2}, "torch_dtype": "bfloat16"}
    tree = from_config(whole, task="CAUSAL_LM")
    alone = from_config({**QWEN35, "torch_dtype": "bfloat16"}, task="CAUSAL_LM")
    assert tree.architecture == "Qwen3_5ForCausalLM"
    assert tree.config == {**QWEN35, "torch_dtype": "bfloat16"}
    assert tree.modules == alone.modules
    assert count(tree) < count(
        from_config({**whole, "text_config": {**QWEN35, "num_hidden_layers": 12}}, task="CAUSAL_LM")
    )


def test_of_two_names_the_one_that_the_class_declares_loses():
    """transformers 5.23.0, attribute_map: Qwen3MoeConfig declares the alias, GPT2Config the field, Step 3.7's both."""
    assert winning_names({"model_type": "qwen3_moe"})["num_experts"] == ["num_local_experts"]
    assert winning_names({"model_type": "gpt2"})["n_embd"] == ["hidden_size"]
    assert winning_names({"model_type": "step3p7"})["text_config.n_routed_experts"] == ["text_config.moe_num_experts"]


GEMMA_4 = {
    "architectures": ["Gemma4ForCausalLM"], "model_type": "gemma4_text", "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 100,
    "layer_types": ["sliding_attention", "full_attention"], "hidden_size_per_layer_input": 0,
}  # fmt: skip
MINIMAX_M3 = {
    "architectures": ["MiniMaxM3VLForCausalLM"], "model_type": "minimax_m3_vl_text", "hidden_size": 32,
    "intermediate_size": 16, "dense_intermediate_size": 48, "shared_intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 100, "num_local_experts": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "name", "shape"),
    [
        pytest.param({**GEMMA_4}, "model.layers.1.self_attn.k_proj", (2 * 512, 32), id="left out"),
        pytest.param(
            {**GEMMA_4, "global_head_dim": 16}, "model.layers.1.self_attn.k_proj", (2 * 16, 32), id="a size of some layers"
        ),
        pytest.param(
            {**GEMMA_4, "global_head_dim": 16}, "model.layers.0.self_attn.k_proj", (2 * 8, 32), id="not of the others"
        ),
        pytest.param(
            {**GEMMA_4, "num_global_key_value_heads": 4}, "model.layers.1.self_attn.k_proj", (2 * 512, 32),
            id="a number that a switch ignores",
        ),
        pytest.param(
            {**GEMMA_4, "num_global_key_value_heads": 4, "attention_k_eq_v": True}, "model.layers.1.self_attn.k_proj",
            (4 * 512, 32), id="and that the switch lets through",
        ),
        pytest.param(
            {**MINIMAX_M3, "moe_layer_freq": [0, 1]}, "model.layers.0.mlp.down_proj", (32, 48), id="a number for each layer"
        ),
        pytest.param(
            {**MINIMAX_M3, "sparse_attention_config": {"sparse_attention_freq": [0, 1], "sparse_index_dim": 6}},
            "model.layers.1.self_attn.indexer.k_proj", (6, 32), id="within an object",
        ),
    ],
)  # fmt: skip
def test_what_the_class_takes_and_does_not_keep_decides(config, name, shape):
    """transformers 5.23.0: Gemma4TextConfig and MiniMaxM3VLTextConfig, __post_init__."""
    modules = {module.name: module for module in from_config(config).modules}
    assert modules[name].parameters[0].shape == shape


@pytest.mark.parametrize(
    ("model_type", "buffer", "dtype"),
    [
        pytest.param("recurrent_gemma", "model.normalizer", "BF16", id="a scale in bfloat16"),
        pytest.param("cohere", "model.rotary_emb.inv_freq", "F32", id="frequencies"),
    ],
)
def test_a_buffer_keeps_the_dtype_that_its_class_gives_it(model_type, buffer, dtype):
    tree = from_config({"model_type": model_type, "dtype": "float16"})
    assert [(own.dtype, own.fixed) for name, own in named_buffers(tree.modules) if name == buffer] == [(dtype, True)]


@pytest.mark.parametrize("name", ["BeitModel", "BeitForImageClassification", "Dinov2Model"])
def test_a_mask_s_token_is_as_wide_as_the_model(name):
    config = {"architectures": [name], "model_type": "dinov2" if name[0] == "D" else "beit", "hidden_size": 768}
    with_token, without = (count(from_config({**config, "use_mask_token": used})) for used in (True, False))
    assert with_token - without == 768


def test_a_bias_is_as_long_as_the_output_of_its_matrix():
    """torch.nn.Linear. The formulas of the two are found apart, and the bias was seen beside fewer other fields."""
    config = {**GEMMA_4, "num_global_key_value_heads": 4, "attention_k_eq_v": True, "attention_bias": True}
    modules = {module.name: module for module in from_config(config).modules}
    shapes = [parameter.shape for parameter in modules["model.layers.1.self_attn.k_proj"].parameters]
    assert shapes == [(4 * 512, 32), (4 * 512,)]


@pytest.mark.parametrize(
    ("images", "parameters"),
    [
        pytest.param(None, [], id="none"),
        pytest.param(6, ["0", "1", "2", "3", "4", "5"], id="git-base-vatex's"),
    ],
)
def test_a_list_of_parameters_is_as_long_as_the_number_that_switches_it_on(images, parameters):
    """transformers 5.23.0, GitModel: `nn.ParameterList(... for _ in range(config.num_image_with_embedding))`."""
    config = {"model_type": "git", "architectures": ["GitForCausalLM"], "num_image_with_embedding": images}
    lists = [module for module in from_config(config).modules if module.cls == "ParameterList"]
    assert [parameter.name for module in lists for parameter in module.parameters] == parameters
