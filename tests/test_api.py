"""`import estimator`: what a program gets, and what it reads of an error."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from click.testing import CliRunner

import estimator
from estimator.cli.group import cli
from estimator.request.request import Request

LLAMA = "llama-3.1-8b"
_OF_A_CONFIG_FILE = ("target_rule", "config_notes", "trainer_skips", "freezing")  # what a reader of --config alone sets


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"r": 32, "targets": "qkvo"}, ["-r", "32", "-t", "qkvo"]),
        ({"lora": {"r": 4, "target_modules": "all-linear"}, "base_precision": "nf4"},
         ["-r", "4", "-t", "all-linear", "--base-precision", "nf4"]),
    ],
)  # fmt: skip
def test_a_program_gets_the_object_of_the_command(options, arguments):
    printed = CliRunner().invoke(cli, ["--model", LLAMA, "--offline", "--json", *arguments]).output
    assert estimator.estimate(LLAMA, offline=True, **options) == json.loads(printed)


def test_the_readme_example():
    adapter = estimator.estimate(LLAMA, r=32, targets="qkvo", offline=True)["adapter"]
    assert (adapter["parameters"], adapter["file"]["bytes"]) == (27_262_976, 109_086_416)


@pytest.mark.parametrize(
    ("model", "options", "code", "said"),
    [
        (LLAMA, {"targets": "nowhere_proj"}, "no_target_modules", ("nowhere_proj", "(target_modules)")),
        (LLAMA, {"num_labels": "x"}, "usage", ("'x'", "(num_labels)", "whole number")),
        (LLAMA, {"rank": 8}, "usage", ("rank", "r")),
        ("llama-3.1-8x", {}, "not_found", ("llama-3.1-8x", "(model)", "did you mean meta-llama/Llama-3.1-8B")),
        (None, {}, "usage", ("no model", "(model)")),
    ],
)
def test_an_error_says_what_is_wrong_where_and_the_way_out(model, options, code, said):
    with pytest.raises(estimator.LoraSizeError) as caught:
        estimator.estimate(model, offline=True, **options)
    assert caught.value.code == code
    assert all(words in str(caught.value) for words in said), str(caught.value)


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("--num-labels and --task", "num_labels and task"),
        ("--model, --targets, --base-precision", "model, targets, base_precision"),
        ("--set text_config.a-b", "set text_config.a-b"),
        ("config.json in org/a--b", "config.json in org/a--b"),
    ],
)
def test_options_have_the_names_that_a_program_gives_them(where, named):
    assert str(estimator.LoraSizeError("no.", where=where, way_out="yes")) == f"no. ({named}) yes"


def test_who_changes_an_answer_changes_no_default_and_no_request():
    fields = {"r": 4, "alpha_pattern": {"c_attn": 8}, "loftq_config": {"loftq_bits": 4}}
    lora = estimator.estimate("gpt2", offline=True, lora=fields)["lora"]
    lora["rank_pattern"]["c_attn"] = 2
    lora["alpha_pattern"].clear()
    lora["loftq_config"].clear()
    assert fields == {"r": 4, "alpha_pattern": {"c_attn": 8}, "loftq_config": {"loftq_bits": 4}}
    assert estimator.estimate("gpt2", offline=True)["adapter"]["parameters"] == 8 * (768 + 3 * 768) * 12


def test_an_error_comes_back_from_another_process():
    with pytest.raises(estimator.LoraSizeError) as caught:
        estimator.estimate(LLAMA, targets="nowhere_proj", offline=True)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), vars(again), str(again)) == (type(caught.value), vars(caught.value), str(caught.value))


def test_the_types_are_shipped():
    """PEP 561: without the file a user's type checker sees Any."""
    package = Path(estimator.__file__).parent
    assert (package / "py.typed").exists()
    assert "py.typed" in (package.parent / "setup.cfg").read_text()


def test_every_option_that_is_taken_has_a_type():
    from estimator.request.options import to_request
    from estimator.request.python_options import Options

    assert to_request(dict.fromkeys(Options.__annotations__)) == Request()
    assert Options.__annotations__.keys() == set(Request._fields) - {"model", *_OF_A_CONFIG_FILE}


def test_others_names_lead_to_options_that_are_there():
    from estimator.cli.plan import command
    from estimator.request.other_names import OTHER_NAMES

    options = {param.name.rstrip("_"): param for param in command.params}
    assert not set(OTHER_NAMES) & set(options)
    for ours, value in OTHER_NAMES.values():
        assert ours in options
        assert value is None or value in options[ours].type.choices
