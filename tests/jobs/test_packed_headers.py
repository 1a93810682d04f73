"""Checkpoints whose weights are packed: features, parameters and what is said of them, by hand from a tiny Llama."""

from __future__ import annotations

import json
import struct
from contextlib import nullcontext
from math import prod

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.dtypes import BITS
from estimator.errors import NoWeightsError, UnsupportedError, UnsupportedModuleError
from estimator.jobs.estimate import estimate
from estimator.jobs.headers import check_states
from estimator.request.load_options import LoadOptions
from estimator.request.request import Request
from estimator.sizes.loading import as_loaded

WIDTH, INNER, KEYS, ROWS, RANK = 128, 256, 64, 320, 8
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": INNER,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": ROWS,
    "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
LAYER = "model.layers.0."
LINEARS = {
    "self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (KEYS, WIDTH), "self_attn.v_proj": (KEYS, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH), "mlp.gate_proj": (INNER, WIDTH), "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}  # fmt: skip
PLAIN = {
    "model.embed_tokens.weight": (ROWS, WIDTH), "model.norm.weight": (WIDTH,), "lm_head.weight": (ROWS, WIDTH),
    LAYER + "input_layernorm.weight": (WIDTH,), LAYER + "post_attention_layernorm.weight": (WIDTH,),
}  # fmt: skip
PARAMETERS = sum(map(prod, (*PLAIN.values(), *LINEARS.values())))
ADAPTER = RANK * (WIDTH + WIDTH + INNER + WIDTH)
AS_PLAIN = 2 * PARAMETERS + 2 * 4 * 16  # bytes in bfloat16, and two buffers of rotary frequencies


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


def bnb(out, into):
    return {".weight": ("U8", out * into // 2, 1), ".weight.absmax": ("F32", out * into // 64),
            ".weight.quant_map": ("F32", 16), ".weight.quant_state.bitsandbytes__nf4": ("U8", 80)}  # fmt: skip


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


def with_biases(out, into):
    return gptq(out, into) | {".bias": ("F16", out)}


BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv_fast"}
HQQ = {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}}
SPARSE = {
    "quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"],
    "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}},
}  # fmt: skip

BITNET = {
    "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online", "use_rms_norm": True,
}  # fmt: skip
INPUTS = {
    "quant_method": "compressed-tensors", "quantization_status": "compressed", "ignore": ["lm_head"],
    "config_groups": {"g": {"targets": ["Linear"], "input_activations": {"num_bits": 8, "symmetric": False}}},
}  # fmt: skip


def torchao(packing):
    said = {"group_size": 32, "int4_packing_format": {"_type": "Int4PackingFormat", "_data": packing}}
    config = {"_type": "Int4WeightOnlyConfig", "_version": 2, "_data": said}
    return {"quant_method": "torchao", "quant_type": {"default": config}}


@pytest.mark.parametrize(
    ("fields", "pack", "basis", "codes"),
    [
        pytest.param(GPTQ, gptq, "exact", {"kernel_dependent"}, id="GPTQ"),
        pytest.param(GPTQ, with_biases, "exact", {"kernel_dependent", "biases_dropped"}, id="AutoGPTQ's zero biases"),
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
        pytest.param({"quant_method": "spqr"}, spqr, "inferred", {"unknown_packing"}, id="SpQR"),
        pytest.param({"quant_method": "exl2", "bits": 4.65}, quark, "inferred", {"unknown_packing"}, id="a broken bit"),
        pytest.param(torchao("TILE_PACKED_TO_4D"), int4_tiles, "exact", {"logical_footprint"}, id="torchao's tiles"),
        pytest.param(torchao("PLAIN_INT32"), int4_words, "exact", {"logical_footprint"}, id="torchao's words"),
        pytest.param(torchao("PRESHUFFLED"), int4_pairs, "exact", {"logical_footprint"}, id="torchao's pairs of fours"),
        pytest.param(BITNET, with_a_norm, "exact", set(), id="BitNet's norms of inputs beside plain weights"),
        pytest.param(INPUTS, with_scaled_inputs, "exact", set(), id="scales of inputs beside plain weights"),
        pytest.param(None, fp8, "exact", {"unused_tensors"}, id="scales that nobody reads"),
    ],
)
def test_packed_headers_are_read_or_refused(fields, pack, basis, codes, tmp_path):
    write(tmp_path, fields, pack, CONFIG)
    answer = estimate(Request(model=str(tmp_path), lora={"r": RANK, "target_modules": ["q_proj", "down_proj"]}))
    assert (answer.base.parameters, answer.adaptation.trainable_parameters) == (PARAMETERS, ADAPTER)
    assert (answer.tree.basis, {note.code for note in answer.notes}) == (basis, codes)
    if fields is None:
        assert answer.base.loaded.footprint_bytes == AS_PLAIN


