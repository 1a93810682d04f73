"""Which layers bitsandbytes converts, and what stands beside them."""

from __future__ import annotations

import re
from random import Random

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.errors import MalformedConfigError, UsageError
from estimator.request import patterns
from estimator.request.load_options import LoadOptions
from estimator.sizes.base import base_sizes
from estimator.sizes.bitsandbytes import four_bit_state_bytes, quantise
from estimator.sizes.skipping import skipped_by, skips


def linear(name, cls="Linear", kind="Linear", bias=False):
    own = (Parameter("weight", (64, 32), "BF16"),) + ((Parameter("bias", (64,), "BF16"),) if bias else ())
    return Module(name, cls, kind, own)


def tree(*modules, **fields):
    return ModuleTree(architecture=None, config={}, modules=modules, tied=fields.pop("tied", {}), **fields)


QK = (linear("layers.0.attn.q_proj"), linear("layers.0.mlp.up_proj"))
NORM = Module("norm", "Norm", "other", (Parameter("weight", (32,), "BF16"),))


@pytest.mark.parametrize(
    ("model", "skip", "converted"),
    [
        pytest.param(tree(*QK, NORM), None, {"layers.0.attn.q_proj", "layers.0.mlp.up_proj"}, id="every Linear"),
        pytest.param(
            tree(*QK, linear("score")),
            None,
            {"layers.0.attn.q_proj", "layers.0.mlp.up_proj"},
            id="the last parameter is left",
        ),
        pytest.param(
            tree(linear("a"), linear("classifier", bias=True)),
            None,
            {"a", "classifier"},
            id="a last bias protects nothing",
        ),
        pytest.param(
            tree(linear("a"), linear("lm_head"), NORM, output_embedding="lm_head"),
            None,
            {"a"},
            id="the output embedding is left",
        ),
        pytest.param(
            tree(linear("a"), linear("b"), NORM, tied={"b.weight": "a.weight"}),
            None,
            set(),
            id="what is tied is left, on both sides",
        ),
        pytest.param(tree(linear("a", cls="FalconLinear"), NORM), None, set(), id="a subclass of Linear is left"),
        pytest.param(tree(linear("c_attn", "Conv1D", "Conv1D"), NORM), None, {"c_attn"}, id="Conv1D is converted"),
        pytest.param(
            tree(linear("a"), linear("wo"), NORM, keep_in_fp32=("wo",)), None, {"a"}, id="kept in float32 is left"
        ),
        pytest.param(
            tree(*QK, linear("lm_head"), output_embedding="lm_head"),
            (),
            {"layers.0.attn.q_proj", "layers.0.mlp.up_proj", "lm_head"},
            id="an empty list spares nothing",
        ),
        pytest.param(
            tree(*QK, NORM),
            ("mlp",),
            {"layers.0.attn.q_proj", "layers.0.mlp.up_proj"},
            id="a name inside does not skip",
        ),
        pytest.param(tree(*QK, NORM), ("up_proj",), {"layers.0.attn.q_proj"}, id="a suffix skips"),
        pytest.param(tree(*QK, NORM), ("layers.0.mlp",), {"layers.0.attn.q_proj"}, id="a beginning up to a dot skips"),
        pytest.param(
            tree(*QK, NORM),
            ("layers.0.m",),
            {"layers.0.attn.q_proj", "layers.0.mlp.up_proj"},
            id="a beginning that stops inside a name does not",
        ),
        pytest.param(
            tree(*QK, NORM), (r"layers\.\d+\.attn",), {"layers.0.mlp.up_proj"}, id="a regular expression skips"
        ),
    ],
)
def test_layers_are_converted_as_the_skip_list_says(model, skip, converted):
    layers = quantise(model, LoadOptions(base_precision="nf4", skip_modules=skip)).quantised
    assert set(layers) == converted


@pytest.mark.parametrize("pattern", [pytest.param("mlp(", id="faulty"), pytest.param(r"(\w+)+$x", id="endless")])
def test_a_pattern_that_cannot_be_matched_is_refused(pattern, monkeypatch):
    monkeypatch.setattr(patterns, "DEADLINE_SECONDS", 0.3)
    model = tree(*QK, linear("a" * 60), NORM)
    with pytest.raises(UsageError) as refused:
        quantise(model, LoadOptions(base_precision="int8", skip_modules=(pattern,)))
    assert refused.value.where == "--skip-modules"
    with pytest.raises(MalformedConfigError):
        skips(model, (pattern,))


def test_names_are_looked_up_as_re_would_match_them():
    """The very line of should_convert_module (transformers 5.23.0): a dot of the pattern stands for any letter."""
    draw = Random(1)
    names = ["".join(draw.choices("ab.", k=draw.randint(1, 6))) for _ in range(300)]
    said = ["".join(draw.choices("ab.", k=draw.randint(1, 5))) for _ in range(60)]
    spared = {
        key: {name for name in names if re.match(rf"(?:{key})(?:(?<=\.)|(?=\.|$))", name) or name.endswith(key)}
        for key in said
    }
    assert skipped_by(tree(*map(linear, names)), said) == spared


