"""The arithmetic behind the count: its lines, and that they sum to the parameters."""

from __future__ import annotations

import re
from typing import Any

import pytest

import estimator
from estimator.report.explain import explain


def test_a_convolution_of_as_many_channels_in_as_out_is_no_sum_of_experts() -> None:
    module = {"name": "conv", "kind": "Conv2d", "in_features": 64, "out_features": 64, "rank": 8}
    parameters = 8 * 64 * 9 + 8 * 64  # a kernel of 3 x 3
    adapter = {"modules": [{**module, "parameters": parameters}], "parameters": parameters}
    assert "conv (Conv2d): 64 → 64 at r=8: 5,120" in explain({"adapter": adapter, "lora": {}})


@pytest.mark.parametrize(
    ("model", "options", "line"),
    [
        pytest.param("gpt2", {}, "8 × (768 + 2,304) = 24,576, × 12 = 294,912", id="two matrices"),
        pytest.param("gpt2", {"dora": True}, "8 × (768 + 2,304) + 2,304 (magnitudes) = 26,880, × 12", id="DoRA"),
        pytest.param("gpt2", {"lora_bias": True}, "8 × (768 + 2,304) + 2,304 (bias) = 26,880, × 12", id="a bias in B"),
        pytest.param(
            "Qwen/Qwen3-30B-A3B",
            {"target_parameters": ["mlp.experts.down_proj"]},
            "128 × 8 × (768 + 2,048) = 2,883,584, × 48",
            id="once for each expert",
        ),
        pytest.param(
            "openai/clip-vit-base-patch32",
            {"targets": "patch_embedding"},
            "3 → 768 at r=8: 30,720",
            id="a convolution, whose kernel of 32 x 32 is no part of the features",
        ),
        pytest.param("gpt2", {"trainable_tokens": [0, 1]}, "beside these (saved modules, biases, tokens): 1,536", id="tokens"),
    ],
)  # fmt: skip
def test_a_line_is_the_sum_that_it_says(model: str, options: dict[str, Any], line: str) -> None:
    document = estimator.estimate(model, **options)
    text = explain(document)
    assert line in text
    last = [int(re.findall(r"[\d,]+$", shown)[0].replace(",", "")) for shown in text.splitlines()[1:]]
    assert sum(last[:-1]) == last[-1] == document["adapter"]["parameters"]
