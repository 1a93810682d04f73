"""Flags as fields of LoraConfig, and the ones that can't be read."""

from __future__ import annotations

from typing import Any

import pytest

from estimator.errors import UsageError
from estimator.request.flags import lora_fields, names_in, parse_layers, parse_rank_pattern, parse_set
from estimator.request.options import to_request
from estimator.request.request import Request


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        pytest.param({}, {}, id="nothing given, nothing set"),
        pytest.param({"r": 0}, {"r": 0}, id="a rank of 0 is PEFT's to refuse"),
        pytest.param({"exclude": "lm_head, score"}, {"exclude_modules": ["lm_head", "score"]}, id="names"),
        pytest.param({"exclude": "re:.*vision.*"}, {"exclude_modules": ".*vision.*"}, id="a regular expression"),
        pytest.param({"layers": "0-2,7"}, {"layers_to_transform": [0, 1, 2, 7]}, id="layers"),
        pytest.param({"dora": False}, {"use_dora": False}, id="a switch turned off"),
        pytest.param({"modules_to_save": ["embed_tokens"]}, {"modules_to_save": ["embed_tokens"]}, id="a list stays"),
        pytest.param({"trainable_tokens": "0,5"}, {"trainable_token_indices": [0, 5]}, id="tokens"),
        pytest.param({"trainable_tokens": "wte=1;lm_head=3"}, {"trainable_token_indices": {"wte": [1], "lm_head": [3]}},
                     id="tokens by module"),
        pytest.param({"task": "SEQ_CLS"}, {"task_type": "SEQ_CLS"}, id="task"),
        pytest.param({"task": "seq_cls"}, {"task_type": "SEQ_CLS"}, id="a task as the command line has it"),
    ],
)  # fmt: skip
def test_flags_become_fields(options: dict[str, Any], fields: dict[str, Any]) -> None:
    assert lora_fields(Request(**options)) == fields


@pytest.mark.parametrize(
    ("value", "names"),
    [(None, None), ("", []), (" , ", []), ("lm_head, score,", ["lm_head", "score"]), (["a, b"], ["a, b"])],
)
def test_names_between_commas(value: object, names: list[str] | None) -> None:
    assert names_in(value) == names


@pytest.mark.parametrize("text", ["", "a", "3-1", "-1", "1-", "1,,2", "0-999999999", "1.5"])
def test_layers_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        parse_layers(text)


@pytest.mark.parametrize("pair", ["", "q_proj", "=8", "q_proj=", "q_proj=x", "q_proj=1.5", "q_proj=" + "9" * 30])
def test_rank_patterns_that_cannot_be_read(pair: str) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        parse_rank_pattern([pair])


def test_what_is_given_twice_is_refused() -> None:
    def tokens(pairs: list[str]) -> object:
        return lora_fields(Request(trainable_tokens=";".join(pairs)))

    for read, pairs in (
        (parse_rank_pattern, ["q=4", "k=4", "q=8"]),
        (parse_set, ["n=1", "n=2"]),
        (tokens, ["wte=0", "lm_head=0", "wte=1"]),
    ):
        with pytest.raises(UsageError, match="can't be read") as caught:
            read(pairs)
        assert "already" in caught.value.way_out


def test_a_rank_patterns_key_may_hold_an_equals_sign() -> None:
    assert parse_rank_pattern(["(?=.*q)q_proj=4"]) == {"(?=.*q)q_proj": 4}


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("n=48", 48),
        ("n=true", True),
        ("n=null", None),
        ("n=bf16", "bf16"),
        ("n=[1,2]", [1, 2]),
        ("n=", ""),
        ("a.b=1", 1),
    ],
)
def test_set_reads_json_and_else_text(pair: str, value: Any) -> None:
    assert parse_set([pair]) == {pair.partition("=")[0]: value}


@pytest.mark.parametrize("pair", ["", "n", "=3", "a..b=1", ".a=1"])
def test_set_that_cannot_be_read(pair: str) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        parse_set([pair])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        pytest.param({"modle": "x"}, "did you mean model", id="a typo in a name"),
        pytest.param({"target_modules": []}, "belong in `lora`", id="a LoraConfig field beside lora"),
        pytest.param({"r": "8"}, "give a whole number", id="a number as text"),
        pytest.param({"r": True}, "give a whole number", id="a boolean where a number belongs"),
        pytest.param({"lora": []}, "give an object", id="lora as a list"),
        pytest.param({"tokenizer": " "}, "name one, or leave it out", id="a name that is empty"),
        pytest.param({"base_precision": "int7"}, "one of stored", id="a precision that is none"),
        pytest.param({"skip_modules": [1]}, "give names, each of them a text", id="a number where names belong"),
        pytest.param({"rank_pattern": {1: 2}}, "give names, each of them a text", id="a number where a name belongs"),
        pytest.param({"num_labels": 10_000_001}, "10,000,000", id="more labels than there may be"),
    ],
)
def test_options_that_cannot_be_read(row: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        to_request(row)
    assert says in caught.value.way_out
