"""Heads that a quantiser packs: saved along, trained as copies, or refused, as PEFT 0.21.2 does it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter, QuantisedLayer
from estimator.errors import (
    InvalidLoraError,
    UnsupportedError,
    UnsupportedModuleError,
    UsageError,
)
from estimator.lora.adapt import adapt
from estimator.request.load_options import LoadOptions
from estimator.request.lora_config import from_mapping
from estimator.sizes.bitsandbytes import quantise
from tests.lora.small import ROWS, TIED, TREE, WIDTH, Q


def test_a_tied_head_that_a_quantiser_has_taken_is_refused_in_4_bits():
    """Its class is Linear4bit, its weight the embedding's (transformers 5.23.0 ties after it has converted)."""
    config = from_mapping({"target_modules": ["lm_head"]})
    four, eight = (quantise(TIED, LoadOptions(base_precision=how, skip_modules=())) for how in ("nf4", "int8"))
    with pytest.raises(UnsupportedModuleError, match="tied to"):
        adapt(four, config)
    assert adapt(eight, config).trainable_parameters == 8 * (ROWS + WIDTH)


# What bitsandbytes 0.50.2 and transformers 5.23.0 write of a head of 101 x 48 weights.
FOUR_BIT_HEAD = {
    "weight": ("U8", (2424, 1)),
    "weight.absmax": ("F32", (76,)),
    "weight.quant_map": ("F32", (16,)),
    "weight.quant_state.bitsandbytes__nf4": ("U8", (79,)),
}
EIGHT_BIT_HEAD = {"weight": ("I8", (101, 48)), "SCB": ("F32", (101,)), "weight_format": ("U8", ())}


@pytest.mark.parametrize(
    ("precision", "storage", "head"),
    [
        pytest.param("int8", "U8", EIGHT_BIT_HEAD, id="int8"),
        pytest.param("nf4", "U8", FOUR_BIT_HEAD, id="nf4"),
        pytest.param("nf4", "BF16", {**FOUR_BIT_HEAD, "weight": ("BF16", (1212, 1))}, id="nf4 seen as bfloat16"),
    ],
)
def test_a_packed_head_is_saved_along_with_its_state(precision, storage, head):
    load = LoadOptions(base_precision=precision, quant_storage=storage, skip_modules=())
    tensors = adapt(quantise(TREE, load), from_mapping({"target_modules": ["lm_head"]})).tensors
    before = "base_model.model.lm_head.base_layer."
    found = {t.name.removeprefix(before): (t.dtype, t.shape) for t in tensors if t.name.startswith(before)}
    assert found == head


DOUBLE = LoadOptions(base_precision="nf4", skip_modules=(), double_quant=True)


def test_a_packed_head_whose_text_is_as_long_as_the_weights_make_it_is_counted_and_not_weighed():
    """Double quantisation writes a float into the state's text, of as many digits as it needs."""
    config = from_mapping({"target_modules": ["lm_head"]})
    four = quantise(TREE, DOUBLE)
    varies = adapt(four, config)
    assert varies.trainable_parameters == 8 * (ROWS + WIDTH)
    assert not varies.has_size
    assert "file_size_varies" in {note.code for note in varies.notes}
    assert adapt(four, config, save_embedding_layers="no").has_size
    assert adapt(four, from_mapping({"target_modules": ["q_proj", "embed_tokens"]})).has_size


def test_a_packed_head_of_unknown_state_is_not_weighed():
    unknown = {"lm_head": quantise(TREE, DOUBLE).quantised["lm_head"]._replace(saved_beside=None)}
    with pytest.raises(UnsupportedError, match="packed"):
        adapt(TREE._replace(quantised=unknown), from_mapping({"target_modules": ["lm_head"]}))


def test_olora_quantises_anew_from_float32():
    """The text names the dtype: one letter less than bfloat16."""
    base = quantise(TREE, LoadOptions(base_precision="nf4", skip_modules=()))
    texts = {
        init: t.shape
        for init in (True, "OLoRA")
        for t in adapt(base, from_mapping({"target_modules": ["lm_head"], "init_lora_weights": init})).tensors
        if ".quant_state." in t.name
    }
    assert texts[True] == FOUR_BIT_HEAD["weight.quant_state.bitsandbytes__nf4"][1]
    assert texts["OLoRA"] == (texts[True][0] + len("float32") - len("bfloat16"),)


@pytest.mark.parametrize(("storage", "double"), [("BF16", False), ("F16", False), ("F16", True)])
def test_a_head_in_4_bits_of_a_floating_storage_trains(storage, double):
    """PEFT saves its copy with the quantisation state; of integers it refuses to make one at all."""
    config = from_mapping({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]})
    known = adapt(quantise(TREE, DOUBLE._replace(quant_storage=storage, double_quant=double)), config)
    assert known.parameters_by_part["saved_modules"] == ROWS * WIDTH
    assert known.has_size is not double


