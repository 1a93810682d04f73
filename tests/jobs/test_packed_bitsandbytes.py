"""Checkpoints that bitsandbytes packed: what its state needs, and which weights it packs."""

from __future__ import annotations

from contextlib import nullcontext
from math import prod

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.dtypes import BITS
from estimator.errors import UnsupportedError, UnsupportedModuleError
from estimator.jobs.estimate import estimate
from estimator.jobs.headers import check_states
from estimator.request.load_options import LoadOptions
from estimator.request.request import Request
from estimator.sizes.loading import as_loaded
from tests.jobs.packed import (
    AS_PLAIN,
    BNB,
    CONFIG,
    LINEARS,
    PARAMETERS,
    PLAIN,
    RANK,
    ROWS,
    WIDTH,
    bnb,
    write,
)


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
