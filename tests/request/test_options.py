"""Requests from mappings: a line of `batch`, the arguments of `estimator.estimate`."""

from __future__ import annotations

from numbers import Integral
from pathlib import Path
from types import SimpleNamespace

import pytest

from estimator.errors import UsageError
from estimator.request.options import to_request


@Integral.register
class Octet:
    """An integer that is no int, as numpy's and pandas' are."""

    def __int__(self) -> int:
        return 8


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        pytest.param("targets", ["q_proj", "v_proj"], "q_proj,v_proj", id="a list of names"),
        pytest.param("layers", [0, 1, 5], "0,1,5", id="a list of layers"),
        pytest.param("exclude", ("lm_head",), "lm_head", id="a tuple"),
        pytest.param("layers", range(2), "0,1", id="a range"),
        pytest.param("layers", 3, "3", id="one layer"),
        pytest.param("targets", {"v_proj", "q_proj"}, "q_proj,v_proj", id="a set"),
        pytest.param("modules_to_save", ("lm_head",), ["lm_head"], id="a tuple of modules"),
        pytest.param("trainable_tokens", range(3), [0, 1, 2], id="a range of tokens"),
        pytest.param("trainable_tokens", {"wte": (0, 1)}, {"wte": [0, 1]}, id="a tuple of tokens for one module"),
        pytest.param("save_embedding_layers", True, "yes", id="as save_pretrained takes it"),
        pytest.param("save_embedding_layers", False, "no", id="left out as save_pretrained takes it"),
        pytest.param("base_precision", "bfloat16", "bf16", id="torch's name of a precision"),
        pytest.param("base_precision", "torch.float16", "fp16", id="torch's name with its module"),
        pytest.param("base_precision", "nf4", "nf4", id="a precision that is no dtype"),
        pytest.param("r", Octet(), 8, id="an integer of another library"),
        pytest.param("lora", SimpleNamespace(to_dict=lambda: {"r": 4}), {"r": 4}, id="a LoraConfig"),
        pytest.param("model", Path("some") / "folder", "some/folder", id="a path"),
        pytest.param("targets", r".*\.q_proj", r".*\.q_proj", id="a regex as it is"),
    ],
)
def test_python_values_become_what_the_command_line_takes(name, value, kept):
    assert getattr(to_request({name: value}), name) == kept


@pytest.mark.judges
def test_values_of_torch_and_peft_are_taken():
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    taken = to_request({"dtype": torch.bfloat16, "base_precision": torch.float16, "lora": peft.LoraConfig(r=4)})
    assert (taken.dtype, taken.base_precision, taken.lora["r"]) == ("torch.bfloat16", "fp16", 4)


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        pytest.param("rank", "it is called r here", id="another's name"),
        pytest.param("load_in_4bit", "it is called base_precision here: give nf4", id="another's switch"),
        pytest.param("target_modules", "belong in `lora`", id="a field of the adapter's config"),
        pytest.param("base-precision", "did you mean base_precision?", id="a hyphen"),
        pytest.param("format", "for the model, the adapter and the base", id="what is no part of a request"),
    ],
)
def test_an_unknown_name_shows_the_way_out(name, way_out):
    with pytest.raises(UsageError) as caught:
        to_request({name: 1})
    assert way_out in caught.value.way_out


@pytest.mark.parametrize(
    ("row", "says"),
    [
        pytest.param({"targets": [["q_proj"]]}, "targets is", id="a list of lists"),
        pytest.param({"targets": 5}, "targets is 5.", id="a number where names belong"),
        pytest.param({"token": 5}, "token is no text.", id="a token that is not repeated"),
        pytest.param({"r": 8.0}, "r is 8.0.", id="a number that is not whole"),
        pytest.param({"r": "8"}, "r is '8'.", id="a text where a number belongs"),
        pytest.param({"num_labels": 0}, "num_labels is 0", id="no labels"),
        pytest.param({"timeout": "1"}, "timeout is", id="a time in words"),
        pytest.param({"timeout": float("nan")}, "nan is no time", id="a time that is no number"),
        pytest.param({"timeout": float("inf")}, "inf is no time", id="a time without end"),
        pytest.param({"timeout": -1}, "-1 is no time", id="a time before now"),
        pytest.param({"target": "q"}, "no option 'target'", id="a typo"),
        pytest.param({"base_precision": "int3"}, "base_precision is", id="no such precision"),
    ],
)
def test_what_is_no_option_or_value_is_refused(row, says):
    with pytest.raises(UsageError) as caught:
        to_request(row)
    assert says in caught.value.what
    assert caught.value.way_out


@pytest.mark.parametrize(
    ("name", "value"),
    [("modules_to_save", ["lm_head", 3]), ("rank_pattern", {1: 2}), ("set", {3: 1})],
)
def test_names_that_are_no_texts_are_told_from_what_is_no_list(name, value):
    with pytest.raises(UsageError) as caught:
        to_request({name: value})
    assert caught.value.way_out == "give names, each of them a text"


def test_a_number_is_asked_for_once():
    with pytest.raises(UsageError) as caught:
        to_request({"timeout": "1"})
    assert caught.value.way_out == "give a number"


def test_a_token_is_not_repeated():
    with pytest.raises(UsageError) as caught:
        to_request({"token": ["hf_secret"]})
    assert "hf_secret" not in str(caught.value)
