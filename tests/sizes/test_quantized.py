"""Bytes and counts of checkpoints that are stored quantised, against what the libraries recorded."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from estimator.architecture.build import build
from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.checkpoint.quantized import unpack
from estimator.checkpoint.unknown_shapes import infer_unknown
from estimator.errors import UnsupportedError
from estimator.request.load_options import LoadOptions
from estimator.sizes.base import base_sizes
from tests.sizes.trees import one_linear, tree_of_row

FIXTURE = Path(__file__).parents[2] / "fixtures" / "quantized" / "recorded.jsonl"
ROWS = [row for row in map(json.loads, FIXTURE.read_text().splitlines()) if "note" not in row["truth"]]
DTYPES = {"auto": "auto", "float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def sizes_of(row):
    stored = DTYPES[row["config"]["dtype"]]
    return base_sizes(tree_of_row(row, stored), None, LoadOptions(dtype=DTYPES[row["dtype"]]))


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in ROWS])
def test_layers_are_converted_as_recorded(row):
    sizes, truth = sizes_of(row), row["truth"]
    state = truth["state_bytes"] if "bitsandbytes" in row["id"] else 0  # others' scales are tensors of the model
    assert (sizes.parameters, sizes.all_parameters) == (truth["parameters"], truth["peft_parameters"])
    assert (sizes.loaded.footprint_bytes, sizes.loaded.state_bytes) == (truth["footprint_bytes"], state)
    converted = {name for name in sizes.model.quantised if not name.endswith(".experts")}
    assert converted == set(truth["features"])


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in ROWS])
def test_recorded_truth_from_headers_alone(row):
    tensors = {name: Tensor(name, dtype, tuple(shape), "one") for name, (dtype, shape) in row["headers"].items()}
    stored = Checkpoint(tensors=tensors, files=(), bytes=row["truth"]["stored_bytes"])
    unpacked = infer_unknown(row["config"], unpack(row["config"], stored))
    sizes = base_sizes(build(row["config"], unpacked.checkpoint), stored, LoadOptions(dtype=DTYPES[row["dtype"]]))
    assert sizes.loaded.footprint_bytes == row["truth"]["footprint_bytes"]
    assert sizes.all_parameters == row["truth"]["peft_parameters"]
    assert sizes.checkpoint_bytes == row["truth"]["stored_bytes"]


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in ROWS])
def test_what_peft_can_adapt(row):
    layers = sizes_of(row).model.quantised
    linear = [layer for name, layer in layers.items() if not name.endswith(".experts")]
    for lora in row["truth"]["lora"]:
        if lora["config"]["target_modules"] == "all-linear":
            finds_nothing = "No `target_modules` passed" in (lora["error"] or "")
            assert all(not layer.is_linear for layer in linear) == finds_nothing
        else:
            assert any(layer.refusal for layer in linear) == (lora["error"] is not None)


HEAD = 320 * 128 * 2
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": -1, "block_name_to_quantize": "layers"}


def packed(bits):
    """GPTQ's words, zeros, scales, order of columns and shifts, of 192 x 128 weights in one group."""
    return packed_by_auto_round(bits) + 128 * 4 + 2 * (32 // bits) * 4


def packed_by_auto_round(bits):
    """Words, zeros and scales alone."""
    return (128 * bits // 32) * 192 * 4 + (192 * bits // 32) * 4 + 192 * 2


@pytest.mark.parametrize(
    ("fields", "footprint_bytes"),
    [
        pytest.param(
            {"quant_method": "awq", "bits": 4, "group_size": 64},
            HEAD + 128 * 24 * 4 + 2 * 24 * 4 + 2 * 192 * 2,
            id="awq: qweight, qzeros, scales",
        ),
        pytest.param(
            {"quant_method": "awq", "bits": 4}, HEAD + 128 * 24 * 4 + 24 * 4 + 192 * 2, id="awq: groups of 128 unsaid"
        ),
        pytest.param(
            {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "GEMV"},
            HEAD + 192 * 16 * 4 + 192 * 2 * 4 + 192 * 16 * 2,
            id="awq gemv: two words of zeros a row",
        ),
        pytest.param(
            {"quant_method": "awq", "bits": 4, "version": "gemv_fast"},
            HEAD + 48 * 128 * 2 + 2 * 8 * 192 * 2,
            id="awq gemv_fast: words of 16 bits, zeros as floats",
        ),
        pytest.param({"quant_method": "eetq"}, HEAD + 128 * 192 + 192 * 2, id="eetq: bytes and a scale a row"),
        pytest.param(
            {
                "quant_method": "aqlm",
                "in_group_size": 8,
                "num_codebooks": 2,
                "nbits_per_codebook": 8,
                "linear_weights_not_to_quantize": ["lm_head"],
            },
            HEAD + 192 * 16 * 2 + 2 * 256 * 8 * 2 + 192 * 2,
            id="aqlm: codes, codebooks, scales",
        ),
        pytest.param(
            {
                "quant_method": "aqlm",
                "nbits_per_codebook": 8,
                "linear_weights_not_to_quantize": ["lm_head.weight"],
            },
            (320 + 192) * 16 + 2 * 256 * 8 * 2 + (320 + 192) * 2,
            id="aqlm: a weight's name spares no module",
        ),
        pytest.param(
            {"quant_method": "bitnet", "use_rms_norm": True},
            HEAD + 48 * 128 + 2 + 128 * 2,
            id="bitnet: a norm of the inputs",
        ),
        pytest.param(
            {"quant_method": "bitnet", "linear_class": "autobitlinear", "use_rms_norm": True},
            HEAD + 192 * 128 * 2 + 2 + 128 * 2,
            id="bitnet: a norm beside a plain weight",
        ),
        pytest.param(
            {"quant_method": "fbgemm_fp8"}, HEAD + 192 * 128 + 192 * 4 + 4, id="fbgemm: scales and an upper bound"
        ),
        pytest.param(
            {"quant_method": "fp8", "weight_block_size": None, "activation_scheme": "static"},
            HEAD + 192 * 128 + 4 + 4,
            id="fp8 a tensor: two scales",
        ),
        pytest.param(
            {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 3, "group_size": 64, "axis": 1}}},
            HEAD + 39 * 64 * 4,
            id="hqq at 3 bits: ten values a word",
        ),
        pytest.param(
            {"quant_method": "hqq", "quant_config": {"0.q_proj": {}, "q_proj": {"weight_quant_params": {"nbits": 8}}}},
            HEAD + 192 * 128,
            id="hqq: a layer by its tag, without numbers",
        ),
        pytest.param(
            {**GPTQ, "dynamic": {r"layers\.0": {"bits": 8}, "q_proj": {"bits": 2}}},
            HEAD + packed(8),
            id="gptq: the first pattern that the name begins with",
        ),
        pytest.param({**GPTQ, "dynamic": {r"-:.*q_proj": {}}}, HEAD + 192 * 128 * 2, id="gptq: a layer left out"),
        pytest.param(
            {**GPTQ, "quant_method": "auto-round", "extra_config": {"layers.0.q_proj": {"bits": 8, "sym": None}}},
            HEAD + packed_by_auto_round(8),
            id="auto-round: bits of one layer",
        ),
        pytest.param(
            {**GPTQ, "quant_method": "auto-round", "extra_config": {"layers.0.q_proj": {"bits": 16}}},
            HEAD + 192 * 128 * 2,
            id="auto-round: 16 bits are left out",
        ),
        pytest.param(
            {**GPTQ, "quant_method": "auto-round", "packing_format": "auto_round:auto_awq"},
            HEAD + 128 * 24 * 4 + 24 * 4 + 192 * 2,
            id="auto-round: packed as AWQ",
        ),
        pytest.param(
            {
                "quant_method": "fp8",
                "weight_block_size": [64, 64],
                "ignored_layers": ["head", "q"],
            },
            HEAD + 192 * 128 + 3 * 2 * 4,
            id="fp8: a name is spared from its start or as its end",
        ),
        pytest.param(
            {"quant_method": "quanto", "weights": "int8"},
            HEAD + 192 * 128 * 2 + 8,
            id="quanto: the logical size and two scalars",
        ),
        pytest.param({"quant_method": "novel"}, HEAD + 192 * 128 * 2, id="unknown: the plain model"),
    ],
)
def test_a_scheme_weighs_what_hand_arithmetic_says(fields, footprint_bytes):
    config = {"dtype": "bfloat16", "quantization_config": fields}
    assert base_sizes(one_linear(config), None, LoadOptions()).loaded.footprint_bytes == footprint_bytes


