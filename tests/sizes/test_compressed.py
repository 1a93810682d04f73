"""compressed-tensors on a tiny Llama: what transformers 5.23.0 with compressed-tensors 0.20.0 made of such files."""

from __future__ import annotations

import pytest

from estimator.architecture.from_config import from_config
from estimator.errors import UnsupportedError
from estimator.request.load_options import LoadOptions
from estimator.sizes.base import base_sizes

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "intermediate_size": 256,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 320,
    "dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
FP8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}
TENSOR = {"num_bits": 8, "type": "int", "symmetric": False, "strategy": "tensor"}
TOKENS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
INT8 = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
BYTES = {"type": "float", "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}
PLAIN = 755_072


def loaded(weights, inputs=None, **fields):
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    section = {"quant_method": "compressed-tensors", "quantization_status": "compressed", "ignore": ["lm_head"]}
    section |= {"config_groups": {"group_0": group}, **fields}
    return base_sizes(from_config({**CONFIG, "quantization_config": section}), None, LoadOptions()).loaded


@pytest.mark.parametrize(
    ("weights", "inputs", "fields", "footprint_bytes"),
    [
        pytest.param(FP8, None, {}, 464_256, id="8-bit floats, a scale a row"),
        pytest.param(FP8, None, {"format": "novel"}, 464_256, id="the format that the config names is not read"),
        pytest.param(FP8, None, {"quantization_status": "frozen"}, 761_216, id="frozen: plain weights, scales, zeros"),
        pytest.param(FP8, None, {"quantization_status": None}, 761_216, id="no status: the same"),
        pytest.param(FP8, None, {"kv_cache_scheme": {**FP8, "strategy": "tensor"}}, 464_264, id="caches with scales"),
        pytest.param(INT8, TOKENS, {}, 464_256, id="integers of a byte, activations as they come"),
        pytest.param(INT8, TENSOR, {}, 464_298, id="static activations around a zero point"),
        pytest.param(INT8, None, {}, 464_480, id="integers alone are packed"),
        pytest.param({"num_bits": 4, "group_size": 128}, None, {}, 317_536, id="groups without a strategy"),
        pytest.param({"num_bits": 4, "group_size": -1}, None, {}, 317_024, id="rows without a strategy"),
        pytest.param({**INT8, "num_bits": 6}, None, {}, 390_752, id="six bits"),
        pytest.param({**BYTES, "num_bits": 8}, None, {}, 469_376, id="mxfp8"),
        pytest.param({**BYTES, "num_bits": 6}, None, {}, 395_648, id="mxfp6"),
        pytest.param({**BYTES, "num_bits": 4}, None, {}, 321_920, id="mxfp4"),
        pytest.param(FP8, None, {"config_groups": {}, "kv_cache_scheme": {**FP8, "strategy": "tensor"}}, PLAIN + 8,
                     id="caches alone"),
    ],
)  # fmt: skip
def test_footprint(weights, inputs, fields, footprint_bytes):
    assert loaded(weights, inputs, **fields).footprint_bytes == footprint_bytes


@pytest.mark.parametrize("order", ["group", "dynamic", True])
def test_orders_that_the_library_has_removed(order):
    with pytest.raises(UnsupportedError, match="ordered by activations"):
        loaded({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "actorder": order})
