"""Keys and values of bundled models, by the figures of their papers and configs."""

from __future__ import annotations

import pytest

from estimator.architecture.from_config import from_config
from estimator.jobs.base import BaseCache
from estimator.request.request import Request
from estimator.sizes.memory.kv_cache import KvCache, kv_cache


def cache_of(model: str) -> KvCache | None:
    return kv_cache(BaseCache().base(Request(model=model, offline=True), None).tree)


@pytest.mark.parametrize(
    ("model", "layers", "elements", "states"),
    [
        pytest.param("meta-llama/Llama-3.1-8B", 32, 2 * 32 * 8 * 128, 0, id="grouped"),
        pytest.param("bigscience/bloom", 70, 2 * 70 * 14_336, 0, id="fused, all heads"),
        pytest.param("tiiuae/falcon-180B", 80, 2 * 80 * 8 * 64, 0, id="fused, grouped"),
        pytest.param("bigcode/gpt_bigcode-santacoder", 24, 2 * 24 * 128, 0, id="one key for all heads"),
        pytest.param("deepseek-ai/DeepSeek-R1", 61, 61 * 576, 0, id="latent"),
        pytest.param("ai21labs/Jamba-v0.1", 4, 2 * 4 * 8 * 128, 28, id="attention in every eighth layer"),
        pytest.param("state-spaces/mamba-130m-hf", 0, 0, 24, id="states alone"),
        pytest.param("Qwen/Qwen3-Coder-Next", 12, 2 * 12 * 2 * 256, 36, id="linear attention in three of four"),
        pytest.param(
            "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 6, 2 * 6 * 2 * 128, 23, id="Mamba, experts, attention"
        ),
    ],
)
def test_layers_and_elements(model: str, layers: int, elements: int, states: int) -> None:
    cache = cache_of(model)
    assert (cache.layers, cache.elements(), cache.states) == (layers, elements, states)


