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