@pytest.mark.parametrize(("saved", "has_size"), [("lm_head", False), ("embed_tokens", True)])
def test_a_copy_that_torchao_has_packed_trains_and_is_not_written(saved, has_size):
    """safetensors: "Attempted to access the data pointer on an invalid python storage." """
    lm_head = next(module for module in TREE.modules if module.name == "lm_head")
    packed = {"lm_head": QuantisedLayer(scheme="torchao", cls="Linear", parameters=lm_head.parameters)}
    config = from_mapping({"target_modules": ["q_proj"], "modules_to_save": [saved]})
    done = adapt(TREE._replace(quantised=packed), config)
    assert done.parameters_by_part["saved_modules"] == ROWS * WIDTH
    assert done.has_size is has_size


def test_a_copy_of_unknown_state_is_not_weighed():
    unknown = {
        "lm_head": quantise(TREE, DOUBLE._replace(quant_storage="F16")).quantised["lm_head"]._replace(saved_beside=None)
    }
    config = from_mapping({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]})
    with pytest.raises(UnsupportedError, match="floating storage"):
        adapt(TREE._replace(quantised=unknown), config)


@pytest.mark.parametrize(
    ("stored", "way_out"),
    [
        pytest.param({}, "--skip-modules", id="packed as it is loaded"),
        pytest.param(
            {"quant_method": "bitsandbytes", "load_in_4bit": True}, "model that was quantised", id="stored so"
        ),
    ],
)
def test_no_option_unpacks_a_stored_head(stored, way_out):
    tree = quantise(TREE, LoadOptions(base_precision="nf4", skip_modules=()))
    tree = tree._replace(config={**tree.config, "quantization_config": stored} if stored else tree.config)
    with pytest.raises(InvalidLoraError) as refusal:
        adapt(tree, from_mapping({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}))
    assert way_out in refusal.value.way_out


@pytest.mark.parametrize(("storage", "held"), [("F16", True), ("U8", False)])
def test_orthogonal_matrices_want_a_weight_that_is_seen_as_floats(storage, held):
    base = quantise(TREE, LoadOptions(base_precision="nf4", quant_storage=storage))
    config = from_mapping({"target_modules": ["q_proj"], "init_lora_weights": "orthogonal"})
    with nullcontext() if held else pytest.raises(InvalidLoraError, match="floating point"):
        assert adapt(base, config).trainable_parameters == 8 * 2 * Q


def test_a_tied_head_in_8_bit_floats_keeps_the_embeddings_weight_and_its_own_scale():
    """FP8Linear has a scale whatever its weight is tied to: Camembert's decoder, which comes before the embedding."""
    head, scale = Parameter("weight", (100, 64), "F8_E4M3", True), Parameter("weight_scale_inv", (1, 1), "F32", True)
    tree = ModuleTree(
        architecture="Model",
        config={"model_type": "llama"},
        modules=(
            Module("", "Model", "other"),
            Module("lm_head", "Linear", "Linear", (Parameter("weight", (100, 64), "BF16"),)),
            Module("embed_tokens", "Embedding", "Embedding", (Parameter("weight", (100, 64), "BF16"),)),
            Module("q_proj", "Linear", "Linear", (Parameter("weight", (64, 64), "BF16"),)),
        ),
        tied={"lm_head.weight": "embed_tokens.weight"},
        input_embedding="embed_tokens",
        output_embedding="lm_head",
        quantised={"lm_head": QuantisedLayer("fp8", "FP8Linear", (head, scale), saved_beside=())},
    )
    done = adapt(tree, from_mapping({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}))
    saved = {t.name.rpartition("lm_head.")[2]: (t.dtype, t.shape) for t in done.tensors if "lm_head" in t.name}
    assert saved == {"weight": ("BF16", (100, 64)), "weight_scale_inv": ("F32", (1, 1))}


@pytest.mark.parametrize(
    ("load", "rows", "refused"),
    [  # transformers 5.23.0, resize_token_embeddings of a Llama whose head nothing spares
        pytest.param({"base_precision": "nf4"}, ROWS + 3, True, id="bytes cannot train"),
        pytest.param({"base_precision": "nf4", "quant_storage": "BF16"}, ROWS - 2, True, id="a Linear of one input"),
        pytest.param({"base_precision": "nf4"}, ROWS, True, id="bytes are no rows"),
        pytest.param({"base_precision": "int8"}, ROWS - 2, True, id="integers cannot train"),
        pytest.param({"base_precision": "int8"}, ROWS, False, id="8 bits of as many rows stay"),
    ],
)
def test_a_packed_head_is_not_resized(load, rows, refused):
    tree = quantise(TREE, LoadOptions(**load, skip_modules=()))
    with pytest.raises(UsageError, match="lm_head is packed") if refused else nullcontext():
        adapt(tree, from_mapping({"target_modules": ["q_proj"]}), vocab_size=rows, save_embedding_layers="no")


def test_a_head_made_anew_is_plain_once_it_is_resized():
    """bitsandbytes leaves it plain in a Linear4bit, which PEFT cannot wrap; resizing puts a Linear in its place."""
    tree = quantise(TREE._replace(unstored=frozenset({"lm_head.weight"})), LoadOptions("nf4", skip_modules=()))
    config = from_mapping({"target_modules": ["lm_head"]})
    with pytest.raises(UnsupportedModuleError, match="compress_statistics"):
        adapt(tree, config)
    assert adapt(tree, config, vocab_size=ROWS + 3).trainable_parameters == 8 * (ROWS + 3 + WIDTH)
