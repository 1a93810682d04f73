"""Counts, bytes at each precision, and the footprint, by hand arithmetic on small trees."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.errors import UnsupportedError, UsageError
from estimator.request.load_options import LoadOptions
from estimator.sizes.base import base_sizes, footprint_bytes

TIED = {"lm_head.weight": "embed.weight"}
EMBED, PROJECTION, BIAS, NORM = 100 * 64, 48 * 64, 48, 64
INV_FREQ = 8 * 4  # float32 whatever the model is loaded in


def tree(tied=TIED, config=None, **fields):
    modules = (
        Module("", "TinyForCausalLM", "other"),
        Module("embed", "Embedding", "Embedding", (Parameter("weight", (100, 64), "BF16"),)),
        Module("rotary", "Rotary", "other", (), (Parameter("inv_freq", (8,), "F32", True),)),
        Module("proj", "Linear", "Linear", (Parameter("weight", (48, 64), "BF16"), Parameter("bias", (48,), "BF16"))),
        Module("norm", "RMSNorm", "other", (Parameter("weight", (64,), "BF16"),)),
        Module("lm_head", "Linear", "Linear", (Parameter("weight", (100, 64), "BF16"),)),
    )
    return ModuleTree(
        architecture="TinyForCausalLM",
        config={"dtype": "bfloat16"} if config is None else config,
        modules=modules,
        tied=tied,
        output_embedding="lm_head",
        **fields,
    )


def test_parameters_count_tied_weights_once():
    assert base_sizes(tree(), None, LoadOptions()).parameters == EMBED + PROJECTION + BIAS + NORM
    assert base_sizes(tree(tied={}), None, LoadOptions()).parameters == 2 * EMBED + PROJECTION + BIAS + NORM


@pytest.mark.parametrize(
    ("precision", "weights", "state"),
    [
        pytest.param("fp32", 4 * (EMBED + PROJECTION + BIAS + NORM), 0, id="four bytes each"),
        pytest.param("bf16", 2 * (EMBED + PROJECTION + BIAS + NORM), 0, id="two bytes each"),
        pytest.param("fp16", 2 * (EMBED + PROJECTION + BIAS + NORM), 0, id="two bytes each"),
        pytest.param("int8", 2 * (EMBED + BIAS + NORM) + PROJECTION, 4 * 48, id="a byte, and a scale a row"),
        pytest.param("nf4", 2 * (EMBED + BIAS + NORM) + PROJECTION // 2, 64 + 4 * 48, id="half a byte, 48 blocks"),
    ],
)
def test_bytes_and_footprint(precision, weights, state):
    sizes = base_sizes(tree(), None, LoadOptions(base_precision=precision))
    assert sizes.bytes[precision] == weights + state
    assert sizes.footprint[precision] == sizes.loaded.footprint_bytes == weights + INV_FREQ
    assert sizes.loaded.state_bytes == state


def test_a_class_without_gradient_checkpointing_is_not_prepared():
    """prepare_model_for_kbit_training of PEFT 0.21.2 on ALBERT in 4 bits: a ValueError of transformers."""
    albert = tree(config={"dtype": "bfloat16", "model_type": "albert"})
    with pytest.raises(UsageError, match="gradient checkpointing"):
        base_sizes(albert, None, LoadOptions(base_precision="nf4", prepare_kbit=True))
    assert base_sizes(albert, None, LoadOptions(prepare_kbit=True)).loaded.prepared_footprint_bytes is not None


@pytest.mark.parametrize(
    ("load", "added"),
    [
        pytest.param(
            {"base_precision": "nf4"}, 2 * (EMBED + BIAS + NORM), id="embedding, bias and norm, not the 4 bits"
        ),
        pytest.param(
            {"base_precision": "nf4", "quant_storage": "BF16"}, 2 * (EMBED + BIAS + NORM), id="nor their storage"
        ),
        pytest.param({"base_precision": "bf16"}, 2 * (EMBED + PROJECTION + BIAS + NORM), id="everything in bfloat16"),
        pytest.param({"base_precision": "fp32"}, 0, id="nothing in float32"),
    ],
)
def test_prepare_kbit_turns_halves_to_float32(load, added):
    plain = base_sizes(tree(), None, LoadOptions(**load)).loaded.footprint_bytes
    prepared = base_sizes(tree(), None, LoadOptions(**load, prepare_kbit=True))
    assert (prepared.loaded.footprint_bytes, prepared.loaded.prepared_footprint_bytes) == (plain, plain + added)
    assert prepared.footprint["bf16"] == base_sizes(tree(), None, LoadOptions()).footprint["bf16"]
    assert footprint_bytes(prepared.model) == plain + added
    assert {p.dtype for module in prepared.model.modules for p in module.parameters} == {"F32"}


@pytest.mark.parametrize(
    ("load", "counted"),
    [
        pytest.param({}, EMBED + PROJECTION + BIAS + NORM, id="plain: elements"),
        pytest.param({"base_precision": "nf4"}, EMBED + PROJECTION + BIAS + NORM, id="4 bits: two a byte"),
        pytest.param(
            {"base_precision": "nf4", "quant_storage": "F32"}, EMBED + PROJECTION + BIAS + NORM, id="eight a float32"
        ),
        pytest.param({"base_precision": "int8"}, EMBED + PROJECTION + BIAS + NORM, id="8 bits: elements"),
    ],
)
def test_what_peft_counts(load, counted):
    assert base_sizes(tree(), None, LoadOptions(**load)).all_parameters == counted


def test_an_odd_weight_counts_one_more_in_4_bits():
    odd = Module("proj", "Linear", "Linear", (Parameter("weight", (3, 5), "BF16"),))
    last = Module("norm", "RMSNorm", "other", (Parameter("weight", (5,), "BF16"),))
    small = ModuleTree(architecture=None, config={}, modules=(odd, last), tied={})
    sizes = base_sizes(small, None, LoadOptions(base_precision="nf4", dtype="BF16"))
    assert (sizes.parameters, sizes.all_parameters) == (20, 21)
    assert sizes.loaded.footprint_bytes == 8 + 2 * 5


def test_storage_that_the_bytes_do_not_fit_is_refused():
    odd = Module("proj", "Linear", "Linear", (Parameter("weight", (3, 6), "BF16"),))
    last = Module("norm", "RMSNorm", "other", (Parameter("weight", (6,), "BF16"),))
    small = ModuleTree(architecture=None, config={}, modules=(odd, last), tied={})
    with pytest.raises(UsageError) as refused:
        base_sizes(small, None, LoadOptions(base_precision="nf4", quant_storage="F32"))
    assert "proj" in refused.value.what
    assert refused.value.where == "--quant-storage F32"
    tied = small._replace(tied={"proj.weight": "norm.weight"})  # and so not packed, JetMoE's head
    loaded = LoadOptions(base_precision="nf4", quant_storage="F32", skip_modules=("nothing",), dtype="BF16")
    assert base_sizes(tied, None, loaded).loaded.footprint_bytes == 2 * 6


def stored(dtype):
    tensors = {"embed.weight": Tensor("embed.weight", dtype, (100, 64), "model.safetensors")}
    return Checkpoint(tensors=tensors, files=(), bytes=12_800)


@pytest.mark.parametrize(
    ("config", "checkpoint", "asked", "dtype"),
    [
        pytest.param({"dtype": "float16"}, None, "auto", "F16", id="config.json says"),
        pytest.param({"torch_dtype": "torch.bfloat16"}, None, "auto", "BF16", id="older spelling"),
        pytest.param({}, stored("F16"), "auto", "F16", id="the first float in the file"),
        pytest.param({}, stored("F8_E4M3"), "auto", "F32", id="8-bit floats do not count"),
        pytest.param({"dtype": {"a": 7}}, stored("BF16"), "auto", "BF16", id="a vocabulary is no dtype"),
        pytest.param({"dtype": "float16"}, stored("F16"), "F32", "F32", id="asked for"),
        pytest.param({}, None, "auto", "F32", id="nobody says"),
    ],
)
def test_dtype_of_a_plain_load(config, checkpoint, asked, dtype):
    assert base_sizes(tree(config=config), checkpoint, LoadOptions(dtype=asked)).loaded.dtype == dtype


@pytest.mark.parametrize("said", ["float8_e4m3fn", "float8_e4m3fnuz", "int8", "complex64", "bool"])
@pytest.mark.parametrize(
    ("load", "columns"),
    [
        pytest.param(LoadOptions(), None, id="stored"),
        pytest.param(LoadOptions(base_precision="nf4"), None, id="nf4"),
        pytest.param(LoadOptions(dtype="BF16"), {"fp32", "bf16", "fp16", "int8", "nf4"}, id="another dtype"),
        pytest.param(LoadOptions(base_precision="bf16"), {"fp32", "bf16", "fp16"}, id="another precision"),
    ],
)
def test_torch_builds_models_in_four_dtypes(said, load, columns):
    """`torch.set_default_dtype`: TypeError; save_pretrained writes such a dtype of FP8 weights that come first."""
    with nullcontext() if columns else pytest.raises(UnsupportedError, match=f"dtype is {said}, "):
        sizes = base_sizes(tree(config={"dtype": said}), None, load)
        assert sizes.bytes.keys() == sizes.footprint.keys() == columns


@pytest.mark.parametrize(
    ("kept", "precision", "widened"),
    [
        pytest.param({"keep_in_fp32": ("norm",)}, "fp16", NORM, id="under float16"),
        pytest.param({"keep_in_fp32": ("norm",)}, "bf16", 0, id="not under bfloat16"),
        pytest.param({"keep_in_fp32_strict": ("norm",)}, "bf16", NORM, id="strict: under bfloat16 as well"),
        pytest.param({"keep_in_fp32": ("pro*",)}, "fp16", PROJECTION + BIAS, id="a star for the rest"),
    ],
)
def test_modules_kept_in_float32(kept, precision, widened):
    sizes = base_sizes(tree(**kept), None, LoadOptions(base_precision=precision))
    assert sizes.bytes[precision] == 2 * (EMBED + PROJECTION + BIAS + NORM + widened)


@pytest.mark.parametrize(
    ("kept", "precision", "persistent", "dtype"),
    [
        pytest.param("conv.norm", "bf16", True, "F32", id="stored: Granite Speech's count of batches"),
        pytest.param("conv.norm", "bf16", False, "I64", id="in no file"),
        pytest.param("conv.norm", "fp32", True, "I64", id="under float32 nothing is kept"),
        pytest.param("other", "bf16", True, "I64", id="of another module"),
    ],
)
def test_integers_kept_in_float32(kept, precision, persistent, dtype):
    batches = Parameter("num_batches_tracked", (), "I64", True, persistent)
    norm = Module("conv.norm", "BatchNorm1d", "other", (), (batches,))
    kept_so = ModuleTree(architecture=None, config={}, modules=(norm,), tied={}, keep_in_fp32_strict=(kept,))
    model = base_sizes(kept_so, None, LoadOptions(base_precision=precision)).model
    assert model.modules[0].buffers[0].dtype == dtype


@pytest.mark.parametrize(
    ("persistent", "dtype"),
    [pytest.param(True, "F16", id="as stored"), pytest.param(False, "F32", id="made afresh")],
)
def test_weights_of_a_saved_4_bit_model_keep_their_dtype(persistent, dtype):
    positions = Module("positions", "Positions", "other", (), (Parameter("weight", (8, 64), "F16", False, persistent),))
    config = {"quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}}
    saved = ModuleTree(architecture=None, config=config, modules=(positions,), tied={})
    model = base_sizes(saved, None, LoadOptions(dtype="F32")).model
    assert [buffer.dtype for module in model.modules for buffer in module.buffers] == [dtype]


def test_checkpoint_bytes_are_those_stored():
    assert base_sizes(tree(), stored("BF16"), LoadOptions()).checkpoint_bytes == 12_800
    assert base_sizes(tree(), None, LoadOptions()).checkpoint_bytes is None
