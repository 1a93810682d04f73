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
        Module("norm", "Norm", "other", (Parameter("weight", (64,), "BF16"),)),
        Module("embed", "Embedding", "Embedding", (Parameter("weight", (90, 64), "BF16"),)),
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
        pytest.param({"peft_type": "LILY"}, 1_000, None, id="no rule"),
        pytest.param({"peft_type": "IA3"}, 1_000, None, id="nothing is targeted"),
        pytest.param({"peft_type": "LOHA", "target_modules": ["q_proj"], "r": "many"}, 1_000, None, id="no number"),
    ],
)
def test_causes(config, actual_bytes, codes):
    found = other_method_causes(config, TREE, actual_bytes)
    assert (None if found is None else [cause.code for cause in found]) == codes


@pytest.mark.parametrize(
    ("method", "config", "elements", "tensors"),
    [
        pytest.param("IA3", {"feedforward_modules": ["q_proj"]}, 64 + 32, 2, id="a vector on either side"),
        pytest.param("LOHA", {"r": 4}, 2 * 4 * (128 + 96), 8, id="two products"),
        pytest.param("HRA", {"r": 4}, 2 * 4 * 64, 2, id="on the input"),
        pytest.param("MISS", {"r": 4}, 4 * (64 + 32), 2, id="on the output"),
        pytest.param("OFT", {"oft_block_size": 16, "r": 0}, 2 * 4 * 120, 2, id="triangles of a block"),
        pytest.param("OFT", {"oft_block_size": 0, "r": 8}, 2 * 8 * 28, 2, id="so many blocks"),
        pytest.param("C3A", {"block_size": 8}, (8 * 8 + 4 * 8) * 8, 2, id="a kernel for each pair of blocks"),
        pytest.param("FOURIERFT", {"n_frequency": 30}, 60, 2, id="frequencies"),
        pytest.param("DELORA", {"r": 4}, 4 * (128 + 96) + 2 * 65, 8, id="with norms"),
        pytest.param("VERA", {"r": 4}, 64 + 32 + 2 * 4 + 4 * (64 + 64), 6, id="vectors, and what they share"),
        pytest.param("VERA", {"r": 4, "save_projection": False}, 64 + 32 + 2 * 4, 4, id="vectors alone"),
        pytest.param("LN_TUNING", {"target_modules": "norm"}, 64, 1, id="the norm itself"),
        pytest.param("TRAINABLE_TOKENS", {"target_modules": ["embed"], "token_indices": [1, 7]}, 128, 1, id="two rows"),
        pytest.param("P_TUNING", {"num_virtual_tokens": 7, "token_dim": 64}, 448, 1, id="a prompt"),
        pytest.param("PREFIX_TUNING", {"num_virtual_tokens": 7, "token_dim": 16, "num_layers": 3}, 672, 1, id="keys"),
    ],
)
def test_elements(method, config, elements, tensors):
    """Shapes as peft 0.21.2 saved them; a tensor's line in the header is about 130 bytes."""
    said = {"peft_type": method, "target_modules": ["q_proj", "v_proj"], **config}
    (cause,) = other_method_causes(said, TREE, 4 * elements + 130 * tensors)
    assert f" {elements:,} elements in {tensors:,} tensors" in cause.message