@pytest.mark.parametrize(
    ("fields", "shape", "anew"),
    [
        pytest.param({"group_size": 32}, (72, 64), True, id="rows of 72"),
        pytest.param({"group_size": 32}, (64, 72), True, id="columns of 72"),
        pytest.param({"group_size": 128}, (64, 96), False, id="a group that is not whole, for Triton"),
        pytest.param({"group_size": 128, "bits": 3}, (64, 96), True, id="the same in 3 bits"),
        pytest.param({"packing_format": "auto_round:auto_awq"}, (48, 80), False, id="AWQ in steps of 16"),
        pytest.param({"packing_format": "auto_round:auto_awq"}, (72, 64), True, id="AWQ of 72"),
    ],
)
def test_a_layer_that_autoround_has_no_kernel_for(fields, shape, anew):
    """auto-round 0.16.1, `get_layer_backend`: auto_round:fake is left, FakeActQuantLinear with a weight drawn anew."""
    linear = Module("layers.0.q_proj", "Linear", "Linear", (Parameter("weight", shape, "BF16"),))
    tree = one_linear({"dtype": "bfloat16", "quantization_config": {**GPTQ, "quant_method": "auto-round", **fields}})
    tree = tree._replace(modules=(tree.modules[0], linear), output_embedding=None)
    sizes = base_sizes(tree, None, LoadOptions())
    layer = sizes.model.quantised["layers.0.q_proj"]
    assert (layer.cls == "FakeActQuantLinear", bool(layer.refusal)) == (anew, anew)
    assert ("packed_missing" in {note.code for note in sizes.notes}) is anew
    assert (sizes.loaded.footprint_bytes == shape[0] * shape[1] * 2) is anew


