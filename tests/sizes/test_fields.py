"""What config.json's fields say, by the names and forms that published ones have."""

from __future__ import annotations

import pytest

from estimator.sizes.memory.fields import experts_per_token, heads, longest

GEMMA_3 = {"max_position_embeddings": 131_072, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
LLAMA_3 = {"rope_type": "llama3", "factor": 32.0, "original_max_position_embeddings": 8192}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}


def turned(positions: object, **rope: object) -> dict[str, object]:
    return {"max_position_embeddings": positions, "rope_scaling": rope}


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        pytest.param({}, None, id="nothing says it"),
        pytest.param({"n_positions": 1024}, 1024, id="GPT-2"),
        pytest.param({"max_position_embeddings": True}, None, id="true is no number"),
        pytest.param({"max_position_embeddings": 10**400}, None, id="more than any model"),
        pytest.param(GEMMA_3, 131_072, id="Gemma 3: linear, and named as stretched"),
        pytest.param(turned(16_384, type="linear", factor=4.0), 16_384, id="DeepSeek Coder"),
        pytest.param(turned(4096, type="linear", factor=4.0), 4096, id="Vicuna 16k: as named, which may be less"),
        pytest.param(turned(4096, type="dynamic", factor=2.0), 4096, id="dynamic"),
        pytest.param(turned(4096, type="default", factor=2.0), 4096, id="not turned otherwise"),
        pytest.param(turned(131_072, **LLAMA_3), 131_072, id="Llama 3.2: 8,192 times 32 are wavelengths"),
        pytest.param(turned(32_768, **YARN), 131_072, id="Qwen2.5, as its card has it"),
        pytest.param(turned(40_960, **YARN), 131_072, id="Qwen3"),
        pytest.param(turned(163_840, **{**YARN, "factor": 40, "original_max_position_embeddings": 4096}), 163_840,
                     id="DeepSeek V3"),
        pytest.param({"max_position_embeddings": 40_960, "rope_parameters": YARN}, 131_072, id="transformers 5"),
        pytest.param(turned(131_072, type="yarn", factor=4.0), 131_072, id="YaRN that says no start"),
        pytest.param(turned(4096, **YARN), 4096, id="YaRN that starts beyond what is named"),
        pytest.param(turned(40_960, **{**YARN, "factor": float("inf")}), 40_960, id="infinity"),
        pytest.param(turned(40_960, **{**YARN, "factor": float("nan")}), 40_960, id="no number at all"),
        pytest.param(turned(40_960, **{**YARN, "original_max_position_embeddings": True}), 40_960, id="true"),
    ],
)  # fmt: skip
def test_the_longest_sequence_is_read_off_the_config(config: dict[str, object], tokens: int | None) -> None:
    assert longest(config) == tokens


@pytest.mark.parametrize(
    ("config", "number"),
    [
        pytest.param({"n_head": 12}, 12, id="GPT-2"),
        pytest.param({"num_attention_heads": True}, 1, id="true is no number"),
        pytest.param({"num_attention_heads": [8, 16]}, 1, id="one for each stage"),
    ],
)
def test_heads_are_read_under_each_of_their_names(config: dict[str, object], number: int) -> None:
    assert heads(config) == number


@pytest.mark.parametrize(
    ("config", "experts"),
    [
        pytest.param({"num_experts_per_tok": 2}, 2, id="Mixtral"),
        pytest.param({"num_experts_per_token": 8}, 8, id="Kimi Linear"),
        pytest.param({"moe_k": 6}, 6, id="ERNIE 4.5"),
        pytest.param({"moe_topk": [1, 8, 8]}, 8, id="Hunyuan: layer by layer"),
        pytest.param({"ffn_config": {"moe_top_k": 4}}, 4, id="DBRX: a part of its own"),
        pytest.param({"top_k": 50}, 1, id="a setting of generation"),
        pytest.param({}, 1, id="nothing says it"),
    ],
)
def test_experts_of_a_token(config: dict[str, object], experts: int) -> None:
    assert experts_per_token(config) == experts
