"""Requests from mappings: a line of `batch`, the arguments of `estimator.estimate`."""

from __future__ import annotations

from pathlib import Path

import pytest

from estimator.errors import UsageError
from estimator.request.options import to_request


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        pytest.param("targets", ["q_proj", "v_proj"], "q_proj,v_proj", id="a list of names"),
        pytest.param("layers", [0, 1, 5], "0,1,5", id="a list of layers"),
        pytest.param("exclude", ("lm_head",), "lm_head", id="a tuple"),
        pytest.param("model", Path("some") / "folder", "some/folder", id="a path"),
        pytest.param("targets", r".*\.q_proj", r".*\.q_proj", id="a regex as it is"),
    ],
)
def test_python_values_become_what_the_command_line_takes(name, value, kept):
    assert getattr(to_request({name: value}), name) == kept


@pytest.mark.parametrize(
    ("row", "says"),
    [
        pytest.param({"targets": [["q_proj"]]}, "targets is", id="a list of lists"),
        pytest.param({"r": "8"}, "r is", id="a text where a number belongs"),
        pytest.param({"num_labels": 0}, "num_labels is 0", id="no labels"),
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
