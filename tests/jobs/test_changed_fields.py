"""Models that do not exist: fields of config.json changed by --set."""

from __future__ import annotations

import pytest

from estimator.errors import LoraSizeError
from estimator.jobs.estimate import estimate
from estimator.report.document import to_document
from estimator.request.request import Request


def answer(**changes):
    return to_document(estimate(Request(model="llama-3.1-8b", r=8, targets="q_proj", set=changes)))


def test_a_longer_model_has_more_of_each():
    before, after = answer(), answer(num_hidden_layers=48)
    assert after["adapter"]["parameters"] == before["adapter"]["parameters"] * 48 // 32
    assert after["base"]["parameters"] - before["base"]["parameters"] == 16 * 218_112_000
    assert after["model"]["shapes"] == "config"


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        pytest.param("hidden_sizes", 48, "Did you mean hidden_size?", id="a typo"),
        pytest.param("colour", "blue", "depends on it.", id="no such field"),
        pytest.param("rope_theta", 10_000.0, "depends on it.", id="a field that config.json has"),
        pytest.param("rope_teta", 10_000.0, "Did you mean rope_theta?", id="a typo of one that no shape depends on"),
        pytest.param("num_hidden_layers", 4, None, id="a field that counts"),
        pytest.param("dtype", "float16", None, id="what sizes bytes alone"),
    ],
)
def test_a_field_without_effect_is_said(field, value, hint):
    notes = [note["message"] for note in answer(**{field: value})["notes"] if note["code"] == "field_without_effect"]
    assert len(notes) == (hint is not None)
    assert hint is None or notes[0].endswith(hint)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("num_hidden_layers", "many", id="a text where a number belongs"),
        pytest.param("architectures", 5, id="a number where classes belong"),
        pytest.param("architectures", "LlamaForCausalLM", id="a class that stands in no list"),
        pytest.param("model_type", 5, id="a number where a name belongs"),
        pytest.param("tie_word_embeddings", "perhaps", id="a switch that is none"),
    ],
)
def test_a_value_of_another_type_is_refused(field, value):
    with pytest.raises(LoraSizeError) as caught:
        answer(**{field: value})
    assert (caught.value.code, f"{field} is '{value}'" in caught.value.what) == ("malformed_config", True)


def test_a_field_that_config_json_holds_under_the_name_that_wins_is_refused():
    with pytest.raises(LoraSizeError, match="num_hidden_layers as well") as caught:
        estimate(Request(model="gpt2", r=8, set={"n_layer": 3, "num_hidden_layers": 12}))
    assert (caught.value.code, caught.value.where) == ("usage", "--set n_layer")


@pytest.mark.parametrize("field", ["dtype", "torch_dtype", "text_config.dtype"])
def test_what_names_no_dtype_is_refused(field):
    with pytest.raises(LoraSizeError, match="'bogus' is no dtype") as caught:
        answer(**{field: "bogus"})
    assert (caught.value.code, caught.value.where) == ("usage", f"--set {field}")