LATENT = {"kv_lora_rank": 20, "q_lora_rank": 36, "qk_nope_head_dim": 10, "qk_rope_head_dim": 8, "v_head_dim": 12}
SMALL = {"hidden_size": 96, "intermediate_size": 128, "num_attention_heads": 6, "num_hidden_layers": 3}
GROUPED = {**SMALL, "num_key_value_heads": 2}
EXPERTS = {"moe_intermediate_size": 48, "n_routed_experts": 8}
MIXED = {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
V4 = {
    **{"hidden_size": 32, "moe_intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4},
    **{"head_dim": 16, "q_lora_rank": 12, "o_groups": 2, "o_lora_rank": 8, "n_routed_experts": 4, "sliding_window": 8},
    **{"num_experts_per_tok": 2, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 4, "num_hash_layers": 0},
    "mlp_layer_types": ["moe"] * 4,
    "layer_types": [
        *("sliding_attention", "compressed_sparse_attention"),
        *("heavily_compressed_attention", "compressed_sparse_attention"),
    ],
    "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 16},
}
DELTA = {"linear_num_key_heads": 6, "linear_num_value_heads": 6, "linear_key_head_dim": 12, "linear_value_head_dim": 24}


@pytest.mark.parametrize(
    ("architecture", "fields", "elements", "state"),
    [
        pytest.param(
            "LongcatFlashForCausalLM",
            {**LATENT, "hidden_size": 96, "num_attention_heads": 6, "num_layers": 3},
            168,
            0,
            id="two in a layer",
        ),
        pytest.param("Gemma3nForCausalLM", {}, 20_480, 0, id="the last 15 of 35 layers share"),
        pytest.param("DeepseekV3ForCausalLM", SMALL, 1728, 0, id="latent, of the width that its class has"),
        pytest.param("DeepseekV32ForCausalLM", {**SMALL, **LATENT, "index_head_dim": 14}, 126, 0, id="an indexer"),
        pytest.param(
            "HYV4ForCausalLM",
            {**SMALL, **LATENT, "index_head_dim": 14, "indexer_types": ["full", "full", "shared"]},
            112,
            0,
            id="one that layers share",
        ),
        pytest.param(
            "KimiLinearForCausalLM", {**SMALL, **LATENT, **MIXED}, 28, 1_146_880, id="delta rule, latent attention"
        ),
        pytest.param("OlmoHybridForCausalLM", {**GROUPED, **DELTA, **MIXED}, 64, 5760, id="delta rule"),
        pytest.param(
            "MiniMaxForCausalLM",
            {**GROUPED, "head_dim": 16, "layer_types": ["full_attention", "linear_attention", "full_attention"]},
            128,
            1536,
            id="lightning attention",
        ),
        pytest.param("RwkvForCausalLM", {"hidden_size": 24, "num_hidden_layers": 3}, 0, 360, id="RWKV"),
        pytest.param(
            "RecurrentGemmaForCausalLM",
            {**SMALL, "num_key_value_heads": 1, "head_dim": 8, "lru_width": 36, "num_hidden_layers": 4},
            16,
            3 * 36 * (1 + 4),
            id="a recurrence with a number for each channel, and one token at hand",
        ),
        pytest.param(
            "ZambaForCausalLM",
            {
                **{"hidden_size": 24, "attention_hidden_size": 48, "intermediate_size": 32, "num_hidden_layers": 8},
                **{"num_attention_heads": 4, "num_key_value_heads": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
                **{"n_mamba_heads": 2, "mamba_d_state": 6, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_dt_rank": 3},
                "layers_block_type": ["linear_attention", *["linear_attention", "hybrid"] * 3, "linear_attention"],
            },
            288,
            2304 + 1536,
            id="Mamba of several heads, attention that layers share",
        ),
        pytest.param("DeepseekV4ForCausalLM", V4, 77, 1440, id="compressed keys, and what fills no entry yet"),
        pytest.param("InklingForCausalLM", GROUPED, 12_288, 51_456, id="shifted keys and values"),
        pytest.param(
            "ZayaForCausalLM",
            {**SMALL, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "cca_time0": 4},
            192,
            3 * (96 * 4 + 16),
            id="convolutions beside keys and values, values in halves",
        ),
        pytest.param("JetMoeForCausalLM", GROUPED, 1536, 0, id="key and value in one"),
        pytest.param("CTRLLMHeadModel", {"n_embd": 96, "n_head": 6, "n_layer": 3}, 576, 0, id="Wk"),
        pytest.param("MoshiForCausalLM", {**GROUPED, "head_dim": 16}, 192, 0, id="a layer around the matrix"),
        pytest.param("ElectraForCausalLM", {**SMALL, "is_decoder": True}, 576, 0, id="a decoder of BERT's kind"),
        pytest.param("ElectraForCausalLM", SMALL, 0, 0, id="an encoder of BERT's kind"),
        pytest.param("OpenAIGPTLMHeadModel", {}, 0, 0, id="no cache"),
        pytest.param("FlaubertWithLMHeadModel", {}, 0, 0, id="no cache, as an encoder"),
    ],
)
def test_what_transformers_keeps_of_tiny_models(architecture: str, fields: dict, elements: int, state: int) -> None:
    """Elements for a token, and for a sequence: of transformers 5.23.0's own cache after a forward pass on a CPU."""
    cache = kv_cache(from_config({"architectures": [architecture], **fields}))
    assert cache.elements() + sum(cache.chosen_by) == elements
    assert (cache.state_elements + cache.shifted_elements, cache.uncounted) == (state, 0)


BART = {"d_model": 24, "encoder_layers": 1, "decoder_layers": 3, "encoder_attention_heads": 2}
BART = {**BART, "decoder_attention_heads": 3, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 60}
T5 = {"d_model": 24, "d_kv": 10, "num_heads": 3, "num_layers": 2, "d_ff": 16, "vocab_size": 60}
GEMMA = {"hidden_size": 24, "intermediate_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10}
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
GEMMA_LAYERS = {"num_hidden_layers": 3, "sliding_window": 4, "layer_types": KINDS}
T5_GEMMA = {"encoder": {**GEMMA, "num_hidden_layers": 1}, "decoder": {**GEMMA, **GEMMA_LAYERS}, "vocab_size": 60}
SPEECH = {"hidden_size": 24, "encoder_layers": 1, "decoder_layers": 3, "vocab_size": 60}
DIA = {**GEMMA, "num_hidden_layers": 3, "num_key_value_heads": 4, "head_dim": 10}
DIA = {**DIA, "cross_num_key_value_heads": 4, "cross_head_dim": 10, "num_channels": 3}
BLIP = {"text_config": {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 60}}
SOUND = {"max_source_positions": 20, "max_target_positions": 64, "num_mel_bins": 8}


@pytest.mark.parametrize(
    ("architecture", "model_type", "fields", "elements"),
    [
        pytest.param("T5ForConditionalGeneration", "t5", {**T5, "num_decoder_layers": 3}, 180, id="T5"),
        pytest.param("LongT5ForConditionalGeneration", "longt5", T5, 120, id="LongT5"),
        pytest.param("BartForConditionalGeneration", "bart", BART, 144, id="BART"),
        pytest.param("NllbMoeForConditionalGeneration", "nllb-moe", {**BART, "num_experts": 2}, 144, id="experts"),
        pytest.param(
            "WhisperForConditionalGeneration", "whisper", {**BART, **SOUND, "pad_token_id": 0}, 144, id="sound"
        ),
        pytest.param("T5GemmaForConditionalGeneration", "t5gemma", T5_GEMMA, 120, id="a window in the decoder"),
        pytest.param("SpeechT5ForSpeechToText", "speecht5", SPEECH, 144, id="its own name is no tower's"),
        pytest.param("SpeechT5ForTextToSpeech", "speecht5", SPEECH, 144, id="a head that is no table of words"),
        pytest.param("DiaForConditionalGeneration", "dia", {"decoder_config": DIA}, 240, id="a head for many channels"),
        pytest.param("BlipForConditionalGeneration", "blip", BLIP, 144, id="images that text looks at"),
    ],
)
def test_a_decoder_keeps_as_much_of_each_position_of_its_encoder(
    architecture: str, model_type: str, fields: dict, elements: int
) -> None:
    """Elements for a token, and for a position: of transformers 5.23.0's EncoderDecoderCache."""
    config = {"architectures": [architecture], "model_type": model_type, "is_encoder_decoder": True, **fields}
    cache = kv_cache(from_config(config))
    assert (cache.elements(), cache.encoded, cache.uncounted) == (elements, elements, 0)


def test_the_window_of_a_decoder_is_its_own_config_s() -> None:
    cache = kv_cache(from_config({"architectures": ["T5GemmaForConditionalGeneration"], **T5_GEMMA}))
    assert (cache.windowed_layers, cache.window) == (2, 4)


def test_compressed_keys_are_kept_beyond_the_window() -> None:
    """A tiny DeepSeek V4: 9 elements a token of 73, beside 4 that entries are chosen by."""
    cache = kv_cache(from_config({"architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", **V4}))
    assert (cache.elements(), cache.elements_windowed(), sum(cache.chosen_by), cache.window) == (73, 64, 4, 8)


def test_the_stack_nearest_to_the_words_is_the_decoder() -> None:
    """Idefics 2: as many layers resample images (heads of 96) as make text."""
    text = {"model_type": "mistral", **GROUPED, "head_dim": 16}
    images = {"resampler_depth": 3, "resampler_head_dim": 96, "num_key_value_heads": 2}
    config = {"architectures": ["Idefics2ForConditionalGeneration"], "model_type": "idefics2", "text_config": text}
    assert kv_cache(from_config({**config, "perceiver_config": images})).elements() == 192


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("google-bert/bert-base-uncased", id="an encoder"),
        pytest.param("openai/clip-vit-base-patch16", id="two towers without a head"),
    ],
)
def test_what_is_not_known_is_none(model: str) -> None:
    assert cache_of(model) is None


def test_windows_are_read_where_the_config_names_them() -> None:
    cache = cache_of("google/gemma-4-26B-A4B")
    assert (cache.layers, cache.windowed_layers, cache.window) == (30, 25, 1024)


def test_layers_that_run_several_times_keep_keys_each_time() -> None:
    """HRM-Text: a stack of 2 layers takes turns with another, 8 times in all (transformers' cache has 16 layers)."""
    config = {"architectures": ["HrmTextForCausalLM"], "num_layers_per_stack": 2, "num_hidden_layers": 16}
    cache = kv_cache(from_config({**config, "num_attention_heads": 4, "head_dim": 8}))
    assert (cache.layers, cache.elements()) == (16, 16 * 2 * 4 * 8)


def test_heads_are_of_the_usual_width_where_the_config_names_another_layer_s_alone() -> None:
    config = {"architectures": ["OlmoHybridForCausalLM"], "model_type": "olmo_hybrid", "num_hidden_layers": 4}
    width = {"hidden_size": 3840, "num_attention_heads": 30, "num_key_value_heads": 30}
    linear = dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 30)
    sizes = {"linear_key_head_dim": 96, "linear_value_head_dim": 192}
    assert [kept.heads for kept in kv_cache(from_config({**config, **width, **linear, **sizes})).kept] == [30]


def test_a_tower_of_proteins_keeps_nothing() -> None:
    config = {"architectures": ["EvollaForProteinText2Text"], "model_type": "evolla", "num_hidden_layers": 2}
    assert kv_cache(from_config({**config, "protein_encoder_config": {"num_hidden_layers": 3}})).layers == 2
