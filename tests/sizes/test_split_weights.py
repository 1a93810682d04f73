"""Skip lists that part what a file holds in one tensor, against what transformers 5.23.0 loads."""

from __future__ import annotations

import re

import pytest

from estimator.architecture.build import build
from estimator.architecture.from_config import from_config
from estimator.checkpoint.checkpoint import CheckedFile, Checkpoint, Tensor
from estimator.errors import UnsupportedError, UnsupportedModuleError, UsageError
from estimator.jobs.headers import tree_of_headers
from estimator.lora.adapt import adapt
from estimator.request.load_options import LoadOptions
from estimator.request.lora_config import from_mapping
from estimator.sizes.base import base_sizes
from tests.sizes.splitting import CONFIG

FUSED = {
    "emb_ln.bias": (48,),
    "emb_ln.weight": (48,),
    "embeddings.token_type_embeddings.weight": (1, 48),
    "embeddings.word_embeddings.weight": (101, 48),
    "encoder.layers.0.mixer.Wqkv.bias": (144,),
    "encoder.layers.0.mixer.Wqkv.weight": (144, 48),
    "encoder.layers.0.mixer.out_proj.bias": (48,),
    "encoder.layers.0.mixer.out_proj.weight": (48, 48),
    "encoder.layers.0.mlp.fc1.bias": (80,),
    "encoder.layers.0.mlp.fc1.weight": (80, 48),
    "encoder.layers.0.mlp.fc2.bias": (48,),
    "encoder.layers.0.mlp.fc2.weight": (48, 80),
    "encoder.layers.0.norm1.bias": (48,),
    "encoder.layers.0.norm1.weight": (48,),
    "encoder.layers.0.norm2.bias": (48,),
    "encoder.layers.0.norm2.weight": (48,),
    "pooler.dense.bias": (48,),
    "pooler.dense.weight": (48, 48),
}
SPLIT = {name: shape for name, shape in FUSED.items() if "Wqkv" not in name} | {
    f"layers.0.self_attn.{part}_proj.{kind}": shape
    for part in "qkv"
    for kind, shape in (("weight", (48, 48)), ("bias", (48,)))
}
SQUARE = 48 * 48


def loaded(precision, *spared, headers=FUSED):
    if headers is None:
        tree, stored = from_config(CONFIG), None
    else:
        tensors = {name: Tensor(name, "BF16", shape, "one") for name, shape in headers.items()}
        stored = Checkpoint(tensors=tensors, files=(), bytes=0)
        tree = build(CONFIG, stored)
    return base_sizes(tree, stored, LoadOptions(base_precision=precision, skip_modules=spared))


@pytest.mark.parametrize("headers", [pytest.param(FUSED, id="headers"), pytest.param(None, id="config.json alone")])
@pytest.mark.parametrize("precision", ["int8", "nf4", "fp4"])
def test_all_parts_stay_as_the_first(precision, headers):
    whole = loaded(precision, "q_proj", "k_proj", "v_proj", headers=headers)
    parted = loaded(precision, "q_proj", headers=headers)
    assert parted.loaded == whole.loaded
    assert parted.all_parameters == whole.all_parameters
    assert [note.code for note in parted.notes] == ["split_weights_spared"]
    assert not whole.notes


@pytest.mark.parametrize("spared", ["k_proj", "v_proj", "layers.0.self_attn.k_proj"])
@pytest.mark.parametrize(
    ("headers", "why", "way_out"),
    [
        pytest.param(FUSED, "the file holds both in one tensor", "or none$", id="headers"),
        pytest.param(None, "no headers were read", "--online", id="config.json alone"),
    ],
)
def test_a_part_that_is_spared_beside_a_first_one_that_is_not(spared, headers, why, way_out):
    with pytest.raises(UsageError, match=why) as refused:
        loaded("nf4", spared, headers=headers)
    assert re.search(way_out, refused.value.way_out)


def test_parts_that_the_file_holds_by_themselves():
    alone, none = loaded("int8", "q_proj", headers=SPLIT), loaded("int8", headers=SPLIT)
    assert alone.loaded.footprint_bytes == none.loaded.footprint_bytes + SQUARE
    assert not alone.notes


