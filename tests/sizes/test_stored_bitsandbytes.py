"""Saved bitsandbytes models: what their config may say, and the dtypes of what is not packed."""

from __future__ import annotations

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.errors import MalformedConfigError
from estimator.request.load_options import LoadOptions
from estimator.sizes.base import base_sizes
from tests.sizes.trees import one_linear


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bnb_4bit_quant_storage": "uint9"}, "uint9"),
        ({"bnb_4bit_compute_dtype": "torch.bfloat16"}, "torch.bfloat16"),
        ({"bnb_4bit_compute_dtype": "bf16"}, "bf16"),
        ({"bnb_4bit_compute_dtype": ["float16"]}, "float16"),
        ({"load_in_8bit": True}, "both true"),
        ({"load_in_4bit": 1}, "load_in_4bit is 1"),
        ({"load_in_8bit": None}, "load_in_8bit is None"),
        ({"llm_int8_threshold": 6}, "threshold is 6"),
        ({"load_in_4bit": False, "load_in_8bit": True, "llm_int8_has_fp16_weight": True}, "fails to load"),
    ],
)
def test_what_bitsandbytes_config_refuses(fields, words):
    fields = {"quant_method": "bitsandbytes", "load_in_4bit": True, **fields}
    with pytest.raises(MalformedConfigError, match=words):
        base_sizes(one_linear({"quantization_config": fields}), None, LoadOptions())


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"bnb_4bit_quant_type": "int4"}, id="a type that is none"),
        pytest.param({"bnb_4bit_use_double_quant": False}, id="no double quantisation"),
        pytest.param({"bnb_4bit_compute_dtype": "int8"}, id="computed in integers"),
        pytest.param({"llm_int8_has_fp16_weight": True}, id="what 8 bits alone read"),
    ],
)
def test_a_saved_4_bit_weight_is_what_the_file_holds(said):
    """192 x 128 elements: bytes, 384 absmax of a byte, two of those, two code books and an offset; the head is plain."""
    fields = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True, **said}
    weight, head = "layers.0.q_proj.weight", "lm_head.weight"
    held = {
        weight: ("U8", (192 * 64, 1)),
        f"{weight}.absmax": ("U8", (384,)),
        f"{weight}.quant_map": ("F32", (16,)),
        f"{weight}.nested_absmax": ("F32", (2,)),
        f"{weight}.nested_quant_map": ("F32", (256,)),
        f"{weight}.quant_state.bitsandbytes__nf4": ("U8", (90,)),
        head: ("BF16", (320, 128)),
    }
    tensors = {name: Tensor(name, dtype, shape, "one") for name, (dtype, shape) in held.items()}
    stored = Checkpoint(tensors=tensors, files=(), bytes=0)
    loaded = base_sizes(one_linear({"quantization_config": fields}), stored, LoadOptions()).loaded
    assert (loaded.footprint_bytes, loaded.state_bytes) == (192 * 64 + 320 * 128 * 2, 384 + 64 + 2 * 4 + 1024 + 4)


def test_what_a_saved_4_bit_model_does_not_hold_takes_the_dtype_asked():
    """Marian's positions are in no file: from_pretrained(dtype=float32) of transformers 5.23.0 makes them in float32."""
    modules = (
        Module("", "TinyForCausalLM", "other"),
        Module("embed", "Embedding", "Embedding", (Parameter("weight", (100, 64), "BF16"),)),
        Module("positions", "Sinusoids", "Embedding", (Parameter("weight", (16, 64), "BF16"),)),
        Module("norm", "LayerNorm", "other", (Parameter("weight", (64,), "BF16"), Parameter("bias", (64,), "BF16"))),
    )
    config = {"dtype": "bfloat16", "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    tree = ModuleTree(architecture="TinyForCausalLM", config=config, modules=modules, tied={})
    held = {"old_name.weight": (100, 64), "norm.weight": (64,), "norm.bias": (64,)}
    tensors = {name: Tensor(name, "BF16", shape, "one") for name, shape in held.items()}
    stored = Checkpoint(tensors=tensors, files=(), bytes=0)
    sizes = base_sizes(tree, stored, LoadOptions(dtype="F32", skip_modules=()))
    assert sizes.loaded.footprint_bytes == 2 * 100 * 64 + 4 * 16 * 64 + 2 * 64 + 4 * 64


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param("weight", "BF16", id="as stored"),
        pytest.param("in_proj_weight", "BF16", id="the word at the end"),
        pytest.param("weight_g", "F32", id="part of a word"),
        pytest.param("output_weights", "F32", id="several: TAPAS"),
    ],
)
def test_what_a_saved_4_bit_model_reassembles_keeps_its_dtype(name, dtype):
    config = {"dtype": "bfloat16", "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    module = Module("head", "Head", "other", (Parameter(name, (64,), "BF16"),))
    tree = ModuleTree(architecture="TinyForCausalLM", config=config, modules=(module,), tied={})
    stored = Checkpoint(tensors={f"head.{name}": Tensor(f"head.{name}", "BF16", (64,), "one")}, files=(), bytes=0)
    assert base_sizes(tree, stored, LoadOptions(dtype="F32")).model.modules[0].parameters[0].dtype == dtype
