"""Adapters that are not LoRA's: the tensors that PEFT saved, and nothing claimed where no rule is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from estimator.architecture.from_config import from_config
from estimator.architecture.module import VARIES
from estimator.jobs.compare_adapter import file_bytes
from estimator.sizes.adapter_causes import Part
from estimator.sizes.methods.adapted_layer import Adapted
from estimator.sizes.methods.lycoris import loha, lokr
from estimator.sizes.methods.saved import other_method_parts

FIXTURE = Path(__file__).parents[2] / "fixtures" / "adapters" / "other_methods.jsonl"
RECORDED, *ROWS = [json.loads(line) for line in FIXTURE.read_text().splitlines()]
Q, INFINITE = {"target_modules": ["q_proj"]}, float("inf")
OFT = {"peft_type": "OFT", "use_cayley_neumann": True}
TREE = from_config(RECORDED["base"])


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in ROWS])
def test_as_peft_saved_it(row):
    found = other_method_parts(row["config"], TREE)
    if row["tensors"] is None:
        assert found is None
        return
    real = {name: Part(dtype, tuple(shape)) for name, (dtype, shape) in row["tensors"].items()}
    varying = {name for name, part in found.items() if part.shape == VARIES}  # the weights decide: not in the config
    assert {name: part for name, part in found.items() if name not in varying} == {
        name: part for name, part in real.items() if name not in varying
    }
    assert varying <= real.keys()
    assert varying or file_bytes(found) == row["file_bytes"]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"peft_type": "OF_TOMORROW"}, id="no such method"),
        pytest.param({"peft_type": "IA3"}, id="nothing is targeted"),
        pytest.param({"peft_type": "LOHA", "target_modules": ["q_proj"], "r": "many"}, id="no number"),
        pytest.param({"peft_type": "HRA", "target_modules": ["q_proj"]}, id="no rank"),
        pytest.param({"peft_type": "LOHA", "target_modules": ["embed_tokens"], "r": 4}, id="no matrix"),
        pytest.param({"peft_type": "C3A", "target_modules": ["q_proj"], "block_size": 0}, id="blocks of nothing"),
        pytest.param({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": -3, "token_dim": 64}, id="fewer than none"),
        pytest.param({"peft_type": "VERA", "target_modules": "q_proj(", "r": 4}, id="no regular expression"),
        pytest.param({"peft_type": "FROD", **Q, "sparse_rate": INFINITE}, id="all places, without end"),
        pytest.param({"peft_type": "FROD", **Q, "sparse_rate": float("nan")}, id="no share"),
        pytest.param({"peft_type": "FROD", **Q, "sparse_rate": 1.5}, id="more than all places"),
        pytest.param({"peft_type": "SUPERTUNING", **Q, "sparsity": -INFINITE}, id="less than none is left out"),
        pytest.param({"peft_type": "SUPERTUNING", **Q, "sparsity": 1.0}, id="all is left out"),
        pytest.param({"peft_type": "OSF", **Q, "effective_rank": INFINITE}, id="more directions than any matrix has"),
        pytest.param({"peft_type": "XLORA", "hidden_size": 64, "adapters": {}, "xlora_depth": 0}, id="of no layers"),
        pytest.param({"peft_type": "XLORA", "hidden_size": 64, "adapters": None}, id="a mixture of nothing"),
        pytest.param({"peft_type": "XLORA", "hidden_size": 64, "adapters": "abc"}, id="LoRAs without names"),
        pytest.param(
            {"peft_type": "XLORA", "hidden_size": 64, "adapters": {"0": "a"}, "xlora_depth": 10**9},
            id="no end of layers",
        ),
        pytest.param(
            {"peft_type": "ADAMSS", **Q, "r": 8, "num_subspaces": -3, "subspace_rank": 1}, id="fewer clusters than none"
        ),
        pytest.param(
            {"peft_type": "ADAMSS", **Q, "r": 8, "num_subspaces": 0, "subspace_rank": 1}, id="no cluster at all"
        ),
        pytest.param({"peft_type": "PEANUT", **Q, "r": 8, "depth": -1}, id="less than no encoder"),
        pytest.param({"peft_type": "PEANUT", **Q, "r": 8, "depth": 10**9}, id="no end of encoders"),
        pytest.param({"peft_type": "ADAPTION_PROMPT", "adapter_layers": 99, "adapter_len": 4}, id="too many layers"),
        pytest.param({"peft_type": "SHADOW", "r": 4, "shadow_num_hidden_layers": -1}, id="a shadow of no layers"),
        pytest.param({"peft_type": "SHADOW", "r": 4, "shadow_num_hidden_layers": 99}, id="deeper than the base"),
        pytest.param({"peft_type": "SHADOW", "r": 4, "shadow_num_hidden_layers": 1.5}, id="a shadow of half a layer"),
    ],
)
def test_nothing_is_claimed(config):
    assert other_method_parts(config, TREE) is None


VIT = {"architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_size": 48, "num_hidden_layers": 3,
       "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32, "patch_size": 16}  # fmt: skip


@pytest.mark.parametrize(("architecture", "known"), [("ViTModel", True), ("ViTForImageClassification", False)])
def test_a_shadow_has_the_pooler_that_a_classifier_leaves_out(architecture, known):
    """PEFT 0.21.2 makes ViTModel anew, which has one by default."""
    tree = from_config({**VIT, "architectures": [architecture]})
    found = other_method_parts({"peft_type": "SHADOW", "r": 4, "target_modules": "all-linear"}, tree)
    assert (found is not None) is known


DEEPSEEK = {"architectures": ["DeepseekV3Model"], "model_type": "deepseek_v3", "hidden_size": 16, "intermediate_size": 24,
            "moe_intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
            "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 0,
            "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4,
            "vocab_size": 40, "dtype": "bfloat16"}  # fmt: skip
CLASSIFIER = from_config({**RECORDED["base"], "architectures": ["LlamaForSequenceClassification"]})
TOKENS = {"peft_type": "TRAINABLE_TOKENS", "target_modules": ["embed_tokens"], "token_indices": [1, 2]}
OSF = {"peft_type": "OSF", "rank_pattern": {}, "effective_rank": 8}


@pytest.mark.parametrize(
    ("config", "modules"),
    [
        pytest.param({**TOKENS, "task_type": "SEQ_CLS"}, {"embed_tokens"}, id="trained tokens have no modules_to_save"),
        pytest.param(
            {"peft_type": "IA3", **Q, "feedforward_modules": [], "task_type": "SEQ_CLS"}, {"q_proj", "score"},
            id="most methods save the head of a task",
        ),
        pytest.param({**OSF, "target_modules": ["q_proj", "embed_tokens"]}, {"q_proj"}, id="OSF takes Linears alone"),
    ],
)  # fmt: skip
def test_which_modules_are_saved(config, modules):
    """As PEFT 0.21.2 wrote adapters of the same configs."""
    found = other_method_parts(config, CLASSIFIER)
    assert {
        part for name in found for part in name.split(".") if part in ("embed_tokens", "q_proj", "score")
    } == modules


@pytest.mark.parametrize(
    ("config", "name", "shape"),
    [
        pytest.param(
            {"peft_type": "MISS", "r": 8, "init_weights": "bat"}, "miss_block", (8, 8, 8), id="blocks on the diagonal"
        ),
        pytest.param({"peft_type": "MISS", "r": 8, "init_weights": "mini", "mini_r": 4}, "miss_block", (8, 4), id="mini"),
        pytest.param({"peft_type": "BONE", "r": 8}, "bone_block", (8, 64), id="what MISS was called"),
        pytest.param({**OFT, "r": 8, "oft_block_size": 0}, "oft_R.weight", (8, 28), id="so many blocks"),
        pytest.param({**OFT, "r": 0, "oft_block_size": 20}, "oft_R.weight", (4, 120), id="the nearest divisor"),
        pytest.param({"peft_type": "OFT", "r": 8, "oft_block_size": 0}, "oft_r", (8, 8, 8), id="whole, PEFT 0.15"),
        pytest.param({"peft_type": "OFT", "r": 8, "oft_block_size": 0}, "oft_s", (64, 1), id="scaled, PEFT 0.15"),
        pytest.param({"peft_type": "OFT", "r": 4, "block_share": True}, "oft_r", (1, 16, 16), id="shared, PEFT 0.13"),
        pytest.param(
            {"peft_type": "FOURIERFT", "n_frequency": 9, "n_frequency_pattern": {"q_proj": 5}},
            "fourierft_spectrum", (5,), id="a number for one layer",
        ),
        pytest.param(
            {"peft_type": "OSF", "rank_pattern": {"q_proj": 60}}, "osf_svd_params.U_low", (64, 4), id="all but sixty"
        ),
        pytest.param(
            {"peft_type": "OSF", "rank_pattern": {r"layers\.[01].*q": 60, "q_proj": 3}}, "osf_svd_params.U_low", (64, 4),
            id="a key is sought anywhere, and the first counts",
        ),
        pytest.param({"peft_type": "HIRA", "r": 3, "rank_pattern": {"q_proj": 5}}, "hira_A", (3, 64), id="r, whatever"),
        pytest.param({"peft_type": "BOFT", "boft_n_butterfly_factor": 2}, "boft_R", VARIES, id="by what the GPU builds"),
        pytest.param({"peft_type": "ROAD", "variant": "road_4"}, "road_theta", (128,), id="the largest variant"),
    ],
)  # fmt: skip
def test_options(config, name, shape):
    """By hand from `update_layer` of peft 0.21.2."""
    found = other_method_parts({"target_modules": ["q_proj"], **config}, TREE)
    assert found[f"base_model.model.model.layers.0.self_attn.q_proj.{name}"].shape == shape


def test_norms_keep_the_dtype_of_the_base():
    tree = from_config({**RECORDED["base"], "dtype": "bfloat16"})
    found = other_method_parts({"peft_type": "LN_TUNING", "target_modules": ["input_layernorm"]}, tree)
    assert {part.dtype for part in found.values()} == {"BF16"}


def test_a_shadow_holds_the_buffers_that_are_saved():
    """In the base's dtype, as PEFT 0.21.2 saved a DeepSeek-V3 of one routed layer."""
    tree = from_config(DEEPSEEK)
    found = other_method_parts({"peft_type": "SHADOW", "r": 4, "target_modules": "all-linear"}, tree)
    name = "base_model.shadow_backbone.default.layers.0.mlp.gate.e_score_correction_bias"
    assert found[name] == Part("BF16", (4,))