def test_fbgemm_has_what_is_not_converted_in_bfloat16():
    tree = one_linear({"dtype": "float32", "quantization_config": {"quant_method": "fbgemm_fp8"}})
    loaded = base_sizes(tree, None, LoadOptions(dtype="F16")).loaded
    assert (loaded.dtype, loaded.footprint_bytes) == ("BF16", HEAD + 192 * 128 + 192 * 4 + 4)


@pytest.mark.parametrize(
    ("cls", "method", "footprint_bytes"),
    [
        pytest.param(
            "Llama4TextExperts", "fbgemm_fp8", 4 * (8 * 12 + 6 * 8 + 12 * 4 + 8 * 4) + 4, id="fbgemm: a scale a column"
        ),
        pytest.param("Llama4TextExperts", "mxfp4", 4 * (8 * 12 + 6 * 8) * 2, id="mxfp4: of gpt-oss alone"),
    ],
)
def test_fused_experts(cls, method, footprint_bytes):
    shapes = {"gate_up_proj": (4, 8, 12), "down_proj": (4, 6, 8)}
    parameters = tuple(Parameter(name, shape, "BF16") for name, shape in shapes.items())
    modules = (
        Module("", "Tiny", "other"),
        Module("moe.experts", cls, "other", parameters),
        Module("norm", "Norm", "other"),
    )
    fields = {"quant_method": method, "modules_to_not_convert": []}
    tree = ModuleTree(architecture=None, config={"quantization_config": fields}, modules=modules, tied={})
    assert base_sizes(tree, None, LoadOptions(dtype="BF16")).loaded.footprint_bytes == footprint_bytes


def test_mlx_is_refused_and_weighed():
    sizes = base_sizes(one_linear({"quantization": {"bits": 4, "group_size": 64}}), None, LoadOptions(dtype="BF16"))
    assert sizes.loaded.footprint_bytes == 192 * 64 + 192 * 2 * 2 * 2 + 320 * 64 + 320 * 2 * 2 * 2
    assert all(layer.refusal for layer in sizes.model.quantised.values())
    assert [note.code for note in sizes.notes] == ["not_loadable"]


