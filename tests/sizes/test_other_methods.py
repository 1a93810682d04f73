"""Adapters that are not LoRA's: the size by hand, and nothing claimed where it does not fit."""

from __future__ import annotations

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.sizes.other_methods import other_method_causes

TREE = ModuleTree(
    architecture=None,
    config={"hidden_size": 64},
    modules=(
        Module("layers.0.q_proj", "Linear", "Linear", (Parameter("weight", (64, 64), "BF16"),)),
        Module("layers.0.v_proj", "Linear", "Linear", (Parameter("weight", (32, 64), "BF16"),)),
    ),
    tied={},
)
PROMPTS = {"peft_type": "ADAPTION_PROMPT", "adapter_len": 10, "adapter_layers": 3}
OSF = {"peft_type": "OSF", "target_modules": ["q_proj"], "rank_pattern": {"q_proj": 60}}


@pytest.mark.parametrize(
    ("config", "actual_bytes", "codes"),
    [
        pytest.param(PROMPTS, 4 * 3 * 641 + 600, ["other_method"], id="prompts and gates"),
        pytest.param(PROMPTS, 2 * 3 * 641 + 600, ["other_method", "sixteen_bit"], id="in 16 bits"),
        pytest.param(PROMPTS, 9_999, None, id="another size"),
        pytest.param(OSF, 4 * 4 * (64 + 64 + 1) + 300, ["other_method"], id="four directions below the rank"),
        pytest.param({"peft_type": "IA3"}, 1_000, None, id="no rule"),
    ],
)
def test_causes(config, actual_bytes, codes):
    found = other_method_causes(config, TREE, actual_bytes)
    assert (None if found is None else [cause.code for cause in found]) == codes