def test_a_list_that_names_every_layer_is_looked_up():
    names = [f"layers.{layer}.up_proj" for layer in range(20_500)]
    skipped = skips(tree(*map(linear, names)), names[:-1])
    assert [skipped(name) for name in (names[0], names[-2], names[-1])] == [True, True, False]


@pytest.mark.parametrize(
    ("skip", "named"),
    [
        pytest.param(("up_proj",), None, id="one that is quantised"),
        pytest.param(("up_proj", "up_prj", "norm"), "by up_prj, norm.", id="none of that name, none that is quantised"),
        pytest.param((), None, id="an empty list"),
    ],
)
def test_a_skip_that_spares_nothing_is_said(skip, named):
    notes = quantise(tree(*QK, NORM), LoadOptions(base_precision="nf4", skip_modules=skip)).notes
    assert [note.code for note in notes] == (["skips_not_found"] if named else [])
    assert all(note.message.endswith(named) for note in notes)


@pytest.mark.parametrize(
    ("options", "ignored"),
    [
        pytest.param({"base_precision": "bf16", "skip_modules": ("up_proj",)}, "skip_modules", id="nothing is quantised"),
        pytest.param({"quant_storage": "BF16", "compute_dtype": "F32"}, "quant_storage and compute_dtype", id="nor in 4 bits"),
        pytest.param({"base_precision": "int8", "double_quant": True}, "double_quant", id="8 bits have no state"),
        pytest.param({"base_precision": "bf16", "dtype": "F16"}, "dtype", id="the precision is a dtype"),
        pytest.param({"base_precision": "bf16", "dtype": "BF16"}, None, id="the same dtype"),
        pytest.param({"base_precision": "nf4", "dtype": "BF16", "compute_dtype": "BF16", "quant_storage": "BF16"}, None,
                     id="all of them at work"),
    ],
)  # fmt: skip
def test_what_changes_nothing_is_said(options, ignored):
    notes = base_sizes(tree(*QK, NORM), None, LoadOptions(**options)).notes
    assert [note.code for note in notes] == (["load_options_ignored"] if ignored else [])
    assert all(note.message.startswith(f"{ignored} changes nothing") for note in notes)


@pytest.mark.parametrize(
    ("elements", "double", "state"),
    [
        pytest.param(64, False, 64 + 4, id="one block: a code book and a float"),
        pytest.param(65, False, 64 + 8, id="a second block begins"),
        pytest.param(64, True, 64 + 1 + 4 + 1024 + 4, id="double: a byte, its float, a second book, an offset"),
        pytest.param(64 * 257, True, 64 + 257 + 8 + 1024 + 4, id="257 bytes need two floats"),
        pytest.param(4096 * 14336, True, 64 + 917_504 + 4 * 3584 + 1024 + 4, id="Llama-3.1-8B's down_proj"),
    ],
)
def test_four_bit_state(elements, double, state):
    assert four_bit_state_bytes(elements, double) == state


def test_a_tied_weight_that_is_converted_all_the_same_keeps_its_tie():
    model = tree(linear("embed", "Embedding", "Embedding"), linear("lm_head"), tied={"lm_head.weight": "embed.weight"})
    sizes = base_sizes(model, None, LoadOptions(base_precision="int8", dtype="BF16", skip_modules=()))
    assert set(sizes.model.quantised) == {"lm_head"}
    assert (sizes.loaded.footprint_bytes, sizes.loaded.state_bytes) == (2 * 64 * 32, 0)


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_a_linear_of_unknown_shape_is_left(precision):
    model = tree(linear("a"), Module("unknown", "Linear", "Linear"), NORM)
    assert set(quantise(model, LoadOptions(base_precision=precision)).quantised) == {"a"}


def test_a_layer_without_inputs_is_refused_in_eight_bits_alone():
    no_inputs = Module("fc2", "Linear", "Linear", (Parameter("weight", (64, 0), "BF16"),))
    no_outputs = Module("fc1", "Linear", "Linear", (Parameter("weight", (0, 64), "BF16"),))
    with pytest.raises(UsageError, match="fc2 has no inputs"):
        base_sizes(tree(no_inputs, NORM), None, LoadOptions(base_precision="int8"))
    spared = LoadOptions(base_precision="int8", skip_modules=("fc2",))
    assert base_sizes(tree(no_outputs, no_inputs, NORM), None, spared).loaded.state_bytes == 0
    assert base_sizes(tree(no_inputs, NORM), None, LoadOptions(base_precision="nf4")).loaded.state_bytes == 16 * 4
