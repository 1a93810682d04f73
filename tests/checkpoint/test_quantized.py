"""Packed checkpoints: what config.json says, and the logical shapes read back from the headers."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import pytest

from estimator.checkpoint.checkpoint import CheckedFile, Checkpoint, Tensor
from estimator.checkpoint.quantization import quantization_of
from estimator.checkpoint.quantized import packed_layers, unpack
from estimator.checkpoint.unknown_shapes import infer_unknown, put_known
from estimator.dtypes import BITS
from estimator.errors import MalformedConfigError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "quantized"


def rows(name):
    return [json.loads(line) for line in (FIXTURES / name).read_text().splitlines()]


def checkpoint(headers):
    tensors = {name: Tensor(name, dtype, tuple(shape), "model.safetensors") for name, (dtype, shape) in headers.items()}
    stored = sum(prod(tensor.shape) * BITS[tensor.dtype] // 8 for tensor in tensors.values())
    return Checkpoint(tensors=tensors, files=(), bytes=stored)


@pytest.mark.parametrize(
    ("config", "scheme"),
    [
        pytest.param({}, None, id="plain"),
        pytest.param({"quantization_config": None}, None, id="null is plain"),
        pytest.param(
            {"quantization_config": {"load_in_4bit": True}}, "bitsandbytes_4bit", id="old bnb without a method"
        ),
        pytest.param(
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
            "bitsandbytes_8bit",
            id="bnb 8",
        ),
        pytest.param({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq", id="gptq"),
        pytest.param({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "fp8", id="in the text model"),
        pytest.param(
            {"compression_config": {"quant_method": "compressed-tensors"}}, None, id="a section that is read no more"
        ),
        pytest.param(
            {"quantization_config": {"quant_method": "compressed-tensors", "quantization_config": {"format": "dense"}}},
            "compressed-tensors",
            id="a section in the section",
        ),
        pytest.param({"quantization": {"group_size": 64, "bits": 4}}, "mlx", id="MLX names no method"),
        pytest.param(
            {"quantization_config": {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq"}},
            "auto-round",
            id="AutoRound's integers",
        ),
        pytest.param(
            {"quantization_config": {"quant_method": "auto-round", "data_type": "nv_fp"}},
            "auto-round (nv_fp)",
            id="AutoRound's floats, which nobody knows",
        ),
        pytest.param({"quantization_config": None}, None, id="null is none"),
        pytest.param({"quantization": {"wbits": 4}}, None, id="neither transformers' section nor MLX's"),
        pytest.param({"quantization_config": {"quant_method": ""}}, "", id="an empty name"),
        pytest.param({"quantization_config": {"quant_method": "novel"}}, "novel", id="an unknown one keeps its name"),
    ],
)
def test_a_config_names_its_quantiser(config, scheme):
    found = quantization_of(config)
    assert (found and found.scheme) == scheme


def test_of_two_sections_the_inner_one_is_read():
    outer = {
        "quant_method": "compressed-tensors",
        "run_compressed": False,
        "quantization_config": {"ignore": ["lm_head"]},
    }
    assert quantization_of({"quantization_config": outer}).fields == {"ignore": ["lm_head"]}


@pytest.mark.parametrize(
    "section", [{}, {"bits": 4}, {"quant_method": None}, {"quantization_config": {"quant_method": "gptq"}}]
)
def test_a_section_without_a_method(section):
    with pytest.raises(MalformedConfigError, match="names no quant_method"):
        quantization_of({"quantization_config": section})


@pytest.mark.parametrize("section", ["gptq", [{"quant_method": "gptq"}], 4])
def test_a_section_that_is_no_object(section):
    with pytest.raises(MalformedConfigError, match="not an object"):
        quantization_of({"quantization_config": section})


@pytest.mark.parametrize("scale", ["weight_scale_inv", "scale", "qscale_weight"])
def test_scales_of_fp8_under_any_of_their_names(scale):
    tensors = {
        "a.weight": Tensor("a.weight", "F8_E4M3", (256, 128), "one"),
        f"a.{scale}": Tensor(f"a.{scale}", "F32", (2, 1), "one"),
        "experts.0.w1.weight": Tensor("experts.0.w1.weight", "I8", (256, 64), "one"),
        f"experts.0.w1.{scale}": Tensor(f"experts.0.w1.{scale}", "F8_E8M0", (256, 4), "one"),
        "norm.weight": Tensor("norm.weight", "BF16", (128,), "one"),
        "norm.scale": Tensor("norm.scale", "BF16", (128,), "one"),
    }
    config = {"quantization_config": {"quant_method": "fp8"}, "dtype": "bfloat16"}
    found = unpack(config, Checkpoint(tensors=tensors, files=(), bytes=0)).checkpoint.tensors
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()} == {
        "a.weight": ("BF16", (256, 128)),
        "experts.0.w1.weight": ("BF16", (256, 128)),
        "norm.weight": ("BF16", (128,)),
        "norm.scale": ("BF16", (128,)),
    }


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in rows("layouts.jsonl")])
def test_features_of_each_layout(row):
    stored = checkpoint(row["headers"])
    unpacked, layers = unpack(row["config"], stored), packed_layers(row["config"], stored)
    assert set(layers) == set(row["features"])
    for name, features in row["features"].items():
        shape = layers[name].shape
        assert (shape and [shape[1], shape[0]]) == features
        assert (name in unpacked.unknown) == (features is None)


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in rows("recorded.jsonl")])
def test_recorded_checkpoints(row):
    stored = checkpoint(row["headers"])
    unpacked, layers = unpack(row["config"], stored), packed_layers(row["config"], stored)
    assert stored.bytes == unpacked.checkpoint.bytes == row["truth"]["stored_bytes"]
    if "note" in row["truth"]:  # experts, whose features are not recorded
        return
    for name, (in_features, out_features) in row["truth"]["features"].items():
        packed = layers.get(name)
        logical = unpacked.checkpoint.tensors.get(f"{name}.weight")
        if packed is not None and packed.shape is None:
            assert "bitsandbytes_4bit" in packed.scheme
        elif "compressed-int8-packed" in row["id"]:
            assert -(-in_features // 4) * 4 == logical.shape[1]  # headers tell whole words only
        else:
            assert sorted(logical.shape) == sorted((out_features, in_features))


def test_mxfp4_experts_keep_their_order():
    row = next(row for row in rows("recorded.jsonl") if row["id"] == "mxfp4-unpacked")
    logical = unpack(row["config"], checkpoint(row["headers"])).checkpoint.tensors
    plain = {f"{name}.{p}": tuple(shape) for name, _, _, parameters, _ in row["modules"] for p, shape in parameters}
    experts = [name for name in plain if name.endswith(("gate_up_proj", "down_proj"))]
    assert experts
    assert {name: logical[name].shape for name in experts} == {name: plain[name] for name in experts}


def test_four_bit_shape_is_read_where_the_file_is_at_hand(tmp_path):
    state = json.dumps({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [192, 128]}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\0" * 24 + state)
    name = "q_proj.weight.quant_state.bitsandbytes__nf4"
    tensors = {
        "q_proj.weight": Tensor("q_proj.weight", "U8", (12288, 1), "model.safetensors"),
        "q_proj.weight.absmax": Tensor("q_proj.weight.absmax", "F32", (384,), "model.safetensors"),
        "q_proj.weight.quant_map": Tensor("q_proj.weight.quant_map", "F32", (16,), "model.safetensors"),
        name: Tensor(name, "U8", (len(state),), "model.safetensors", (16, 16 + len(state))),
    }
    file = CheckedFile("model.safetensors", None, None, {}, {}, data_start=8, local_path=str(path))
    config = {"dtype": "float16", "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    unpacked = unpack(config, Checkpoint(tensors=tensors, files=(file,), bytes=12288 + 1536 + 64 + len(state)))
    assert dict(unpacked.checkpoint.tensors) == {
        "q_proj.weight": Tensor("q_proj.weight", "F16", (192, 128), "model.safetensors")
    }
    assert unpacked.unknown == {}


def test_a_plain_checkpoint_is_handed_on_as_it_is():
    plain = checkpoint({"q_proj.weight": ["BF16", [4, 4]]})
    assert unpack({}, plain).checkpoint is plain


BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}
TEXT = "weight.quant_state.bitsandbytes__nf4"
FOUR_BIT = {"hidden_size": 128, "expand": 2, "vision_config": {"hidden_size": 32}, "quantization_config": BNB}


def four_bit_headers(name, elements):
    """Of one layer, as bitsandbytes 0.50.2 writes it without double quantisation."""
    return {
        f"{name}.weight": ["U8", [-(-elements // 2), 1]],
        f"{name}.weight.absmax": ["F32", [elements // 64]],
        f"{name}.weight.quant_map": ["F32", [16]],
        f"{name}.{TEXT}": ["U8", [80]],
    }


@pytest.mark.parametrize(
    ("added", "lost", "is_whole"),
    [
        pytest.param((), (), True, id="as written"),
        pytest.param(("weight.nested_absmax", "weight.nested_quant_map"), (), True, id="quantised twice"),
        pytest.param(("weight.xyz",), (), True, id="what nobody reads"),
        pytest.param((), (TEXT,), False, id="no text"),
        pytest.param(("weight.quant_state.bitsandbytes__fp4",), (), False, id="two texts"),
        pytest.param((), ("weight.quant_map",), False, id="no codes"),
        pytest.param((), ("weight.absmax",), False, id="no scales"),
        pytest.param(("weight.nested_absmax",), (), False, id="half of the second quantisation"),
    ],
)
def test_a_4_bit_layer_without_its_whole_state_is_none(added, lost, is_whole):
    headers = {**four_bit_headers("q", 128 * 128), **{f"q.{part}": ["U8", [3]] for part in added}}
    headers = {name: held for name, held in headers.items() if name.removeprefix("q.") not in lost}
    unpacked = unpack(FOUR_BIT, checkpoint(headers))
    assert set(unpacked.unknown) == ({"q"} if is_whole else set())
    assert ("q.weight" in unpacked.checkpoint.tensors) is not is_whole  # integers, so that the packing is not known


@pytest.mark.parametrize(
    ("name", "elements", "bias", "shape"),
    [
        pytest.param("layers.0.q_proj", 192 * 128, None, (192, 128), id="into the layer: the width comes in"),
        pytest.param("layers.0.o_proj", 192 * 128, None, (128, 192), id="out of it: the width goes out"),
        pytest.param("layers.0.mixed", 192 * 100, 192, (192, 100), id="a bias tells what goes out"),
        pytest.param("visual.blocks.0.qkv", 96 * 32, None, (96, 32), id="a tower's own width"),
        pytest.param("layers.0.mixer.x_proj", 40 * 256, None, (40, 256), id="Mamba reads its inner width"),
        pytest.param("layers.0.odd", 33 * 35, 33, (33, 35), id="an odd number of elements"),
        pytest.param("layers.0.odd", 100 * 130, None, None, id="not a multiple of the width"),
    ],
)
def test_features_inferred_from_the_width(name, elements, bias, shape):
    headers = four_bit_headers(name, elements)
    headers |= {f"{name}.bias": ["BF16", [bias]]} if bias else {}
    inferred = infer_unknown(FOUR_BIT, unpack(FOUR_BIT, checkpoint(headers)))
    found = inferred.checkpoint.tensors.get(f"{name}.weight")
    assert (found and found.shape) == shape
    assert set(inferred.unknown) == (set() if shape else {name})


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        pytest.param({"odd": (100, 130)}, (100, 130), id="as the class builds it"),
        pytest.param({"odd": (130, 100)}, (130, 100), id="the other way round"),
        pytest.param({"odd": (100, 131)}, None, id="more than there are bytes for"),
        pytest.param({"model.odd": (100, 130)}, None, id="under another name"),
    ],
)
def test_features_that_the_class_tells(shapes, found):
    known = put_known(unpack(FOUR_BIT, checkpoint(four_bit_headers("odd", 100 * 130))), shapes)
    weight = known.checkpoint.tensors.get("odd.weight")
    assert (weight and weight.shape) == found
    assert set(known.unknown) == (set() if found else {"odd"})


@pytest.mark.parametrize(
    ("dtype", "columns"), [pytest.param("F8_E4M3", 64, id="a value a byte"), pytest.param("I8", 128, id="two a byte")]
)
def test_experts_of_four_bits_among_8_bit_floats(dtype, columns):
    """transformers 5.23.0, integrations/finegrained_fp8.py: `expert_dtype` fp4 keeps two values in an int8."""
    config = {"quantization_config": {"quant_method": "fp8", "expert_dtype": "fp4"}}
    headers = {"experts.0.w1.weight": [dtype, [32, 64]], "experts.0.w1.weight_scale_inv": ["F8_E8M0", [32, 4]]}
    tensors = unpack(config, checkpoint(headers)).checkpoint.tensors
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"experts.0.w1.weight": (32, columns)}


def test_features_of_a_layout_whose_bytes_do_not_tell_them():
    config = {"quantization_config": {"quant_method": "hqq"}}
    known = put_known(unpack(config, checkpoint({"q.W_q": ["U8", [128, 64]]})), {"q": (128, 128)})
    assert (known.checkpoint.tensors["q.weight"].shape, known.unknown) == ((128, 128), {})
