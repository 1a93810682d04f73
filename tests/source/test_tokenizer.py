"""How many tokens a tokenizer's files tell, and what is said where they tell nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from estimator.errors import LoraSizeError
from estimator.source.cache import settle
from estimator.source.tokenizer import vocabulary_size
from tests.hub.faults import bomb, cut, endless, go_to, header, refuse, say, silence, times
from tests.hub.handler import Fault
from tests.hub.models import COMMIT, OLDER, Repo, text_file
from tests.hub.standin import TOKEN, StandIn


def put(folder: Path, files: dict[str, Any]) -> str:
    for name, content in files.items():
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
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
        pytest.param({"vocab.txt": "a\u2028b\nc\x0cd\x1de\nf"}, 3, id="signs that end a line in Unicode alone"),
        pytest.param({"vocab.txt": "a\n\na \r\n \u00a0\n"}, 2, id="an empty token, and spaces behind one"),
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
        pytest.param({"vocab.txt": b"a\n\xff\n"}, "malformed_config", id="a vocab.txt that is not UTF-8"),
        pytest.param({"vocab.json": []}, "malformed_config", id="a list for an object"),
        pytest.param({"tokenizer.json": []}, "malformed_config", id="no object at all"),
        pytest.param({"tokenizer.json": {"model": 7}}, "malformed_config", id="a number for a model"),
        pytest.param({"tokenizer.json": {"model": {"vocab": ["ab", "ac"]}}}, "malformed_config", id="words for pairs"),
        pytest.param({"tokenizer.json": {"model": {"vocab": [[], 7]}}}, "malformed_config", id="empty pairs"),
        pytest.param({"tokenizer.json": {**BPE, "added_tokens": {"a": 1}}}, "malformed_config", id="an object added"),
        pytest.param({"tokenizer.json": {**BPE, "added_tokens": [7]}}, "malformed_config", id="a number added"),
        pytest.param({"tokenizer.json": {**BPE, "added_tokens": [{"content": []}]}}, "malformed_config", id="a list"),
        pytest.param({"tokenizer.json": BPE, "added_tokens.json": [1]}, "malformed_config", id="numbers added"),
        pytest.param(
            {"tokenizer.json": BPE, "tokenizer_config.json": {"added_tokens_decoder": [1]}},
            "malformed_config",
            id="a list for the decoder",
        ),
        pytest.param({"tokenizer.json": "[" * 200_000}, "malformed_config", id="nested 200,000 deep"),
        pytest.param({"tokenizer.json": '{"model":{"vocab":{"a":NaN}}}'}, "malformed_config", id="NaN"),
        pytest.param({"tokenizer.json": '{"a":[' + "{}," * 6_000_000 + "{}]}"}, "malformed_config", id="18 MB of {}"),
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


@pytest.mark.parametrize("name", ["/nowhere", "./nowhere/words", "~/nowhere", "a/b/tokenizer.json"])
def test_a_path_that_is_not_there_is_not_asked_of_the_hub(name: str) -> None:
    with pytest.raises(LoraSizeError, match="no file or folder") as caught:
        vocabulary_size(name)
    assert caught.value.code == "not_found"


def tokenizer_repo(**more: Any) -> Repo:
    files = {"tokenizer.json": BPE, "added_tokens.json": {"<end>": 3}}
    return Repo("org/words", {name: text_file(json.dumps(content)) for name, content in files.items()}, **more)


def test_a_tokenizer_on_the_hub_is_read_once_and_kept(hub: StandIn) -> None:
    hub.add(tokenizer_repo())
    assert vocabulary_size("org/words") == 4
    hub.seen.clear()
    assert vocabulary_size("org/words") == 4
    assert {seen.route for seen in hub.seen} == {"resolve other"}  # asked where the branch stands, nothing more
    hub.seen.clear()
    assert vocabulary_size("org/words", offline=True) == 4
    assert hub.seen == []


def test_a_damaged_tokenizer_is_not_kept(hub: StandIn, tmp_path: Path) -> None:
    hub.add(tokenizer_repo())
    hub.faults["cached other"] = say(b"<html>log in</html>")
    with pytest.raises(LoraSizeError, match="not JSON"):
        vocabulary_size("org/words")
    assert not [path for path in tmp_path.rglob("*.json") if path.is_file()]
    del hub.faults["cached other"]
    assert vocabulary_size("org/words") == 4


def test_a_tokenizers_files_are_of_one_commit(hub: StandIn) -> None:
    def push(handler: object, right: Callable[[], None]) -> None:
        right()
        files = {"tokenizer.json": text_file(json.dumps(BPE)), "added_tokens.json": text_file('{"<a>": 3, "<b>": 4}')}
        hub.add(Repo("org/words", files, commit=OLDER, older={COMMIT: tokenizer_repo().files}))

    hub.add(tokenizer_repo())
    hub.faults["cached other"] = push
    assert vocabulary_size("org/words") == 4


def test_a_tokenizer_of_a_cache_that_cannot_be_written(hub: StandIn, tmp_path: Path) -> None:
    hub.add(tokenizer_repo())
    (tmp_path / "cache").write_text("in the way")
    assert vocabulary_size("org/words") == 4


def test_the_token_reads_a_private_tokenizer(hub: StandIn, tmp_path: Path) -> None:
    hub.add(tokenizer_repo(private=True))
    assert vocabulary_size("org/words", token=TOKEN) == 4
    settle()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("route", "fault", "code", "words"),
    [
        pytest.param("resolve other", refuse(401, "RepoNotFound"), "not_found", "log in", id="missing or private"),
        pytest.param("resolve other", refuse(403, "GatedRepo"), "gated", "ask for access", id="gated"),
        pytest.param("resolve other", refuse(404, "EntryNotFound"), "not_found", "holds none of", id="no such file"),
        pytest.param("resolve other", refuse(429, retry_after=900), "network", "900 seconds", id="limited"),
        pytest.param("resolve other", refuse(500), "network", "500", id="fails each time"),
        pytest.param("resolve other", silence(60), "network", "longer than the time", id="never answers"),
        pytest.param("resolve other", go_to("file:///etc/passwd"), "network", "not followed", id="to a file"),
        pytest.param("resolve other", go_to("http://10.0.0.1/"), "network", "private", id="into a private network"),
        pytest.param("cached other", header("X-Repo-Commit", "b" * 40), "network", "bbbb", id="of another commit"),
        pytest.param("cached other", endless(b"a", pause=0.05), "network", "longer than the time", id="drips"),
        pytest.param("cached other", endless(b" " * 1_000_000), "malformed_config", "too large", id="without end"),
        pytest.param("cached other", bomb(), "malformed_config", "too large", id="a bomb"),
        pytest.param("cached other", cut(9), "network", "not reached", id="cut off each time"),
    ],
)
def test_a_tokenizer_that_the_hub_does_not_give(hub: StandIn, route: str, fault: Fault, code: str, words: str) -> None:
    hub.add(tokenizer_repo())
    hub.faults[route] = fault
    begun = time.monotonic()
    timeout = 1.0 if "time" in words else 8.0
    with pytest.raises(LoraSizeError) as caught:
        vocabulary_size("org/words", timeout=timeout)
    assert time.monotonic() - begun < timeout + 2
    assert (caught.value.code, caught.value.where) == (code, "--tokenizer org/words")
    assert words in f"{caught.value.what} {caught.value.way_out}"
    assert "--vocab-size" in caught.value.way_out


def test_a_tokenizer_that_fails_once(hub: StandIn) -> None:
    hub.add(tokenizer_repo())
    hub.faults["cached other"] = times(1, cut(9))
    assert vocabulary_size("org/words") == 4
