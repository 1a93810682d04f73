"""Keys and values of bundled models, by the figures of their papers and configs."""

from __future__ import annotations

import pytest

from estimator.architecture.from_config import from_config
from estimator.jobs.base import BaseCache
from estimator.request.request import Request
from estimator.sizes.kv_cache import KvCache, kv_cache


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
        pytest.param("InklingForCausalLM", GROUPED, 12_288, 51_456, id="shifted keys and values"),
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
        pytest.param("google-t5/t5-small", id="two stacks"),
        pytest.param("deepseek-ai/DeepSeek-V4-Flash", id="attention of another kind"),
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