def test_mlx_by_layer():
    fields = {"bits": 4, "group_size": 64, "layers.0.q_proj": {"bits": 8, "group_size": 32}, "lm_head": False}
    sizes = base_sizes(one_linear({"quantization": fields}), None, LoadOptions(dtype="BF16"))
    assert sizes.loaded.footprint_bytes == 192 * 128 + 192 * 4 * 2 * 2 + HEAD


@pytest.mark.parametrize("dequantize", [False, True])
def test_an_embedding_in_8_bit_floats_has_one_scale(dequantize):
    modules = (
        Module("", "Tiny", "other"),
        Module("ngram", "Embedding", "Embedding", (Parameter("weight", (100, 64), "BF16"),)),
        Module("embed", "Embedding", "Embedding", (Parameter("weight", (10, 64), "BF16"),)),
    )
    fields = {"quant_method": "fp8", "modules_to_convert": ["ngram"], "dequantize": dequantize}
    tree = ModuleTree(architecture=None, config={"quantization_config": fields}, modules=modules, tied={})
    assert base_sizes(tree, None, LoadOptions(dtype="BF16")).loaded.footprint_bytes == 100 * 64 + 2 + 10 * 64 * 2


@pytest.mark.parametrize("fields", [{"version": "novel"}, {"version": "gemv", "group_size": 48}])
def test_awq_that_no_kernel_reads(fields):
    with pytest.raises(UnsupportedError, match="AWQ"):
        base_sizes(one_linear({"quantization_config": {"quant_method": "awq", **fields}}), None, LoadOptions())


@pytest.mark.parametrize("fields", [{"bits": 5}, {"bits": 16}, {}])
def test_gptq_of_other_widths(fields):
    with pytest.raises(UnsupportedError, match="bits"):
        base_sizes(one_linear({"quantization_config": {"quant_method": "gptq", **fields}}), None, LoadOptions())


@pytest.mark.parametrize(
    "fields", [{"quant_method": "nvfp4"}, {"quant_method": "quanto", "weights": "int8", "activations": "int8"}]
)
def test_what_transformers_reads_no_checkpoints_of(fields):
    with pytest.raises(UnsupportedError, match="transformers 5.23.0 reads no"):
        base_sizes(one_linear({"quantization_config": fields}), None, LoadOptions())


@pytest.mark.parametrize(
    ("names", "converted"),
    [
        pytest.param(["model.layers.0.up", "lm_head"], ["model.layers.0.up"], id="a decoder"),
        pytest.param(
            ["model.visual.layers.0.fc", "model.language_model.layers.0.up"],
            ["model.language_model.layers.0.up"],
            id="the language model beside images",
        ),
        pytest.param(["h.0.up", "head"], ["h.0.up", "head"], id="all that begins with h"),
        pytest.param(["layers.0.up", "pooler"], ["layers.0.up"], id="a base model"),
        pytest.param(["bert.encoder.layer.0.up"], None, id="none that optimum looks for"),
    ],
)
def test_blocks_that_gptq_is_read_in(names, converted):
    """optimum 2.3.0, `get_block_name_with_pattern`: ValueError: Block pattern could not be match."""
    linear = [Module(name, "Linear", "Linear", (Parameter("weight", (192, 128), "BF16"),)) for name in names]
    tree = one_linear({"dtype": "bfloat16", "quantization_config": {"quant_method": "gptq", "bits": 4}})
    tree = tree._replace(modules=(tree.modules[0], *linear), output_embedding=None)
    with pytest.raises(UnsupportedError, match="no blocks") if converted is None else nullcontext():
        assert list(base_sizes(tree, None, LoadOptions()).model.quantised) == converted


INPUTS = [
    ("whisper", "WhisperForConditionalGeneration", False),
    ("whisper", "WhisperForCausalLM", True),
    ("blip-2", "Blip2ForConditionalGeneration", False),
    ("siglip", "SiglipModel", True),
    ("dinov2", "Dinov2Model", False),
]


@pytest.mark.parametrize(("model_type", "architecture", "is_text"), INPUTS)
def test_gptq_of_what_takes_no_text_first(model_type, architecture, is_text):
    tree = one_linear({"model_type": model_type, "dtype": "bfloat16", "quantization_config": GPTQ})
    with nullcontext() if is_text else pytest.raises(UnsupportedError, match="pure text"):
        base_sizes(tree._replace(architecture=architecture), None, LoadOptions())


