"""What names of a file become at run time, where no facts are at hand. Truth: transformers 5.23.0's classes."""

from __future__ import annotations

import pytest

from estimator.architecture.inference.names import run_time_parameters
from estimator.checkpoint.checkpoint import Tensor


def run_time(cls, *names, **config):
    stored = {}
    for entry in names:
        name, shape = entry if isinstance(entry, tuple) else (entry, (6, 4))
        stored[name] = Tensor(name, "BF16", shape, "model.safetensors")
    return {
        name: loaded.shape for name, loaded in run_time_parameters({"architectures": [cls], **config}, stored).items()
    }


@pytest.mark.parametrize(
    ("cls", "stored", "expected"),
    [
        pytest.param(
            "LlavaForConditionalGeneration",
            ["language_model.model.layers.0.q_proj.weight", "language_model.lm_head.weight", "vision_tower.a.weight"],
            ["model.language_model.layers.0.q_proj.weight", "lm_head.weight", "model.vision_tower.a.weight"],
            id="a whole language model inside: its head moves out, all else below model",
        ),
        pytest.param(
            "Gemma3ForSequenceClassification",
            ["language_model.model.embed_tokens.weight", "score.weight"],
            ["model.language_model.embed_tokens.weight", "score.weight"],
            id="a classifier's head stays outside",
        ),
        pytest.param(
            "LlavaModel",
            ["language_model.model.layers.0.q_proj.weight", "vision_tower.a.weight"],
            ["language_model.layers.0.q_proj.weight", "vision_tower.a.weight"],
            id="the model without a head has no model of its own above",
        ),
        pytest.param(
            "InstructBlipForConditionalGeneration",
            ["language_model.model.layers.0.q_proj.weight", "qformer.a.weight"],
            ["language_model.model.layers.0.q_proj.weight", "qformer.a.weight"],
            id="BLIP keeps the language model whole",
        ),
        pytest.param(
            "Qwen2VLForConditionalGeneration",
            ["model.layers.0.mlp.up_proj.weight", "visual.blocks.0.attn.qkv.weight", "lm_head.weight"],
            [
                "model.language_model.layers.0.mlp.up_proj.weight",
                "model.visual.blocks.0.attn.qkv.weight",
                "lm_head.weight",
            ],
            id="a tower beside the language model's layers",
        ),
        pytest.param(
            "ViTMSNForImageClassification",
            [
                "vit.embeddings.patch_embeddings.projection.bias",
                "encoder.layer.1.attention.attention.query.weight",
                "encoder.layer.1.attention.output.dense.weight",
                "encoder.layer.1.intermediate.dense.weight",
                "encoder.layer.1.output.dense.weight",
            ],
            [
                "vit.embeddings.patch_embeddings.projection.bias",
                "vit.layers.1.attention.q_proj.weight",
                "vit.layers.1.attention.o_proj.weight",
                "vit.layers.1.mlp.fc1.weight",
                "vit.layers.1.mlp.fc2.weight",
            ],
            id="ViT",
        ),
        pytest.param(
            "YolosModel",
            [
                "embeddings.patch_embeddings.projection.bias",
                "embeddings.detection_tokens",
                "encoder.layer.1.attention.attention.query.weight",
            ],
            [
                "embeddings.patch_embeddings.projection.bias",
                "embeddings.detection_tokens",
                "encoder.layer.1.attention.attention.query.weight",
            ],
            id="YOLOS has the names that ViT had",
        ),
        pytest.param(
            "Dinov2Model",
            ["encoder.layer.0.attention.attention.query.bias", "encoder.layer.0.layer_scale1.lambda1"],
            ["encoder.layer.0.attention.q_proj.bias", "encoder.layer.0.layer_scale1.lambda1"],
            id="DINOv2 keeps its layers' names",
        ),
        pytest.param(
            "DetrModel",
            [
                "backbone.conv_encoder.model.conv1.weight",
                "encoder.layers.0.fc1.weight",
                "encoder.layers.0.self_attn.out_proj.weight",
            ],
            [
                "backbone.model.conv1.weight",
                "encoder.layers.0.mlp.fc1.weight",
                "encoder.layers.0.self_attn.o_proj.weight",
            ],
            id="DETR",
        ),
        pytest.param(
            "BartModel",
            ["encoder.layers.0.fc1.weight", "encoder.layers.0.self_attn.out_proj.weight"],
            ["encoder.layers.0.fc1.weight", "encoder.layers.0.self_attn.out_proj.weight"],
            id="BART, of which DETR's layers were once",
        ),
        pytest.param(
            "BloomForCausalLM",
            ["h.0.mlp.up.weight", "ln_f.bias"],
            ["transformer.h.0.mlp.up.weight", "transformer.ln_f.bias"],
            id="the base model's file, for a class with a head",
        ),
        pytest.param(
            "BertForSequenceClassification",
            ["embeddings.word_embeddings.weight", "encoder.layer.0.a.weight", "classifier.weight"],
            ["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.a.weight", "classifier.weight"],
            id="a BERT is called by its type",
        ),
        pytest.param(
            "Gemma3ForConditionalGeneration",
            ["language_model.model.layers.0.a.weight", "vision_tower.vision_model.encoder.weight"],
            ["model.language_model.layers.0.a.weight", "model.vision_tower.encoder.weight"],
            id="a tower within a tower",
        ),
        pytest.param(
            "BertModel",
            ["embeddings.LayerNorm.gamma", "embeddings.LayerNorm.beta", "conv.weight_g", "conv.weight_v"],
            [
                "embeddings.LayerNorm.weight",
                "embeddings.LayerNorm.bias",
                "conv.parametrizations.weight.original0",
                "conv.parametrizations.weight.original1",
            ],
            id="names of old",
        ),
    ],
)
def test_stored_names_become_run_time_names(cls, stored, expected):
    assert sorted(run_time(cls, *stored, model_type="bert")) == sorted(expected)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        pytest.param(
            {f"mlp.experts.{i}.{n}.weight": (6, 4) for i in range(3) for n in ("gate_proj", "up_proj")}
            | {f"mlp.experts.{i}.down_proj.weight": (4, 6) for i in range(3)},
            {"mlp.experts.gate_up_proj": (3, 12, 4), "mlp.experts.down_proj": (3, 4, 6)},
            id="experts are fused",
        ),
        pytest.param(
            {f"block_sparse_moe.experts.0.{n}.weight": (6, 4) for n in ("w1", "w3")}
            | {"block_sparse_moe.experts.0.w2.weight": (4, 6)},
            {"block_sparse_moe.experts.gate_up_proj": (1, 12, 4), "block_sparse_moe.experts.down_proj": (1, 4, 6)},
            id="w1 is the gate, w3 goes up, w2 down",
        ),
        pytest.param(
            {
                "a.block_sparse_moe.input_linear.weight": (3, 12, 4),
                "a.block_sparse_moe.output_linear.weight": (3, 4, 6),
                "a.shared_mlp.input_linear.weight": (12, 4),
            },
            {
                "a.block_sparse_moe.experts.gate_up_proj": (3, 12, 4),
                "a.block_sparse_moe.experts.down_proj": (3, 4, 6),
                "a.shared_mlp.input_linear.weight": (12, 4),
            },
            id="Granite's are fused already; the shared one is a plain matrix",
        ),
        pytest.param(
            {f"self_attn.{n}_conv1d.weight": (6, 1, 4) for n in "qkv"},
            {"self_attn.conv1d.weight": (18, 1, 4)},
            id="three convolutions in one",
        ),
        pytest.param(
            {"emb_ln.weight": (4,), "encoder.layers.0.attn.Wqkv.weight": (12, 4)},
            {
                "embeddings.LayerNorm.weight": (4,),
                "layers.0.self_attn.q_proj.weight": (4, 4),
                "layers.0.self_attn.k_proj.weight": (4, 4),
                "layers.0.self_attn.v_proj.weight": (4, 4),
            },
            id="one matrix in three",
        ),
    ],
)
def test_stored_shapes_become_run_time_shapes(stored, expected):
    assert run_time("NewForCausalLM", *stored.items()) == expected


@pytest.mark.parametrize(
    "name",
    [
        "language_model.model.layers.0.q_proj.weight",
        "mlp.experts.0.gate_proj.weight",
        "encoder.layer.0.attention.attention.query.weight",
    ],
)
def test_code_of_a_repository_keeps_its_names(name):
    assert list(run_time("NewForCausalLM", name, auto_map={"AutoModel": "m.N"})) == [name]
