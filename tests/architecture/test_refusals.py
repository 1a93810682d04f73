"""Configs that transformers refuses to build though shapes could be reckoned. Truth: transformers 5.23.0's classes."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from estimator.architecture.from_config import from_config
from estimator.errors import MalformedConfigError


def without(config, field):
    return {key: value for key, value in config.items() if key != field}


LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 48, "intermediate_size": 80,
    "num_hidden_layers": 1, "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 101,
}  # fmt: skip
MISTRAL = {**LLAMA, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "head_dim": 8}
QWEN = {**LLAMA, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 8}
BERT = {
    "architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_size": 48, "intermediate_size": 80,
    "num_hidden_layers": 1, "num_attention_heads": 6, "vocab_size": 101, "max_position_embeddings": 32,
}  # fmt: skip
ROBERTA = {**BERT, "architectures": ["RobertaForMaskedLM"], "model_type": "roberta"}
NEOX = {**BERT, "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox"}
GPT_NEO = {
    "architectures": ["GPTNeoForCausalLM"], "model_type": "gpt_neo", "hidden_size": 48, "num_heads": 6,
    "vocab_size": 101, "max_position_embeddings": 32, "num_layers": 4, "attention_types": [[["global", "local"], 2]],
}  # fmt: skip
FOUR = [[["global"], 1], [["local"], 1], [["global"], 1], [["local"], 1]]
THREE = {"attention_types": [[["global"], 1], [["local"], 2]]}
BART = {
    "model_type": "bart", "d_model": 48, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 6,
    "decoder_attention_heads": 6, "encoder_ffn_dim": 80, "decoder_ffn_dim": 80, "vocab_size": 101,
    "max_position_embeddings": 32,
}  # fmt: skip
BART_DECODER = {**BART, "architectures": ["BartForCausalLM"]}
BART_WHOLE = {**BART, "architectures": ["BartForConditionalGeneration"]}
BLENDERBOT = {**BART, "architectures": ["BlenderbotForConditionalGeneration"], "model_type": "blenderbot"}
EUROBERT = {**BERT, "architectures": ["EuroBertModel"], "model_type": "eurobert", "num_key_value_heads": 6}
UNISPEECH = {
    "architectures": ["UniSpeechModel"], "model_type": "unispeech", "hidden_size": 48, "intermediate_size": 80,
    "num_hidden_layers": 1, "num_attention_heads": 6, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
    "conv_dim": [16, 16], "conv_kernel": [3, 3], "conv_stride": [2, 2],
}  # fmt: skip
LED = {**BART, "architectures": ["LEDForConditionalGeneration"], "model_type": "led", "encoder_layers": 2,
       "attention_window": 4, "max_encoder_position_embeddings": 64}  # fmt: skip
M2M = {**BART, "architectures": ["M2M100ForConditionalGeneration"], "model_type": "m2m_100",
       "max_position_embeddings": 128}  # fmt: skip
PROPHET = {"architectures": ["ProphetNetModel"], "model_type": "prophetnet", "hidden_size": 48, "vocab_size": 101,
           "num_encoder_layers": 1, "num_decoder_layers": 1, "num_attention_heads": 6,
           "num_decoder_attention_heads": 6}  # fmt: skip
CLIP = {"architectures": ["CLIPForImageClassification"], "model_type": "clip", "vision_config": {"hidden_size": 48}}
PALIGEMMA = {"architectures": ["PaliGemmaForConditionalGeneration"], "model_type": "paligemma",
             "text_config": {**LLAMA, "model_type": "gemma", "head_dim": 8}}  # fmt: skip
XLNET = {"architectures": ["XLNetModel"], "model_type": "xlnet", "d_model": 48, "n_head": 6, "n_layer": 1,
         "d_inner": 80, "vocab_size": 101, "d_head": 8}  # fmt: skip
JAMBA = {
    "architectures": ["JambaModel"], "model_type": "jamba", "hidden_size": 48, "intermediate_size": 80,
    "num_hidden_layers": 8, "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 101, "num_experts": 2,
    "mamba_dt_rank": 4, "mamba_expand": 2,
}  # fmt: skip
GLM_DSA = {
    "architectures": ["GlmMoeDsaModel"], "model_type": "glm_moe_dsa", "hidden_size": 48, "intermediate_size": 80,
    "moe_intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
    "vocab_size": 101, "n_routed_experts": 4, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4,
    "v_head_dim": 8, "qk_nope_head_dim": 8, "index_head_dim": 8, "index_n_heads": 2,
    "mlp_layer_types": ["dense", "sparse"],
}  # fmt: skip
LLAVA = {
    "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "image_token_index": 99,
    "vision_config": {"model_type": "clip_vision_model", "hidden_size": 36, "intermediate_size": 52,
                      "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 16, "patch_size": 4,
                      "projection_dim": 30},
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "change", "said"),
    [
        pytest.param(
            LLAMA, {"hidden_size": 50}, "hidden_size is 50 and num_attention_heads is 6, of which", id="Llama's width"
        ),
        pytest.param(QWEN, {"hidden_size": 50}, None, id="Qwen 3 has a width of its own for heads"),
        pytest.param(MISTRAL, {"hidden_size": 50}, None, id="so has Mistral"),
        pytest.param(LLAMA, {"head_dim": 9}, "head_dim is 9, of which transformers builds no Llama", id="odd heads"),
        pytest.param(LLAMA, {"head_dim": 3}, None, id="odd ones, of test models"),
        pytest.param(LLAMA, {"head_dim": 9, "rope_parameters": {"partial_rotary_factor": 0.5}}, None, id="in part"),
        pytest.param(LLAMA, {"pad_token_id": 101}, "pad_token_id is 101 and vocab_size is 101, of", id="no such row"),
        pytest.param(LLAMA, {"pad_token_id": 100}, None, id="the last row"),
        pytest.param(LLAMA, {"pad_token_id": None}, None, id="no padding"),
        pytest.param(BERT, {"add_cross_attention": True}, "add_cross_attention is true and is_decoder is", id="BERT"),
        pytest.param(BERT, {"add_cross_attention": True, "is_decoder": True}, None, id="a decoder"),
        pytest.param(BERT, {"num_attention_heads": 0}, "num_attention_heads is 0, of", id="no heads, which a shape divides by"),
        pytest.param(NEOX, {"num_attention_heads": 0}, "num_attention_heads is 0, of which", id="no heads"),
        pytest.param(NEOX, {"num_attention_heads": None}, "num_attention_heads is null, of", id="null, which is no number"),
        pytest.param(BART_DECODER, {"encoder_attention_heads": 0}, None, id="heads of an encoder that is not built"),
        pytest.param(BART_DECODER, {"decoder_attention_heads": 5}, "d_model is 48 and decoder_attent", id="a decoder's"),
        pytest.param(BART_WHOLE, {"encoder_attention_heads": 0}, "encoder_attention_heads is 0, of", id="both are"),
        pytest.param(LLAVA, {"text_config": {**LLAMA, "hidden_size": 50}}, "hidden_size is 50", id="in a tower"),
        pytest.param(LLAVA, {"text_config": {**MISTRAL, "hidden_size": 50}}, None, id="in a tower of another kind"),
        pytest.param(GPT_NEO, {}, None, id="as many layers as kinds that are repeated"),
        pytest.param(GPT_NEO, {"num_layers": 3}, '2]] and num_layers is 3, of', id="fewer"),
        pytest.param(GPT_NEO, THREE | {"num_layers": 3}, None, id="one group and another"),
        pytest.param(GPT_NEO, THREE, '2]] and num_layers is 4, of', id="fewer groups"),
        pytest.param(GPT_NEO, {"attention_types": None}, "num_layers is 4, of", id="24 layers' kinds by default"),
        pytest.param(GPT_NEO, {"attention_types": FOUR}, None, id="four groups"),
        pytest.param(GPT_NEO, {"attention_types": FOUR, "num_layers": 5}, "num_layers is 5, of", id="four of too few"),
        pytest.param(GPT_NEO, {"attention_types": None, "attention_layers": ["global"] * 4}, None, id="one by one"),
        pytest.param(GPT_NEO, {"num_layers": 3, "attention_layers": ["local"] * 3}, None, id="which decide, then"),
        pytest.param(GPT_NEO, {"attention_layers": ["local"] * 3}, "num_layers is 4, of", id="one by one, too few"),
        pytest.param(GPT_NEO, {"attention_types": []}, "attention_types is [], of", id="no group"),
        pytest.param(GPT_NEO, {"attention_types": [["global"], 4]}, "[0] is 'global', where a", id="a list too few"),
        pytest.param(LED, {}, None, id="one window for all layers"),
        pytest.param(LED, {"attention_window": [4]}, "[4] and encoder_layers is 2, of", id="a window for each, too few"),
        pytest.param(LED, {"attention_window": [4, 4]}, None, id="a window for each"),
        pytest.param(M2M, {"pad_token_id": 101}, "vocab_size is 101, of", id="no such row, whatever the positions"),
        pytest.param(M2M, {"pad_token_id": 100}, None, id="the last row, of so many positions"),
        pytest.param(M2M, {"pad_token_id": 66, "max_position_embeddings": 64}, "embeddings is 64, of", id="too few"),
        pytest.param(ROBERTA, {"pad_token_id": 32}, "position_embeddings is 32, of", id="no such position"),
        pytest.param(ROBERTA, {"pad_token_id": 31}, None, id="the last position"),
        pytest.param(BERT, {"pad_token_id": 32}, None, id="positions that are not counted on from it"),
        pytest.param(PROPHET, {}, None, id="an encoder's heads by another name"),
        pytest.param(PROPHET, {"num_attention_heads": 5}, "num_attention_heads is 5, of", id="which are too many"),
        pytest.param(CLIP, {}, None, id="a tower's heads by default"),
        pytest.param(CLIP, {"vision_config": {"hidden_size": 50}}, "num_attention_heads is 12, of", id="of no such width"),
        pytest.param(PALIGEMMA, {}, None, id="a whole tower by default, which has other heads"),
        pytest.param(
            PALIGEMMA,
            {"vision_config": {"model_type": "siglip_vision_model", "hidden_size": 64}},
            "vision_config.num_attention_heads is 12, of",
            id="but not where the tower is there",
        ),
        pytest.param(BLENDERBOT, {}, None, id="a decoder's heads that divide the width"),
        pytest.param(
            without(BLENDERBOT, "decoder_attention_heads"), {}, "decoder_attention_heads is 32, of", id="32 by default"
        ),
        pytest.param(without(BLENDERBOT, "encoder_attention_heads"), {}, "is 32, of", id="an encoder's, by default"),
        pytest.param(
            without(BLENDERBOT, "encoder_attention_heads"), {"num_attention_heads": 6}, None, id="under the other name"
        ),
        pytest.param(EUROBERT, {}, "pad_token_id is 128001 and vocab_size is 101, of", id="no such row by default"),
        pytest.param(EUROBERT, {"pad_token_id": 100}, None, id="but in the file"),
        pytest.param(EUROBERT, {"pad_token_id": None}, None, id="null is no default"),
        pytest.param(UNISPEECH, {}, None, id="convolutions"),
        pytest.param(UNISPEECH, {"conv_kernel": [3, 3, 3]}, "conv_kernel is [3, 3, 3]", id="more kernels"),
        pytest.param(UNISPEECH, {"conv_kernel": [3]}, "conv_kernel is [3]", id="fewer kernels"),
        pytest.param(UNISPEECH, {"conv_stride": [2, 2, 2]}, "conv_stride is [2, 2, 2]", id="more strides"),
        pytest.param(without(UNISPEECH, "conv_stride"), {}, "conv_stride is [5,", id="seven by default"),
        pytest.param(XLNET, {}, None, id="XLNet's heads share the width"),
        pytest.param(XLNET, {"d_head": 9}, "d_head is 9", id="and have no other size"),
        pytest.param(XLNET, {"d_head": None}, None, id="which may be left out"),
        pytest.param(JAMBA, {}, None, id="attention in each eighth layer"),
        pytest.param(JAMBA, {"attn_layer_offset": 8}, "attn_layer_offset is 8 and attn_layer_period", id="in no layer"),
        pytest.param(JAMBA, {"attn_layer_period": 4}, "attn_layer_offset is 4 and", id="the fourth by default"),
        pytest.param(GLM_DSA, {}, None, id="a kind of MLP for each layer"),
        pytest.param(GLM_DSA, {"mlp_layer_types": ["dense"] * 3}, "num_hidden_layers is 2, of", id="for one more"),
        pytest.param(GLM_DSA, {"mlp_layer_types": ["dense"]}, "num_hidden_layers is 2, of", id="for one fewer"),
        pytest.param(GLM_DSA, {"indexer_types": ["full"]}, "num_hidden_layers is 2, of", id="an indexer for one fewer"),
        pytest.param(without(GLM_DSA, "mlp_layer_types"), {}, None, id="made by the class"),
    ],
)  # fmt: skip
def test_what_transformers_refuses_is_refused(config, change, said):
    _check_truth(config | change, said)
    if said is None:
        assert from_config(config | change).modules
        return
    with pytest.raises(MalformedConfigError) as caught:
        from_config(config | change)
    assert said in caught.value.what


def _check_truth(config, said):
    """Holds the row against transformers, where it is installed."""
    try:
        from estimator.architecture.surveying import tiny
    except ImportError:
        return
    (name,) = config["architectures"]
    try:
        tiny.build(name, tiny.config_class(name).from_dict(config))
    except Exception:
        assert said is not None
    else:
        assert said is None


def test_facts_are_well_formed():
    path = Path(__file__).parents[2] / "estimator" / "architecture" / "refusals.facts"
    first, *rows = path.read_text().splitlines()
    assert first.startswith("# generated by python -m estimator.architecture.generate_refusals from transformers ")
    assert len({row.partition("\t")[0] for row in rows}) == len(rows)
    assert any(row.startswith("default pad_token_id ") for row in rows)
    assert all(row.partition("\t")[2] for row in rows)


@pytest.mark.judges
def test_facts_are_what_the_script_writes_today():
    """Of a dozen classes: what holds of all classes of a model type stands there for the type."""
    pytest.importorskip("transformers")
    from estimator.architecture.generate_refusals import conditions
    from estimator.architecture.refusals import wanted
    from estimator.architecture.surveying import tiny

    for name in ("BartForCausalLM", "LlavaModel", *Random(1).sample(sorted(tiny.classes()), 10)):
        try:
            base = tiny.base_fields(name)
        except Exception:  # a class that this machine can't build
            continue
        stated = wanted(name, tiny.config_class(name).model_type)
        found = {f"{said} unless {' '.join(of)}" if of else said for said, of in stated}
        assert found == set(conditions(name, base)), name
