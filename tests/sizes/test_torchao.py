"""What torchao's quant_type may be: transformers 5.23.0, `TorchAoConfig.from_dict`, with torchao 0.18.0."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from estimator.checkpoint.checkpoint import CheckedFile, Checkpoint, Tensor
from estimator.errors import InvalidLoraError, UnsupportedError
from estimator.lora.adapt import adapt
from estimator.request.load_options import LoadOptions
from estimator.request.lora_config import from_mapping
from estimator.sizes.base import base_sizes
from tests.sizes.trees import one_linear

INT8 = {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": {"group_size": None}}


@pytest.mark.parametrize(
    ("quant_type", "codes"),
    [
        pytest.param({"default": INT8}, ["logical_footprint"], id="what torchao 0.18 writes"),
        pytest.param({"default": {**INT8, "_version": 1}}, ["logical_footprint", "older_torchao"], id="and reads not"),
        pytest.param(
            {"default": {**INT8, "_type": "Float8WeightOnlyConfig", "_version": 1}},
            ["logical_footprint", "older_torchao"],
            id="nor floats",
        ),
        pytest.param({"default": {**INT8, "_type": "FqnToConfig", "_version": 1}}, ["logical_footprint"], id="another"),
    ],
)
def test_versions_of_torchao(quant_type, codes):
    sizes = base_sizes(
        one_linear({"quantization_config": {"quant_method": "torchao", "quant_type": quant_type}}), None, LoadOptions()
    )
    assert [note.code for note in sizes.notes] == codes


@pytest.mark.parametrize(
    ("said", "asked", "weight_bytes"),
    [
        pytest.param({"dtype": "bfloat16"}, "F32", 2, id="the dtype from which it was quantised"),
        pytest.param({"torch_dtype": "float32"}, "BF16", 4, id="in the older spelling"),
        pytest.param({}, "F32", 4, id="unsaid: the load dtype"),
    ],
)
def test_a_quantised_weight_keeps_its_dtype(said, asked, weight_bytes):
    """from_pretrained(dtype=...) casts the head alone: Int8Tensor's and Float8Tensor's own dtype is the file's."""
    tree = one_linear({**said, "quantization_config": {"quant_method": "torchao", "quant_type": {"default": INT8}}})
    head = 320 * 128 * (4 if asked == "F32" else 2)
    loaded = base_sizes(tree, None, LoadOptions(dtype=asked)).loaded
    assert loaded.footprint_bytes == 192 * 128 * weight_bytes + head


@pytest.mark.parametrize(
    ("version", "said", "refused"),
    [
        pytest.param(2, {"group_size": 64}, True, id="as it comes"),
        pytest.param(2, {"int4_packing_format": {"_type": "Int4PackingFormat", "_data": "PLAIN"}}, True, id="plain"),
        pytest.param(
            2, {"int4_packing_format": {"_type": "Int4PackingFormat", "_data": "TILE_PACKED_TO_4D"}}, False, id="tiles"
        ),
        pytest.param(1, {"group_size": 64}, False, id="an older tensor"),
    ],
)
def test_what_peft_adapts_of_four_bits(version, said, refused):
    """peft 0.21.2, TorchaoLoraLinear: every class of torchao's tensors but Int4Tensor."""
    quant_type = {"default": {"_type": "Int4WeightOnlyConfig", "_version": version, "_data": said}}
    tree = one_linear({"quantization_config": {"quant_method": "torchao", "quant_type": quant_type}})
    layer = base_sizes(tree, None, LoadOptions()).model.quantised["layers.0.q_proj"]
    assert (layer.refusal is not None) == refused


@pytest.mark.parametrize(
    ("lora", "why"),
    [
        pytest.param({"use_dora": True}, None, id="DoRA"),
        pytest.param({"fan_in_fan_out": True}, None, id="turned"),
        pytest.param({"use_dora": True, "fan_in_fan_out": True}, "not square", id="DoRA, turned"),
        pytest.param({"init_lora_weights": "orthogonal"}, None, id="no decomposition"),
        *(
            pytest.param({"init_lora_weights": init}, "apart", id=init)
            for init in ("pissa", "pissa_niter_4", "olora", "mica")
        ),
    ],
)
def test_what_peft_asks_of_a_weight(lora, why):
    """torchao 0.18.0 and peft 0.21.2: the same of Int8Tensor, Float8Tensor and IntxUnpackedToInt8Tensor."""
    tree = one_linear({"quantization_config": {"quant_method": "torchao", "quant_type": {"default": INT8}}})
    model = base_sizes(tree, None, LoadOptions()).model
    config = from_mapping({"target_modules": ["q_proj"], **lora})
    with nullcontext() if why is None else pytest.raises(InvalidLoraError, match=why):
        assert adapt(model, config).trainable_parameters == 8 * (192 + 128) + (192 if "use_dora" in lora else 0)


