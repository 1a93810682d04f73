"""Who answers for a name, and what a mistyped one is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from estimator.errors import LoraSizeError, UsageError
from estimator.source.find import closest_names, find
from estimator.source.find_adapter import find_adapter
from estimator.source.place import is_id
from estimator.source.snapshot import find_in_snapshot, known_models


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        pytest.param("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B", id="the id"),
        pytest.param("meta-llama/llama-3.1-8b", "meta-llama/Llama-3.1-8B", id="the id in small letters"),
        pytest.param("llama-3.1-8b", "meta-llama/Llama-3.1-8B", id="an alias"),
        pytest.param("qwen2.5-7b-instruct", "Qwen/Qwen2.5-7B-Instruct", id="an alias with dots"),
        pytest.param("mistral-7b-v0.3", "mistralai/Mistral-7B-v0.3", id="an alias with a version"),
        pytest.param("gpt2", "openai-community/gpt2", id="an alias that others begin with"),
        pytest.param("meta-llama/Meta-Llama-3.1-8B", "meta-llama/Llama-3.1-8B", id="the Hub's older id"),
    ],
)
def test_a_bundled_model_is_found(name: str, id_: str) -> None:
    found = find(name)
    assert (found.id, found.source, found.revision) == (id_, "snapshot", None)
    assert found.config["architectures"]


def test_every_bundled_name_finds_its_model_and_no_name_is_two_models() -> None:
    ids: dict[str, set[str]] = {}
    for known in known_models():
        for name in (known.id, *known.aliases):
            ids.setdefault(name.lower(), set()).add(known.id)
    assert [name for name, models in ids.items() if len(models) > 1] == []
    assert all({find_in_snapshot(name).id} == models for name, models in list(ids.items())[::25])


@pytest.mark.parametrize("name", ["", "llama", "llama-3.1-8b\t", "a,b", "no-such-model"])
def test_what_is_not_bundled_is_none(name: str) -> None:
    assert find_in_snapshot(name) is None


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        pytest.param("llama-3.1-8", "not_found", "meta-llama/Llama-3.1-8B", id="a letter short"),
        pytest.param("lama-3.1-8b", "not_found", "meta-llama/Llama-3.1-8B", id="a typo"),
        pytest.param("./nowhere", "not_found", "check the spelling", id="a path that is not there"),
        pytest.param("a/b/c", "not_found", "lora-size models", id="two slashes"),
        pytest.param("with space", "not_found", "", id="a space"),
        pytest.param("org/name", "offline", "", id="a Hub id that is not cached"),
        pytest.param("meta-lama/Llama-3.1-8B", "offline", "meta-llama/Llama-3.1-8B", id="a typo in an id"),
        pytest.param("https://huggingface.co/gpt2", "not_found", "--model gpt2", id="an address"),
        pytest.param("https://huggingface.co/a/b/tree/main", "not_found", "--model a/b", id="the address of a page"),
        pytest.param("huggingface.co/a/b", "not_found", "--model a/b", id="an address without its scheme"),
        pytest.param("https://hf.co/a/b.git", "not_found", "--model a/b", id="the address that git clones"),
        pytest.param("a/b.git", "not_found", "--model a/b", id="an id as git clones it"),
        pytest.param("meta-llama/Llama-3.1-8B.git", "not_found", "its id: --model meta-", id="the id of a known model"),
        pytest.param("@main", "not_found", "org/name@revision", id="a revision of nothing"),
        pytest.param("a/b/", "not_found", "--model a/b", id="an id with a slash behind it"),
        pytest.param("models\\llama", "not_found", "check the spelling", id="a path of Windows"),
        pytest.param("C:/models/llama", "not_found", "check the spelling", id="a path of Windows with slashes"),
    ],
)
def test_a_name_that_is_not_known_without_a_network(
    name: str, code: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(LoraSizeError) as caught:
        find(name, offline=True)
    assert caught.value.code == code
    assert caught.value.exit_code == 3
    assert says in caught.value.way_out


def test_the_neighbours_of_a_name_are_ids() -> None:
    assert closest_names("qwen2.5-7b-instuct")[0] == "Qwen/Qwen2.5-7B-Instruct"
    assert closest_names("zzzzzzzzzz") == []


def test_offline_and_online_contradict() -> None:
    with pytest.raises(LoraSizeError, match="contradict"):
        find("gpt2", offline=True, online=True)


@pytest.mark.parametrize("search", [find, find_adapter])
def test_two_revisions_contradict(search: Callable[..., object]) -> None:
    with pytest.raises(LoraSizeError, match="'v1', and --revision 'v2'"):
        search("org/name@v1", revision="v2", offline=True)


@pytest.mark.parametrize("search", [find, find_adapter])
@pytest.mark.parametrize("name", ["org/name@", "gpt2@", "gpt2@ "])
def test_a_revision_that_nobody_set_is_not_the_default(search: Callable[..., object], name: str) -> None:
    with pytest.raises(UsageError, match="names no revision behind its @"):
        search(name, offline=True)


@pytest.mark.parametrize(
    ("path", "way_out"),
    [
        ("/no/such/Qwen2.5-7B-Instruct/", "or --model Qwen/Qwen2.5-7B-Instruct, if that lay there"),
        ("C:\\models\\qwen2.5-7b-instruct", "or --model Qwen/Qwen2.5-7B-Instruct, if that lay there"),
        ("./my-model", "a model of the Hub is named org/name"),
    ],
)
def test_a_missing_folder_named_for_a_model(path: str, way_out: str) -> None:
    with pytest.raises(LoraSizeError, match="there is no folder") as caught:
        find(path)
    assert caught.value.way_out == f"check the spelling; {way_out}"


@pytest.mark.parametrize("target", ["nowhere", "link"], ids=["to nothing", "to itself"])
def test_a_link_that_leads_nowhere_is_not_asked_of_the_hub(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(target)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LoraSizeError, match="link is a link that leads nowhere") as caught:
        find("link")
    assert caught.value.code == "not_found"


def test_an_empty_folder_that_hides_a_bundled_model_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    ways = {}
    for name in ("gpt2", "other"):
        with pytest.raises(LoraSizeError, match="holds neither config.json") as caught:
            find(name)
        ways[name] = caught.value.way_out
    assert ways["gpt2"] == f"{ways['other']}; or --model openai-community/gpt2, which this folder hides"


def test_a_folder_has_no_revisions(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    codes = {
        revision: [note.code for note in find(str(tmp_path), revision=revision).notes] for revision in (None, "v1")
    }
    assert codes == {None: [], "v1": ["revision_without_effect"]}


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        pytest.param("org/name", True, id="an owner and a name"),
        pytest.param("a" * 96, True, id="96 characters"),
        pytest.param("a" * 97, False, id="97 characters"),
        pytest.param("_a/0-b.c", True, id="signs inside"),
        pytest.param("-a", False, id="a hyphen in front"),
        pytest.param("org/a.", False, id="a dot at the end"),
        pytest.param("a--b", False, id="two hyphens"),
        pytest.param("a..b", False, id="two dots"),
        pytest.param("org/name.git", False, id="the address that git takes"),
        pytest.param("a/b/c", False, id="two slashes"),
        pytest.param("\u00e9", False, id="a letter beyond ASCII"),
        pytest.param("a\n", False, id="the end of a line"),
    ],
)
def test_what_can_be_an_id_is_what_huggingface_hub_takes(text: str, is_one: bool) -> None:
    assert is_id(text) == is_one
    if is_one:
        validate_repo_id(text)
    else:
        with pytest.raises(HFValidationError):
            validate_repo_id(text)


def test_what_is_neither_a_file_nor_a_folder() -> None:
    with pytest.raises(LoraSizeError, match="/dev/null is neither a file nor a folder"):
        find("/dev/null")


@pytest.mark.parametrize("name", ["model.gguf", "org/name"])
def test_a_local_file_is_not_asked_of_the_hub(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("no model")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LoraSizeError, match="neither a folder") as caught:
        find(name)
    assert caught.value.code == "not_found"
