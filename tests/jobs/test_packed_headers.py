"""Checkpoints whose weights are packed: features, parameters and what is said of them, by hand from a tiny Llama."""

from __future__ import annotations

from math import prod

import pytest

from estimator.errors import NoWeightsError, UnsupportedError, UnsupportedModuleError
from estimator.jobs.estimate import estimate
from estimator.request.request import Request
from tests.jobs.packed import (
    ADAPTER,
    AS_PLAIN,
    BNB,
    CONFIG,
    INNER,
    LAYER,
    LINEARS,
    PARAMETERS,
    PLAIN,
    RANK,
    WIDTH,
    bnb,
    write,
)


def gptq(out, into):
    return {".qweight": ("I32", into // 8, out), ".qzeros": ("I32", into // 32, out // 8),
            ".scales": ("F16", into // 32, out)}  # fmt: skip


def awq_fast(out, into):
    return {".qweight": ("I16", out // 4, into), ".scales": ("F16", 8, out), ".qzeros": ("F16", 8, out)}


def hqq(out, into):
    return {".W_q": ("U8", out * into // 128, 64), ".scale": ("F16", out * into // 64, 1),
            ".zero": ("F16", out * into // 64, 1), ".shape": ("I64", 2)}  # fmt: skip


def nvfp4(out, into):
    return {
        ".weight": ("U8", out, into // 2),
        ".weight_scale": ("F8_E4M3", out, into // 16),
        ".weight_scale_2": ("F32",),
    }


def bnb_with_a_stranger(out, into):
    return bnb(out, into) | {".weight.xyz": ("U8", 3)}


def sparse_fp8(out, into):
    return {".compressed": ("F8_E4M3", out, into // 2), ".bitmask": ("U8", out, into // 8),
            ".weight_scale": ("BF16", out, 1)}  # fmt: skip


def quark(out, into):
    return {".weight": ("I32", into, out // 8), ".weight_scale": ("F16", into // 32, out)}


def spqr(out, into):
    return {".dense_weights": ("I64", out * into // 16), ".row_offsets": ("I32", out + 1)}


def fp8(out, into):
    return {".weight": ("F8_E4M3", out, into), ".weight_scale_inv": ("F32", out // 64, into // 64)}


def int4_tiles(out, into):
    return {
        "._weight_qdata": ("I32", out // 8, into // 128, 32, 4),
        "._weight_scale_and_zero": ("BF16", into // 32, out, 2),
    }


def int4_words(out, into):
    return {"._weight_qdata": ("I32", out, into // 8), "._weight_scale": ("BF16", into // 32, out)}


def int4_pairs(out, into):
    return {"._weight_qdata": ("I8", out, into // 2), "._weight_scale": ("BF16", into // 32, out)}


def with_a_norm(out, into):
    return {".weight": ("BF16", out, into), ".rms_norm.weight": ("BF16", into)}


def with_scaled_inputs(out, into):
    return {".weight": ("BF16", out, into), ".input_scale": ("BF16", 1), ".input_zero_point": ("I8", 1)}


def gemma(out, into):
    return {".weight": ("U8", out, into // 2), ".weight_scale": ("F32", out, 1), ".k_cache_scale": ("F32",)}


def with_biases(out, into):
    return gptq(out, into) | {".bias": ("F16", out)}


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv_fast"}
HQQ = {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}}
SPARSE = {
    "quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"],
    "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}},
}  # fmt: skip

EIGHT_BIT_FLOATS = ("F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0")
BITNET = {
    "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online", "use_rms_norm": True,
}  # fmt: skip
INPUTS = {
    "quant_method": "compressed-tensors", "quantization_status": "compressed", "ignore": ["lm_head"],
    "config_groups": {"g": {"targets": ["Linear"], "input_activations": {"num_bits": 8, "symmetric": False}}},
}  # fmt: skip


def plain_in(dtype):
    return lambda out, into: {".weight": (dtype, out, into)}


def torchao(packing):
    said = {"group_size": 32, "int4_packing_format": {"_type": "Int4PackingFormat", "_data": packing}}
    config = {"_type": "Int4WeightOnlyConfig", "_version": 2, "_data": said}
    return {"quant_method": "torchao", "quant_type": {"default": config}}


@pytest.mark.parametrize(
    ("fields", "pack", "basis", "codes"),
    [
        pytest.param(GPTQ, gptq, "exact", {"kernel_dependent"}, id="GPTQ"),
        pytest.param(GPTQ, with_biases, "exact", {"kernel_dependent", "unused_tensors"}, id="AutoGPTQ's zero biases"),
        pytest.param(None, gptq, "inferred", {"unknown_packing"}, id="GPTQ that config.json does not name"),
        pytest.param(AWQ, awq_fast, "exact", {"kernel_dependent", "held_otherwise"}, id="AWQ, sixteen bits to a word"),
        pytest.param(
            AWQ,
            lambda out, into: {".weight": ("BF16", out, into)},
            "exact",
            {"kernel_dependent", "packed_missing"},
            id="AWQ, and the file has them plain",
        ),
        pytest.param(HQQ, hqq, "exact", {"not_loadable"}, id="HQQ has its features from config.json"),
        pytest.param(None, bnb, "inferred", {"unknown_packing"}, id="bitsandbytes that config.json does not name"),
        pytest.param(BNB, bnb, "exact", set(), id="bitsandbytes"),
        pytest.param(BNB, bnb_with_a_stranger, "exact", {"unused_tensors"}, id="bitsandbytes, and what nobody reads"),
        pytest.param(None, nvfp4, "inferred", {"unknown_packing"}, id="ModelOpt's config in a file of its own"),
        pytest.param(
            {"quant_method": "modelopt"}, nvfp4, "inferred", {"unknown_quantisation"}, id="ModelOpt, which nobody loads"
        ),
        pytest.param(SPARSE, sparse_fp8, "inferred", {"unknown_packing"}, id="every other weight left out"),
        pytest.param(
            {"quant_method": "bitsandbytes", "_load_in_8bit": True},
            lambda out, into: {".weight": ("I8", out, into), ".SCB": ("F32", out), ".weight_format": ("U8",)},
            "inferred",
            {"unknown_packing"},
            id="bitsandbytes of no width, which nobody unpacks",
        ),
        pytest.param({"quant_method": "quark"}, quark, "inferred", {"unknown_packing"}, id="Quark"),
        pytest.param({"quant_method": "exl2", "bits": 4.65}, quark, "inferred", {"unknown_packing"}, id="a broken bit"),
        pytest.param(torchao("TILE_PACKED_TO_4D"), int4_tiles, "exact", {"logical_footprint"}, id="torchao's tiles"),
        pytest.param(torchao("PLAIN_INT32"), int4_words, "exact", {"logical_footprint"}, id="torchao's words"),
        pytest.param(torchao("PRESHUFFLED"), int4_pairs, "exact", {"logical_footprint"}, id="torchao's pairs of fours"),
        pytest.param(BITNET, with_a_norm, "exact", set(), id="BitNet's norms of inputs beside plain weights"),
        pytest.param(INPUTS, with_scaled_inputs, "exact", set(), id="scales of inputs beside plain weights"),
        pytest.param({"quant_method": "gemma"}, gemma, "exact", set(), id="Gemma's own, by the class"),
        pytest.param(None, fp8, "exact", {"unused_tensors"}, id="scales that nobody reads"),
        *(pytest.param(None, plain_in(dtype), "exact", set(), id=f"{dtype} is cast") for dtype in EIGHT_BIT_FLOATS),
        *(
            pytest.param(None, plain_in(dtype), "inferred", {"unknown_packing"}, id=f"{dtype} is no layer's")
            for dtype in ("BOOL", "C64", "F4", "F6_E2M3", "F6_E3M2", "U16", "U64")
        ),
    ],
)
def test_packed_headers_are_read_or_refused(fields, pack, basis, codes, tmp_path):
    write(tmp_path, fields, pack, CONFIG)
    answer = estimate(Request(model=str(tmp_path), lora={"r": RANK, "target_modules": ["q_proj", "down_proj"]}))
    assert (answer.base.parameters, answer.adaptation.trainable_parameters) == (PARAMETERS, ADAPTER)
    assert (answer.tree.basis, {note.code for note in answer.notes}) == (basis, codes)
    if fields is None:
        assert answer.base.loaded.footprint_bytes == AS_PLAIN


def test_layers_of_spqr_are_refused(tmp_path):
    write(tmp_path, {"quant_method": "spqr"}, spqr, CONFIG)
    with pytest.raises(UnsupportedModuleError, match="QuantizedLinear"):
        estimate(Request(model=str(tmp_path), lora={"target_modules": ["q_proj"]}))
    answer = estimate(Request(model=str(tmp_path), lora={"target_modules": ["embed_tokens"]}))
    assert {note.code for note in answer.notes} >= {"unknown_packing", "unknown_quantisation"}


def test_a_packing_that_nobody_knows_on_a_class_that_nobody_knows(tmp_path):
    write(tmp_path, {"quant_method": "quark"}, quark, {"architectures": ["NovelForCausalLM"], "model_type": "novel"})
    with pytest.raises(NoWeightsError, match=r"q_proj.weight is packed by 'quark'|weight is packed by 'quark'"):
        estimate(Request(model=str(tmp_path), lora={"target_modules": ["q_proj"]}))


MIXTRAL = {**CONFIG, "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 2}
EXPERTS = {
    **{name: sides for name, sides in LINEARS.items() if name.startswith("self_attn")},
    **{
        f"block_sparse_moe.experts.{expert}.{name}": sides
        for expert in (0, 1)
        for name, sides in {"w1": (INNER, WIDTH), "w2": (WIDTH, INNER), "w3": (INNER, WIDTH)}.items()
    },
}


def by_rows(out, into):
    return {".weight": ("F8_E4M3", out, into), ".weight_scale": ("BF16", out, 1)}


ROWS_OF_FLOATS = {"num_bits": 8, "type": "float", "strategy": "channel"}
BY_ROWS = {
    "quant_method": "compressed-tensors", "quantization_status": "compressed", "ignore": ["lm_head"],
    "config_groups": {"0": {"targets": ["Linear"], "format": "float-quantized", "weights": ROWS_OF_FLOATS}},
}  # fmt: skip


def test_experts_that_are_not_fused_are_refused(tmp_path):
    fields = {**BY_ROWS, "config_groups": {"0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int"}}}}
    write(tmp_path, fields, by_rows, MIXTRAL, EXPERTS, {f"{LAYER}block_sparse_moe.gate.weight": ("BF16", 2, WIDTH)})
    with pytest.raises(UnsupportedError, match="fails to fuse these experts"):
        estimate(Request(model=str(tmp_path), lora={"target_modules": ["embed_tokens"]}))


@pytest.mark.parametrize(
    ("fields", "pack", "said", "basis"),
    [
        pytest.param(GPTQ, gptq, True, "exact", id="GPTQ knows no fused experts"),
        pytest.param({**GPTQ, "quant_method": "auto-round"}, gptq, True, "inferred", id="AutoRound takes them apart"),
        pytest.param({"quant_method": "fp8", "weight_block_size": [64, 64]}, fp8, False, "exact", id="FP8 does"),
        pytest.param(BY_ROWS, by_rows, True, "exact", id="compressed-tensors unpacks them"),
    ],
)
def test_experts_that_are_packed_one_by_one(fields, pack, said, basis, tmp_path):
    write(tmp_path, fields, pack, MIXTRAL, EXPERTS, {f"{LAYER}block_sparse_moe.gate.weight": ("BF16", 2, WIDTH)})
    answer = estimate(Request(model=str(tmp_path), lora={"r": RANK, "target_modules": ["q_proj"]}))
    assert ("packed_experts" in {note.code for note in answer.notes}, answer.tree.basis) == (said, basis)
    assert answer.base.parameters == sum(map(prod, (*PLAIN.values(), *EXPERTS.values()))) + 2 * WIDTH
    assert ("unpacked as it loads" in str(answer.notes)) == (fields is BY_ROWS)