def bnb_without(part):
    return lambda out, into: {name: stored for name, stored in bnb(out, into).items() if part not in name}


INT8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}


@pytest.mark.parametrize(
    ("fields", "pack"),
    [
        pytest.param(BNB, bnb_without("quant_state"), id="no text"),
        pytest.param(BNB, bnb_without("absmax"), id="no sizes of blocks"),
        pytest.param(BNB, bnb_without("quant_map"), id="no codes"),
        pytest.param(INT8, lambda out, into: {".weight": ("I8", out, into), ".weight_format": ("U8",)}, id="no scales"),
    ],
)
def test_bitsandbytes_without_a_part_of_its_state_is_refused(fields, pack, tmp_path):
    """KeyError and ValueError of `QuantState.from_dict` and `Bnb8bitDeserialize`, which from_pretrained reports."""
    write(tmp_path, fields, pack, CONFIG)
    with pytest.raises(UnsupportedError, match="lacks a part of what bitsandbytes needs"):
        estimate(Request(model=str(tmp_path), lora={"target_modules": ["q_proj"]}))


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [pytest.param(BNB, "compress_statistics", id="4 bits"), pytest.param(INT8, None, id="8 bits")],
)
def test_weights_that_lie_there_plain_stay_so(fields, refusal, tmp_path):
    """from_pretrained: 755,072 bytes of such a Llama of two layers, as without a quantiser."""
    write(tmp_path, fields, lambda out, into: {".weight": ("BF16", out, into)}, CONFIG)
    request = Request(model=str(tmp_path), lora={"r": RANK, "target_modules": ["q_proj", "down_proj"]})
    if refusal is not None:
        with pytest.raises(UnsupportedModuleError, match=refusal):
            estimate(request)
        request = request._replace(lora={"target_modules": ["embed_tokens"]})
    answer = estimate(request)
    assert (answer.base.loaded.footprint_bytes, answer.base.all_parameters) == (AS_PLAIN, PARAMETERS)
    assert [note.code for note in answer.notes if note.code == "stored_plain"]