@pytest.mark.judges
@pytest.mark.parametrize(("architecture", "is_text"), [row[1:] for row in INPUTS])
def test_what_takes_text_first(architecture, is_text):
    cls = getattr(pytest.importorskip("transformers"), architecture)
    assert (cls.main_input_name == "input_ids") == is_text


@pytest.mark.parametrize("spared", [["q_proj"], []])
def test_awq_without_a_linear_does_not_load(spared):
    """UnboundLocalError: has_been_replaced. So it is with GPT-2, whose layers are Conv1D."""
    fields = {"quant_method": "awq", "bits": 4, "group_size": 64, "modules_to_not_convert": spared}
    tree = one_linear({"dtype": "bfloat16", "quantization_config": fields})
    if not spared:
        tree = tree._replace(modules=tuple(m._replace(kind="Conv1D", cls="Conv1D") for m in tree.modules))
    with pytest.raises(UnsupportedError, match="no Linear"):
        base_sizes(tree, None, LoadOptions())


def test_gptq_by_layer_says_who_loads_it():
    fields = {**GPTQ, "dynamic": {"-:.*q_proj": {}}}
    notes = base_sizes(one_linear({"dtype": "bfloat16", "quantization_config": fields}), None, LoadOptions()).notes
    assert "dynamic_gptq" in [note.code for note in notes]


@pytest.mark.parametrize("scheme", ["novel", "sinq_of_mine"])
def test_an_unknown_scheme_says_so(scheme):
    notes = base_sizes(one_linear({"quantization_config": {"quant_method": scheme}}), None, LoadOptions()).notes
    assert [note.code for note in notes] == ["unknown_quantisation"]
    assert scheme in notes[0].message
    assert "PEFT refuses" not in notes[0].message


@pytest.mark.parametrize(
    ("fields", "cls", "converted"),
    [
        ({"quant_method": "higgs"}, "HiggsLinear", {"layers.0.q_proj"}),
        ({"quant_method": "spqr", "modules_to_not_convert": []}, "QuantizedLinear", {"layers.0.q_proj", "lm_head"}),
        ({"quant_method": "vptq"}, "VQuantLinear", {"layers.0.q_proj"}),
        ({"quant_method": "fp_quant", "modules_to_not_convert": ["q_proj"]}, "FPQuantLinear", {"lm_head"}),
        (
            {"quant_method": "fp_quant", "modules_to_not_convert": ["layers.0"]},
            "FPQuantLinear",
            {"layers.0.q_proj", "lm_head"},
        ),
        ({"quant_method": "fp_quant"}, "FPQuantLinear", {"layers.0.q_proj"}),
        ({"quant_method": "sinq"}, "SINQLinear", {"layers.0.q_proj", "lm_head"}),
    ],
)
def test_layers_that_peft_knows_nothing_of(fields, cls, converted):
    sizes = base_sizes(one_linear({"dtype": "bfloat16", "quantization_config": fields}), None, LoadOptions())
    layers = sizes.model.quantised
    assert layers.keys() == converted
    assert all((layer.cls, layer.is_linear, bool(layer.refusal)) == (cls, False, True) for layer in layers.values())
    assert "PEFT refuses" in sizes.notes[0].message


def test_another_precision_of_a_stored_scheme_is_marked():
    tree = one_linear({"dtype": "bfloat16", "quantization_config": {"quant_method": "gptq", "bits": 4}})
    sizes = base_sizes(tree, None, LoadOptions(base_precision="bf16"))
    assert sizes.loaded.footprint_bytes == HEAD + 192 * 128 * 2
    assert [note.code for note in sizes.notes] == ["stored_quantised"]


def test_a_scheme_that_converts_nothing_says_so():
    elsewhere = {"quant_method": "gptq", "bits": 4, "block_name_to_quantize": "model.layers"}
    tree = one_linear({"dtype": "bfloat16", "quantization_config": elsewhere})
    sizes = base_sizes(tree, None, LoadOptions())
    assert [note.code for note in sizes.notes] == ["nothing_quantised"]