BART = {"architectures": ["BartForCausalLM"], "model_type": "bart", "d_model": 16, "vocab_size": 40, "encoder_layers": 2,
        "decoder_layers": 3, "decoder_attention_heads": 2, "decoder_ffn_dim": 24, "max_position_embeddings": 20}  # fmt: skip
AIMV2 = {"architectures": ["Aimv2VisionModel"], "model_type": "aimv2_vision_model", "hidden_size": 16, "patch_size": 4,
         "image_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}  # fmt: skip


@pytest.mark.parametrize(
    ("base", "depth"),
    [
        pytest.param(BART, 3, id="num_hidden_layers is the encoder's: the decoder stays as deep"),
        pytest.param(RECORDED["base"], 1, id="one layer of a decoder's own"),
    ],
)
def test_a_shadow_is_as_deep_as_its_class_makes_it(base, depth):
    """As PEFT 0.21.2 saved them."""
    found = other_method_parts({"peft_type": "SHADOW", "r": 4, "target_modules": "all-linear"}, from_config(base))
    layers = {
        name.split("layers.")[1][0] for name in found if name.startswith("base_model.shadow_backbone.default.layers")
    }
    assert len(layers) == depth


def test_a_shadow_of_more_than_the_stack_is_not_claimed():
    """PEFT 0.21.2 takes base_model for the backbone, which is the whole of Aimv2VisionModel."""
    assert (
        other_method_parts({"peft_type": "SHADOW", "r": 4, "target_modules": "all-linear"}, from_config(AIMV2)) is None
    )


CONVOLUTION = Adapted("conv", 12, 6, 2, (3, 3))
CORE = {"use_effective_conv2d": True}


@pytest.mark.parametrize(
    ("rule", "config", "layer", "shapes"),
    [
        pytest.param(
            loha, {}, CONVOLUTION,
            {"hada_w1_a": (12, 2), "hada_w1_b": (2, 54), "hada_w2_a": (12, 2), "hada_w2_b": (2, 54)}, id="as one matrix",
        ),
        pytest.param(
            loha, CORE, CONVOLUTION,
            {"hada_t1": (2, 2, 3, 3), "hada_w1_a": (2, 12), "hada_w1_b": (2, 6),
             "hada_t2": (2, 2, 3, 3), "hada_w2_a": (2, 12), "hada_w2_b": (2, 6)}, id="a core of the kernel's size",
        ),
        pytest.param(
            loha, CORE, CONVOLUTION._replace(kernel=(1, 1)),
            {"hada_w1_a": (12, 2), "hada_w1_b": (2, 6), "hada_w2_a": (12, 2), "hada_w2_b": (2, 6)}, id="one place",
        ),
        pytest.param(lokr, {}, CONVOLUTION, {"lokr_w1": (3, 2), "lokr_w2": (4, 3, 3, 3)}, id="a whole factor"),
        pytest.param(
            lokr, {}, CONVOLUTION._replace(number=1), {"lokr_w1": (3, 2), "lokr_w2_a": (4, 1), "lokr_w2_b": (1, 27)},
            id="a product",
        ),
        pytest.param(
            lokr, CORE, CONVOLUTION._replace(number=1, kernel=(3,)),
            {"lokr_w1": (3, 2), "lokr_t2": (1, 1, 3, 1), "lokr_w2_a": (1, 4), "lokr_w2_b": (1, 3)},
            id="in one dimension",
        ),
    ],
)  # fmt: skip
def test_convolutions(rule, config, layer, shapes):
    """By hand from `create_adapter_parameters` of peft 0.21.2."""
    assert dict(rule(config, layer)) == shapes
