"""How many tokens a tokenizer's files tell, and what is said where they tell nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from estimator.errors import LoraSizeError
from estimator.source.tokenizer import vocabulary_size


def put(folder: Path, files: dict[str, Any]) -> str:
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder)


BPE = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"content": "b"}, {"content": "<pad>"}]}
DECODER = {"added_tokens_decoder": {"3": {"content": "<x>"}, "1": {"content": "b"}}}


@pytest.mark.parametrize(
    ("files", "size"),
    [
        pytest.param({"tokenizer.json": BPE}, 3, id="an added token counts unless the vocabulary has it"),
        pytest.param({"tokenizer.json": {"model": {"vocab": [["a", -1.0], ["b", -2.0]]}}}, 2, id="Unigram's list"),
        pytest.param({"vocab.json": {"a": 0}, "added_tokens.json": {"<pad>": 1}}, 2, id="vocabulary and added tokens"),
        pytest.param({"vocab.txt": "a\nb\nc\n"}, 3, id="a token a line"),
        pytest.param(
            {"vocab.txt": "a\nb\n", "tokenizer_config.json": DECODER}, 3, id="tokens of tokenizer_config.json"
        ),
    ],
)
def test_tokens_are_counted_once(tmp_path: Path, files: dict[str, Any], size: int) -> None:
    assert vocabulary_size(put(tmp_path, files)) == size


@pytest.mark.parametrize(
    ("files", "code"),
    [
        pytest.param({}, "not_found", id="an empty folder"),
        pytest.param({"tokenizer.json": "{"}, "malformed_config", id="broken JSON"),
        pytest.param({"tokenizer.json": {"model": {}}}, "malformed_config", id="no vocabulary"),
        pytest.param({"vocab.json": []}, "malformed_config", id="a list for an object"),
    ],
)
def test_files_that_tell_nothing(tmp_path: Path, files: dict[str, Any], code: str) -> None:
    with pytest.raises(LoraSizeError) as caught:
        vocabulary_size(put(tmp_path, files))
    assert caught.value.code == code
    assert "--vocab-size" in caught.value.way_out


def test_a_repository_that_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(LoraSizeError) as caught:
        vocabulary_size("org/name", offline=True)
    assert caught.value.exit_code == 3
