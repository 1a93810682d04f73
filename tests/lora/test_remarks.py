"""Notes where PEFT is silent: a name, a key, a layer that decides nothing is said."""

from __future__ import annotations

import pytest

from estimator.architecture.module import Module, Parameter
from estimator.lora.adapt import adapt
from estimator.request.lora_config import from_mapping
from tests.lora.small import MOE, TREE, Q


def notes(tree, config) -> dict[str, str]:
    return {note.code: note.message for note in adapt(tree, from_mapping(config)).notes}


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        pytest.param({"target_modules": ["q_proj", "k_proj"]}, "targets_not_found", "k_proj", id="a target"),
        pytest.param({"target_modules": ["v_proj", "q_prj"]}, "targets_not_found", "has q_proj", id="with the closest name"),
        pytest.param({"rank_pattern": {"k_proj": 4}}, "patterns_not_found", "rank_pattern: k_proj", id="a rank"),
        pytest.param({"alpha_pattern": {".*x": 4}}, "patterns_not_found", "alpha_pattern: .*x", id="an alpha"),
        pytest.param({"exclude_modules": ["k_proj"]}, "exclusions_not_found", "k_proj", id="an exclusion"),
        pytest.param({"exclude_modules": "q_proj"}, "exclusions_not_found", "q_proj", id="an expression is matched whole"),
        pytest.param({"layers_to_transform": [0, 7]}, "layers_not_found", "0 to 1", id="a layer"),
        pytest.param({"layers_to_transform": [1, 7], "layers_pattern": "layers"}, "layers_not_found", "there: 7;", id="by a pattern"),
        pytest.param({"use_bdlora": {"target_modules_bd_a": ["q_proj", "k_proj"], "nblocks": 2, "match_strict": False}},
                     "blocks_not_found", "name: k_proj.", id="a block"),
        pytest.param({"modules_to_save": ["lm_heat"]}, "saved_modules_not_found", "lm_head", id="a module to save"),
        pytest.param({"target_parameters": ["q_proj.weight", "k_proj.weight"], "target_modules": []},
                     "parameters_not_found", "k_proj.weight", id="a parameter"),
        pytest.param({"init_lora_weights": "pissa_niter_4", "r": 2, "nonsense": 1}, "unknown_fields", "nonsense", id="a field"),
        pytest.param({"init_lora_weights": "eva"}, "init_needs_data", "initialize_lora_eva_weights", id="EVA wants data"),
        pytest.param({"init_lora_weights": "lora_ga", "r": 9}, "lora_ga_too_wide", "fails there", id="LoRA-GA's directions"),
        pytest.param({"init_lora_weights": "lora_ga", "r": 9, "lora_ga_config": {"direction": "ArBr"}},
                     "lora_ga_too_wide", "half of that side's rows", id="LoRA-GA takes every other direction"),
        pytest.param({"trainable_token_indices": {"embed_tokens": [0, -1]}}, "negative_tokens", "(-1)", id="a row from the end"),
        pytest.param({"inference_mode": True}, "inference_mode", "trains nothing", id="a saved config is for inference"),
        pytest.param({"use_qalora": True}, "qalora_ignored", "plain LoRA", id="QA-LoRA without GPTQ"),
        pytest.param({"target_modules": ["q_proj", "embed_tokens"]}, "embeddings_saved", "9,696 bytes", id="embeddings in the file"),
    ],
)  # fmt: skip
def test_what_decides_nothing_is_said(config, code, said):
    assert said in notes(TREE, config)[code]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="the default"),
        pytest.param({"target_modules": "all-linear", "exclude_modules": ["lm_head"]}, id="an exclusion that is there"),
        pytest.param({"rank_pattern": {"layers.0.q_proj": 4}}, id="a key of several parts"),
        pytest.param({"layers_to_transform": [0, 1]}, id="layers that are there"),
        pytest.param({"modules_to_save": ["head"]}, id="the end of a word is enough for PEFT"),
    ],
)
def test_nothing_is_said_of_what_counts(config):
    assert notes(TREE, config) == {}


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        pytest.param({"target_modules": ["q_proj"]}, "experts_frozen", "gate_up_proj and down_proj", id="experts stay frozen"),
        pytest.param({"target_modules": ["q_proj", "gate_proj", "up_proj", "down_proj"], "r": 1}, "experts_by_release",
                     f"give {Q + 3 * 4 * (10 + 48)} trainable parameters, not {Q + 4 * (2 * (48 + 20) + 10 + 48)}",
                     id="transformers 4 has a module for each projection"),
        pytest.param({"target_modules": ["gate_proj", "up_proj", "down_proj"], "rank_pattern": {"q_proj": 1}},
                     "experts_by_release", "give another count", id="not counted where patterns say more"),
    ],
)  # fmt: skip
def test_experts_are_remarked_on(config, code, said):
    assert said in notes(MOE, config)[code]


@pytest.mark.parametrize(
    ("module", "cls", "parameter"),
    [
        pytest.param(
            "pos_conv_embed.conv.parametrizations.weight", "ParametrizationList", "original1", id="a weight norm"
        ),
        pytest.param("embeddings", "ViTEmbeddings", "position_embeddings", id="positions"),
    ],
)
def test_not_all_that_has_three_dimensions_is_experts(module, cls, parameter):
    own = Module(module, cls, "other", (Parameter(parameter, (4, 8, 16), "BF16"),))
    assert notes(TREE._replace(modules=(*TREE.modules, own)), {}) == {}