@pytest.mark.parametrize(
    ("stranger", "codes"),
    [
        pytest.param({"model.layers.0.foo.weight": ("I64", 3)}, {"unused_tensors"}, id="integers of no layer"),
        pytest.param({"model.layers.0.foo.weight.absmax": ("F32", 3)}, {"unused_tensors"}, id="a state of no layer"),
        pytest.param({"model.norm.weight": ("I64", WIDTH)}, set(), id="a norm of integers"),
        pytest.param({"model.embed_tokens.weight": ("I8", ROWS, WIDTH)}, set(), id="an embedding of integers"),
    ],
)
def test_bitsandbytes_packs_matrices_alone(stranger, codes, tmp_path):
    """from_pretrained reads a 4-bit Llama of 70,336 bytes with these all the same: 70,720 with the norm, in I64."""
    tensors = {**{name: ("BF16", *shape) for name, shape in PLAIN.items()}, **stranger}
    write(tmp_path, BNB, bnb, CONFIG, more=stranger)
    answer = estimate(Request(model=str(tmp_path), lora={"r": RANK, "target_modules": ["q_proj", "down_proj"]}))
    held = sum(prod(tensors[name][1:]) * BITS[tensors[name][0]] // 8 for name in PLAIN)
    assert answer.base.loaded.footprint_bytes == held + sum(map(prod, LINEARS.values())) // 2 + 2 * 4 * 16
    assert (answer.tree.basis, {note.code for note in answer.notes}) == ("exact", codes)


@pytest.mark.parametrize(
    ("packed", "scales", "whole"),
    [
        ((4, 6), ("F32", (4,)), True),
        ((4, 6), None, False),
        ((4, 6), ("F32", (7,)), False),
        ((4, 6), ("I64", (4,)), False),
        ((9, 9), ("F32", (4,)), False),
    ],
)
def test_weights_that_the_class_renames_without_their_scales(packed, scales, whole):
    """save_pretrained names a projector's weight as published and its SCB as it runs; from_pretrained reads both."""
    stored = {"model.projector.layers.weight": ("I8", packed)}
    if scales:
        stored["model.multi_modal_projector.SCB"] = scales
    tensors = {name: Tensor(name, *kind, "one") for name, kind in stored.items()}
    projector = Module("model.multi_modal_projector", "Linear", "Linear", (Parameter("weight", (4, 6), "BF16"),))
    architecture = "UnlimitedOcrForConditionalGeneration"
    config = {"model_type": "unlimited_ocr", "architectures": [architecture], "quantization_config": INT8}
    tree = ModuleTree(architecture=architecture, config=config, modules=(projector,), tied={})
    with nullcontext() if whole else pytest.raises(UnsupportedError, match="lacks a part"):
        check_states(tree, Checkpoint(tensors=tensors, files=(), bytes=0), list(tensors))


def int8(out, into):
    return {".weight": ("I8", out, into), ".SCB": ("F32", out), ".weight_format": ("U8",)}


@pytest.mark.parametrize(("fields", "pack"), [pytest.param(BNB, bnb, id="4 bits"), pytest.param(INT8, int8, id="8")])
@pytest.mark.parametrize(
    ("spared", "missing", "why"),
    [
        pytest.param(["q_proj"], None, "q_proj is packed in the file, and config.json spares it", id="packed, spared"),
        pytest.param(None, "mlp.down_proj", "the file has no weight of model.layers.0.mlp.down_proj", id="not there"),
    ],
)
def test_what_the_config_has_packed_is_packed_in_the_file_and_nothing_else(
    fields, pack, spared, missing, why, tmp_path
):
    """from_pretrained: sizes that differ, "normal_kernel_cpu" that draws no bytes; in 8 bits forward finds integers."""
    linears = {name: sides for name, sides in LINEARS.items() if name != missing}
    write(tmp_path, {**fields, "llm_int8_skip_modules": spared}, pack, CONFIG, linears)
    with pytest.raises(UnsupportedError, match=why):
        estimate(Request(model=str(tmp_path), lora={"target_modules": ["q_proj"]}))


def test_what_the_class_joins_of_packed_weights_loses_its_state():
    """from_pretrained leaves a Parameter of bytes, and PEFT asks it for `compress_statistics`."""
    before, joined = "language_model.layers.0.mlp.shared_experts.", "gate_up_proj"
    pairs = [(f"{before}{half}_proj{part}", kind) for half in ("gate", "up") for part, kind in bnb(96, 32).items()]
    checkpoint = Checkpoint(
        tensors={name: Tensor(name, kind[0], kind[1:], "one") for name, kind in pairs}, files=(), bytes=0
    )
    config = {"model_type": "minimax_m3_vl", "architectures": ["MiniMaxM3VLModel"], "quantization_config": BNB}
    module = Module(before + joined, "Linear", "Linear", (Parameter("weight", (192, 32), "BF16"),))
    norm = Module("language_model.norm", "MiniMaxM3VLRMSNorm", "other", (Parameter("weight", (32,), "BF16"),))
    tree = ModuleTree(architecture="MiniMaxM3VLModel", config=config, modules=(module, norm), tied={})
    with pytest.raises(UnsupportedError, match="gate_up_proj is made of what the file has packed otherwise"):
        as_loaded(tree, checkpoint, LoadOptions())


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


def write(folder, fields, pack, config, linears=LINEARS, more=None):
    tensors = {**{name: ("BF16", *shape) for name, shape in PLAIN.items()}, **(more or {})}
    for name, (out, into) in linears.items():
        tensors |= {f"{LAYER}{name}{part}": kind for part, kind in pack(out, into).items()}
    at, header = 0, {}
    for name, (dtype, *shape) in tensors.items():
        end = at + prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    said = {} if fields is None else {"quantization_config": fields}
    (folder / "config.json").write_text(json.dumps({**config, **said}))
