"""Names as transformers 5.23.0 renames them (core_model_loading.py, `rename_source_key`)."""

from __future__ import annotations

import pytest

from estimator.architecture.rename import Renamer, natural_key, read_transform
from estimator.architecture.stored_names import renamed_modules

LAYER = ["rename", [r"^h\.(\d+)\."], [r"layers.\1."]]
SCOPED = ["rename", ["fc1"], ["up"], [], "tower", "model"]
EXPERTS = ["convert", ["experts.*.w1.weight"], ["experts.up"]]
PAIRS = ["LayerPairCollapse", [r"layers\.(\d+)"], [r"layers.\1"]]
GROUP = ["GroupWeightRename", [r"b\.(\d+)\.norm0", r"b\.(\d+)\.norm1"], [r"b.\1.norm1", r"b.\1.norm2"]]


@pytest.mark.parametrize(
    ("transform", "prefix", "model", "stored", "name"),
    [
        pytest.param(
            LAYER, "model", {"model.layers.3.w"}, "h.3.w", "model.layers.3.w", id="renamed, then the prefix added"
        ),
        pytest.param(LAYER, "model", {"layers.3.w"}, "model.layers.3.w", "layers.3.w", id="prefix taken away"),
        pytest.param(LAYER, "model", {"h.3.w"}, "h.3.w", "h.3.w", id="not renamed where the model has the stored name"),
        pytest.param(SCOPED, "model", {"model.tower.up"}, "tower.fc1", "model.tower.up", id="within its scope"),
        pytest.param(SCOPED, "model", {"model.text.fc1"}, "model.text.fc1", "model.text.fc1", id="not outside of it"),
        pytest.param(
            SCOPED, "model", {"model.tower.fc12"}, "model.tower.fc12", "model.tower.fc12", id="names end at a boundary"
        ),
        pytest.param(
            EXPERTS, "model", {"model.experts.up"}, "model.experts.7.w1.weight", "model.experts.up", id="experts"
        ),
        pytest.param(
            PAIRS, "m", {"m.layers.3.mlp.up"}, "m.layers.7.mixer.up", "m.layers.3.mlp.up", id="an MLP's block"
        ),
        pytest.param(PAIRS, "m", {"m.layers.3.self_attn.q"}, "layers.6.mixer.q", "m.layers.3.self_attn.q", id="pair"),
        pytest.param(PAIRS, "m", {"layers.0.lambda_2"}, "layers.1.mlp_alpha", "layers.0.lambda_2", id="its scale"),
        pytest.param(
            PAIRS, "m", {"layers.5.mlp.up"}, "layers.5.mlp.up", "layers.5.mlp.up", id="a layer as it is built"
        ),
        pytest.param(GROUP, "", {"b.2.norm1"}, "b.2.norm0", "b.2.norm1", id="a group's guard"),
        pytest.param(GROUP, "", {"b.2.norm1"}, "b.2.norm1", "b.2.norm1", id="a group whose guard was not seen"),
    ],
)
def test_a_transform_renames_as_transformers_does(transform, prefix, model, stored, name):
    assert Renamer([read_transform(0, transform)], prefix, model.__contains__)(stored).name == name


def test_names_that_differ_in_indices_alone_keep_their_own():
    rename = Renamer([read_transform(0, LAYER)], "", lambda name: name.startswith("layers"))
    assert [rename(f"h.{index}.w").name for index in (0, 11)] == ["layers.0.w", "layers.11.w"]


def test_the_order_of_experts_is_by_number():
    assert sorted(["e.10.w", "e.9.w", "e.w2", "e.w10"], key=natural_key) == ["e.9.w", "e.10.w", "e.w2", "e.w10"]


@pytest.mark.parametrize(
    ("architecture", "model_type", "name", "renamed"),
    [
        pytest.param(
            "Qwen2VLForConditionalGeneration", "qwen2_vl", "visual.blocks.0", "model.visual.blocks.0", id="a tower"
        ),
        pytest.param("LlavaForConditionalGeneration", "llava", "language_model.lm_head", "lm_head", id="a head"),
        pytest.param(
            "MixtralForCausalLM", "mixtral", "model.layers.0.block_sparse_moe", "model.layers.0.mlp", id="a part"
        ),
        pytest.param("LlamaForCausalLM", "llama", "lm_head", "lm_head", id="what is called so"),
        pytest.param("NovelForCausalLM", "novel", "lm_head", "lm_head", id="a class that is not known"),
    ],
)
def test_modules_that_a_quantiser_is_told_to_spare(architecture, model_type, name, renamed):
    """transformers 5.23.0, FineGrainedFP8HfQuantizer._normalize_modules_to_not_convert."""
    assert renamed_modules({"architectures": [architecture], "model_type": model_type}, [name]) == (renamed,)