BIAS = '{"_type": "Tensor"}'
INT8_FROM_FLOAT16 = '{"_type": "Int8Tensor", "_data": {"dtype": {"_type": "torch.dtype", "_data": "float16"}}}'


def saved(said, *packed, plain=(), **metadata):
    """A file with these layers packed, and the tree of its config; `said`: beside quant_type."""
    quantization = {"quant_method": "torchao", "quant_type": {"default": INT8}, **said}
    names = [*(f"{stem}._weight_qdata" for stem in packed), *(f"{stem}.weight" for stem in plain)]
    tensors = {name: Tensor(name, "I8" if "qdata" in name else "F32", (192, 128), "one") for name in names}
    file = CheckedFile("one", None, None, {}, metadata)
    return one_linear({"dtype": "float32", "quantization_config": quantization}), Checkpoint(tensors, (file,), 0)


@pytest.mark.parametrize(
    ("model", "weight_bytes"),
    [  # of 192 x 128 elements, quantised from float32 and loaded as bfloat16
        pytest.param(saved({}, "layers.0.q_proj"), 4, id="packed"),
        pytest.param(saved({}, plain=["layers.0.q_proj"]), 2, id="plain, whatever config.json says"),
        pytest.param(
            saved({"modules_to_not_convert": ["layers.0"]}, "layers.0.q_proj"), 4, id="packed, though it is spared"
        ),
        pytest.param(
            saved({}, "layers.0.q_proj", **{"layers.0.q_proj.weight": INT8_FROM_FLOAT16, "norm.bias": BIAS}),
            2,
            id="the header names another dtype",
        ),
        pytest.param(
            saved({}, "layers.0.q_proj", **{"layers.0.q_proj.weight": '{"_data": []}'}), 4, id="the header names none"
        ),
    ],
)
def test_the_file_says_what_is_packed(model, weight_bytes):
    tree, checkpoint = model
    loaded = base_sizes(tree, checkpoint, LoadOptions(dtype="BF16")).loaded
    assert loaded.footprint_bytes == 192 * 128 * weight_bytes + 320 * 128 * 2


@pytest.mark.parametrize(
    ("said", "converted"),
    [  # should_convert_module meets "layers.0.q_proj.weight"
        pytest.param({"modules_to_not_convert": ["q_proj"]}, True, id="the end of a module's name spares nothing"),
        pytest.param({"modules_to_not_convert": ["q_proj.weight"]}, False, id="that of a parameter's does"),
        pytest.param({"modules_to_not_convert": ["layers.0"]}, False, id="as does a beginning"),
        pytest.param(
            {"quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_version": 2, "_data": {"group_size": 256}}}},
            False,
            id="groups that the weight has not",
        ),
    ],
)
def test_what_config_json_alone_converts(said, converted):
    tree, _ = saved(said)
    assert ("layers.0.q_proj" in base_sizes(tree, None, LoadOptions()).model.quantised) == converted


def test_the_head_is_packed_with_the_embeddings():
    for said, packed in ({}, False), ({"include_input_output_embeddings": True}, True):
        tree, _ = saved({"modules_to_not_convert": ["lm_head"], **said})
        assert ("lm_head" in base_sizes(tree, None, LoadOptions()).model.quantised) == packed


@pytest.mark.parametrize(("name", "reads"), [("model.query_tokens", True), ("query_tokens", False)])
def test_a_tensor_that_the_model_itself_owns(name, reads):
    """from_pretrained: "not enough values to unpack (expected 2, got 1)", in torchao."""
    tree = one_linear({"quantization_config": {"quant_method": "torchao", "quant_type": {"default": INT8}}})
    stored = Checkpoint(tensors={name: Tensor(name, "BF16", (1, 32, 128), "one")}, files=(), bytes=0)
    with nullcontext() if reads else pytest.raises(UnsupportedError, match="no file that holds 'query_tokens'"):
        base_sizes(tree, stored, LoadOptions())


@pytest.mark.parametrize(
    "quant_type", [None, "int4_weight_only", {}, {"default": "int8"}, {"default": INT8, "a": INT8}]
)
def test_a_quant_type_that_transformers_cannot_read(quant_type):
    with pytest.raises(UnsupportedError, match="quant_type"):
        base_sizes(
            one_linear({"quantization_config": {"quant_method": "torchao", "quant_type": quant_type}}),
            None,
            LoadOptions(),
        )