def test_peft_adapts_plain_weights_in_8_bits_alone():
    config = from_mapping({"target_modules": ["k_proj"], "r": 4})
    assert adapt(loaded("int8", "q_proj").model, config).trainable_parameters == 4 * (48 + 48)
    with pytest.raises(UnsupportedModuleError, match="compress_statistics"):
        adapt(loaded("nf4", "q_proj").model, config)


def test_packed_weights_that_the_file_holds_in_one_tensor():
    fused = {"encoder.layers.0.mixer.Wqkv.weight": Tensor("encoder.layers.0.mixer.Wqkv.weight", "I8", (144, 48), "one")}
    scales = {name: Tensor(name, "F32", (48,), "one") for name in map("layers.0.self_attn.{}_proj.SCB".format, "qkv")}
    tensors = {name: Tensor(name, "BF16", shape, "one") for name, shape in FUSED.items()} | fused | scales
    files = (
        CheckedFile(
            path="one", expected_bytes=None, actual_bytes=None, dtypes={"I8": 1, "BF16": 17, "F32": 3}, metadata={}
        ),
    )
    config = {**CONFIG, "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    with pytest.raises(UnsupportedError, match="packed in one tensor"):
        tree_of_headers(config, Checkpoint(tensors=tensors, files=files, bytes=0), None, None)


@pytest.mark.parametrize(("spared", "squares"), [(None, 3), ("k_proj", 3), ("q_proj", 0)])
@pytest.mark.parametrize("field", ["load_in_8bit", "load_in_4bit"])
def test_plain_weights_that_are_split_are_cast_as_the_first(field, spared, squares):
    """from_pretrained: 99,456 bytes of such a model of three layers, whose plain one has three squares more a layer."""
    plain = loaded("bf16", headers=FUSED)
    tensors = {name: Tensor(name, "BF16", shape, "one") for name, shape in FUSED.items()}
    stored = Checkpoint(tensors=tensors, files=(), bytes=0)
    config = {**CONFIG, "quantization_config": {"quant_method": "bitsandbytes", field: True}}
    config["quantization_config"]["llm_int8_skip_modules"] = [spared] if spared else None
    sizes = base_sizes(build(config, stored), stored, LoadOptions())
    assert sizes.loaded.footprint_bytes == plain.loaded.footprint_bytes - squares * SQUARE
    assert [note.code for note in sizes.notes] == ["stored_plain"]


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param({"encoder.layers.0.mixer.Wqkv._weight_qdata": ("I8", (144, 48))}, id="all in one"),
        pytest.param(
            {
                "encoder.layers.0.mixer.Wqkv.weight": ("BF16", (96, 48)),
                "layers.0.self_attn.q_proj._weight_qdata": ("I8", (48, 48)),
            },
            id="the first apart from the others, as save_pretrained leaves it",
        ),
    ],
)
def test_weights_that_torchao_packed_are_not_split(packed):
    held = {name: ("BF16", shape) for name, shape in FUSED.items() if not name.endswith("Wqkv.weight")} | packed
    tensors = {name: Tensor(name, dtype, shape, "one") for name, (dtype, shape) in held.items()}
    config = {**CONFIG, "quantization_config": {"quant_method": "torchao"}}
    with pytest.raises(UnsupportedError, match="packed in one tensor"):
        tree_of_headers(config, Checkpoint(tensors=tensors, files=(), bytes=0), None, None)


@pytest.mark.judges
@pytest.mark.parametrize("precision", ["int8", "nf4"])
@pytest.mark.parametrize("spared", ["q_proj", "k_proj", "mlp"])
def test_transformers_judges(spared, precision, tmp_path):
    for name in ("torch", "bitsandbytes"):
        pytest.importorskip(name)
    transformers = pytest.importorskip("transformers")
    config = transformers.JinaEmbeddingsV3Config(**CONFIG)
    transformers.JinaEmbeddingsV3Model(config).bfloat16().save_pretrained(tmp_path)
    how = {"load_in_8bit": True} if precision == "int8" else {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    how = transformers.BitsAndBytesConfig(**how, llm_int8_skip_modules=[spared])
    try:
        model = transformers.JinaEmbeddingsV3Model.from_pretrained(tmp_path, quantization_config=how, dtype="bfloat16")
    except RuntimeError:
        with pytest.raises(UsageError):
            loaded(precision, spared)
    else:
        assert loaded(precision, spared).loaded.footprint_bytes == model.get_memory_footprint()
