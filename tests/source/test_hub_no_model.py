"""Repositories that are no model, and settings that are none."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from estimator.errors import (
    MalformedHeaderError,
    NetworkError,
    NotFoundError,
    NoWeightsError,
    UsageError,
)
from estimator.source.find import find
from estimator.source.hub import find_on_hub
from tests.hub.checks import shapes_of
from tests.hub.faults import refuse
from tests.hub.models import (
    CONFIG,
    TINY,
    Repo,
    config_file,
    text_file,
    tiny_sharded,
    tiny_single,
)
from tests.hub.standin import StandIn


@pytest.mark.parametrize(
    ("files", "words"),
    [
        pytest.param({"pytorch_model.bin": 7}, "pytorch_model.bin (7 bytes)", id="pickles alone"),
        pytest.param({"q4.gguf": 10, "q8.gguf": 20, "a.gguf": 1, "b.gguf": 2}, "33 bytes in all", id="GGUF alone"),
        pytest.param({"unet/config.json": 2, "vae/config.json": 2, "model_index.json": 2}, "unet, vae", id="diffusers"),
        pytest.param({"adapter_config.json": 2, "adapter_model.safetensors": 2}, "--adapter", id="an adapter"),
        pytest.param({"adapter_config.json": 2, "adapters.safetensors": 0}, "--adapter", id="an adapter of mlx-lm's"),
        pytest.param(
            {"consolidated.safetensors": 9}, "only consolidated.safetensors (9 bytes)", id="Mistral's own alone"
        ),
        pytest.param({"README.md": 2}, "neither config.json nor safetensors", id="a card alone"),
    ],
)
def test_a_repository_that_is_no_model_says_what_it_is(hub: StandIn, files: dict[str, int], words: str) -> None:
    hub.add(Repo("org/none", {path: text_file("x" * size) for path, size in files.items()}))
    with pytest.raises(NoWeightsError) as caught:
        find_on_hub("org/none")
    assert words in f"{caught.value.what} {caught.value.way_out}"


def test_a_config_without_safetensors_is_an_answer_with_the_sizes_of_the_others(hub: StandIn) -> None:
    config = {**CONFIG, "auto_map": {"AutoModel": "modeling.Evil"}}
    files = {
        "config.json": config_file(config),
        "pytorch_model.bin": text_file("x" * 99),
        "modeling.py": text_file("!"),
    }
    hub.add(Repo("org/old", files))
    found = find_on_hub("org/old")
    assert found.files == ()
    assert found.other_files == {"pytorch_model.bin": 99}
    assert [note.code for note in found.notes] == ["custom_code", "no_safetensors"]


def test_a_config_alone_on_a_mirror_without_lists(hub: StandIn) -> None:
    hub.add(Repo("org/config", {"config.json": config_file()}))
    hub.faults["tree"] = refuse(404)
    found = find_on_hub("org/config")
    assert (found.files, found.config) == ((), CONFIG)


def test_shards_without_an_index_have_to_be_all_there(hub: StandIn) -> None:
    files = {name: file for name, file in tiny_sharded().files.items() if not name.endswith(".index.json")}
    hub.add(Repo("org/whole", files))
    assert len(find_on_hub("org/whole").files) == 2
    del files["model-00002-of-00002.safetensors"]
    hub.add(Repo("org/half", files))
    with pytest.raises(MalformedHeaderError, match="1 of 2 shards"):
        find_on_hub("org/half")


def test_a_mistyped_id_that_the_hub_has_not_is_told_its_neighbour(hub: StandIn) -> None:
    with pytest.raises(NotFoundError) as caught:
        find("Qwen/Qwen2.5-7B-Instrukt", online=True)
    assert "did you mean Qwen/Qwen2.5-7B-Instruct" in caught.value.way_out


def test_a_bundled_model_that_the_hub_has_not_is_not_proposed_again(hub: StandIn) -> None:
    with pytest.raises(NotFoundError) as caught:
        find("gpt2", online=True)
    assert "did you mean" not in caught.value.way_out


def test_a_folder_that_is_not_there(hub: StandIn) -> None:
    hub.add(Repo("org/parts", {f"text/{path}": file for path, file in tiny_single().files.items()}))
    with pytest.raises(NotFoundError) as caught:
        find_on_hub("org/parts", subfolder="vision")
    assert "text" in caught.value.way_out


@pytest.mark.parametrize("subfolder", ["../other", "a/../../b", "/etc", "a\nb"])
def test_a_folder_outside(hub: StandIn, subfolder: str) -> None:
    with pytest.raises(UsageError):
        find_on_hub("org/tiny", subfolder=subfolder)
    assert hub.seen == []


@pytest.mark.parametrize(
    "endpoint", ["huggingface.co", "ftp://huggingface.co", "", "http://", "http://a:99999999", "file:///x"]
)
def test_an_endpoint_that_is_none(hub: StandIn, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    with pytest.raises(UsageError) as caught:
        find_on_hub("org/tiny")
    assert caught.value.where == "HF_ENDPOINT"


def test_an_endpoint_with_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub: StandIn) -> None:
    with StandIn([tiny_sharded(), tiny_single()], prefix="/mirror/hf", page=2) as mirror:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", mirror.endpoint)
        assert shapes_of(find_on_hub("org/tiny")) == TINY
        assert shapes_of(find_on_hub("org/single")) == TINY


def test_nobody_listens(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NetworkError) as caught:
        find_on_hub("org/tiny")
    assert "HF_ENDPOINT" in caught.value.way_out


def test_a_branch_with_odd_letters_is_quoted(hub: StandIn) -> None:
    with pytest.raises(NotFoundError) as caught:
        find_on_hub("org/tiny", revision="refs/pr/1?x=\x1b[31m")
    assert "\x1b" not in caught.value.what
    assert all("%3F" in seen.path for seen in hub.seen)


# Lists that go in circles


@pytest.mark.parametrize("number", [1, 60])
def test_a_list_without_end(hub: StandIn, number: int) -> None:
    count = itertools.count()

    def next_page(handler, right):  # noqa: ANN001, ANN202
        cursor = next(count) % number
        handler.json(200, [], {"Link": f'<{hub.endpoint}/api/models/org/ranged/tree/x?cursor={cursor}>; rel="next"'})

    hub.faults["tree"] = next_page
    hub.add(Repo("org/list", {"README.md": text_file("")}))
    with pytest.raises(NetworkError) as caught:
        find_on_hub("org/list")
    assert "pages" in caught.value.what
    assert hub.routes().count("tree") <= 51


@pytest.mark.parametrize("revision", ["..", ".", "a\nb", "\x1b[2J", "\u202e", "a" * 256])
def test_what_can_be_no_revision_is_not_asked_for(hub: StandIn, revision: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        find_on_hub("org/tiny", revision=revision)
    assert caught.value.what.isprintable()
    assert hub.seen == []


@pytest.mark.parametrize(
    "proxy", [pytest.param("::::", id="no address"), pytest.param("ftp://proxy", id="no proxy's scheme")]
)
def test_a_proxy_that_is_none(hub: StandIn, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    from huggingface_hub import close_session

    close_session()
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(UsageError) as caught:
        find_on_hub("org/tiny")
    assert "PROXY" in caught.value.where
    monkeypatch.undo()
    close_session()
