"""Scales of FP8 files that go through a class's conversions: what transformers 5.23.0 loads of these files, and not."""

from __future__ import annotations

from math import ceil

import pytest

from estimator.architecture.build import build
from estimator.architecture.from_config import from_config
from estimator.architecture.scales import kept_as_stored
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.checkpoint.quantized import unpack
from estimator.errors import UnsupportedError
from estimator.request.load_options import LoadOptions
from estimator.sizes.base import base_sizes
from tests.sizes.splitting import CONFIG as SPLIT

SPLIT_LAYER = {
    "encoder.layers.0.mixer.Wqkv.weight": (144, 48),
    "encoder.layers.0.mixer.out_proj.weight": (48, 48),
    "encoder.layers.0.mlp.fc1.weight": (80, 48),
    "encoder.layers.0.mlp.fc2.weight": (48, 80),
    "pooler.dense.weight": (48, 48),
}
MERGED = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 1,
    "num_local_experts": 2,
    "vocab_size": 101,
    "dtype": "bfloat16",
}
_PLAIN_OF = {
    "JinaEmbeddingsV3Model": {
        "embeddings.word_embeddings.weight": (101, 48),
        "embeddings.token_type_embeddings.weight": (1, 48),
    },
    "MixtralForCausalLM": {"model.embed_tokens.weight": (101, 64), "lm_head.weight": (101, 64)},
}
MERGED_LAYER = {f"model.layers.0.self_attn.{part}_proj.weight": (64, 64) for part in "qkvo"} | {
    f"model.layers.0.block_sparse_moe.experts.{at}.{name}.weight": (64, 80) if name == "w2" else (80, 64)
    for at in range(2)
    for name in ("w1", "w2", "w3")
}


def sizes_of(config, packed, block, single=(1, 1), spared=None):
    """Of headers with a scale for each block; without one, each weight has a scale of the shape `single`."""
    fields = {"quant_method": "fp8", "weight_block_size": block, "modules_to_not_convert": spared}
    tensors = {name: ("BF16", shape) for name, shape in _PLAIN_OF[config["architectures"][0]].items()}
    for name, shape in packed.items():
        scale = tuple(ceil(size / step) for size, step in zip(shape, block, strict=True)) if block else single
        tensors |= {name: ("F8_E4M3", shape), f"{name}_scale_inv": ("F32", scale)}
    tensors = {name: Tensor(name, dtype, shape, "one") for name, (dtype, shape) in tensors.items()}
    stored = Checkpoint(tensors=tensors, files=(), bytes=0)
    config = {**config, "quantization_config": fields}
    return base_sizes(build(config, unpack(config, stored).checkpoint), stored, LoadOptions())


@pytest.mark.parametrize(
    ("config", "packed", "block"),
    [
        pytest.param(SPLIT, SPLIT_LAYER, [16, 16], id="three rows of blocks for each part"),
        pytest.param(
            SPLIT, SPLIT_LAYER, [128, 128], id="two for three: the last part has none, and loads all the same"
        ),
        pytest.param(MERGED, MERGED_LAYER, [16, 16], id="five rows of blocks for gate and for up"),
        pytest.param(MERGED, MERGED_LAYER, [128, 128], id="one for each"),
    ],
)
def test_scales_that_fit(config, packed, block):
    assert sizes_of(config, packed, block).model.quantised


@pytest.mark.parametrize(
    ("config", "packed", "block", "single", "what"),
    [
        pytest.param(
            SPLIT, SPLIT_LAYER, [32, 32], None, r"makes .* \[1, 2\].* has \[2, 2\]", id="blocks across two parts"
        ),
        pytest.param(SPLIT, SPLIT_LAYER, None, (), "Chunk", id="one number for three parts"),
        pytest.param(MERGED, MERGED_LAYER, [32, 32], None, r"makes .* \[2, 6, 2\].* has \[2, 5, 2\]", id="gate and up"),
        pytest.param(MERGED, MERGED_LAYER, None, (), "Concatenate", id="a number an expert"),
        pytest.param(MERGED, MERGED_LAYER, None, (1, 1), r"makes .* \[1, 1\].* has \[\]", id="of another shape"),
    ],
)
def test_scales_that_transformers_fails_to_load(config, packed, block, single, what):
    with pytest.raises(UnsupportedError, match=what):
        sizes_of(config, packed, block, single)


def test_parts_of_one_tensor_take_the_dtype_of_the_first():
    """from_pretrained: 88,656 bytes of such a model of three layers with query spared, 68,028 with none."""
    spared, none = (sizes_of(SPLIT, SPLIT_LAYER, [16, 16], spared=names) for names in (["q_proj"], []))
    scales, square = 3 * 3 * 4, 48 * 48
    assert spared.loaded.footprint_bytes == none.loaded.footprint_bytes + 3 * square - scales
    with pytest.raises(UnsupportedError, match=r"k_proj keeps no scales"):
        sizes_of(SPLIT, SPLIT_LAYER, [16, 16], spared=["k_proj"])


DINO = {
    "architectures": ["Dinov2Model"], "model_type": "dinov2", "hidden_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 4, "image_size": 28, "patch_size": 14, "mlp_ratio": 2, "dtype": "bfloat16",
}  # fmt: skip
GROUP = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"quant_method": "fp8"}, id="fp8"),
        pytest.param({"quant_method": "compressed-tensors", "config_groups": {"0": GROUP}}, id="compressed-tensors"),
        pytest.param({"quant_method": "metal", "bits": 4}, id="metal, whose scales no layer keeps"),
    ],
)
def test_a_class_that_splits_what_is_not_quantised_reads_no_file(fields):
    """The gated layers that DINOv2's converters split off are not built: ValueError, "one to many" of several names."""
    with pytest.raises(UnsupportedError, match="every Dinov2Model is read as if it had a tensor to split"):
        base_sizes(from_config({**DINO, "quantization_config": fields}), None, LoadOptions())


def test_weights_that_a_class_splits_without_scales_are_named():
    gated = {**DINO, "use_swiglu_ffn": True, "quantization_config": {"quant_method": "metal", "bits": 4}}
    with pytest.raises(UnsupportedError, match=r"into encoder\.layer\.0\.mlp\.gate_proj\.weight, "):
        base_sizes(from_config(gated), None, LoadOptions())


HYBRID = {
    "architectures": ["OlmoHybridForCausalLM"], "model_type": "olmo_hybrid", "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 64, "vocab_size": 64,
    "pad_token_id": 0, "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 2,
    "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4,
}  # fmt: skip
CONVOLUTION = "model.layers.0.linear_attn.conv1d.weight"


@pytest.mark.parametrize(
    ("quantised", "kept"),
    [
        pytest.param([], {CONVOLUTION}, id="merged of three floats"),
        pytest.param(["model.layers.0.linear_attn.q_conv1d.weight"], set(), id="of which one has scales"),
    ],
)
def test_what_is_taken_in_before_it_is_merged_keeps_its_dtype(quantised, kept):
    assert kept_as_stored(from_config(HYBRID), {}, "_scale_inv", quantised) == kept
