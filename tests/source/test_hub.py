"""What a reader of the Hub gets, from where, and with how many requests."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from estimator.checkpoint.index import to_checkpoint
from estimator.errors import (
    GatedError,
    LoraSizeError,
    MalformedConfigError,
    MalformedHeaderError,
    NetworkError,
    NotFoundError,
    NoWeightsError,
    OfflineError,
    UsageError,
)
from estimator.source import ahead
from estimator.source.found import Found
from estimator.source.hub import find_on_hub
from estimator.source.hub_adapter import find_adapter_on_hub
from tests.hub.faults import header, refuse, silence
from tests.hub.models import (
    CONFIG,
    TINY,
    Repo,
    config_file,
    header_of,
    sharded,
    text_file,
    tiny_sharded,
    tiny_single,
    weights_file,
)
from tests.hub.standin import TOKEN, StandIn

COMMIT, OLDER = "a" * 40, "c" * 40
LORA = {"base_model.model.q.lora_A.weight": ("F32", (8, 64)), "base_model.model.q.lora_B.weight": ("F32", (64, 8))}


def shapes_of(found: Found) -> dict[str, tuple[str, tuple[int, ...]]]:
    checkpoint = to_checkpoint(found.files, found.index)
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in checkpoint.tensors.values()}


def add(hub: StandIn, repo: Repo) -> None:
    hub.repos[repo.id] = repo


def test_all_headers_come_in_one_round_trip(hub: StandIn) -> None:
    found = find_on_hub("org/tiny")
    assert (found.id, found.revision, found.source) == ("org/tiny", COMMIT, "hub")
    assert found.config == CONFIG
    assert shapes_of(found) == TINY
    assert sorted(hub.routes()) == ["cached config", "metadata", "resolve config", "tree"]
    assert hub.connections["cdn"] == 0


def test_sizes_are_known_to_the_byte(hub: StandIn) -> None:
    checkpoint = to_checkpoint(find_on_hub("org/tiny").files)
    assert all(file.expected_bytes == file.actual_bytes for file in checkpoint.files)
    assert sum(file.actual_bytes or 0 for file in checkpoint.files) == sum(
        file.size for path, file in hub.repos["org/tiny"].files.items() if path.endswith(".safetensors")
    )


@pytest.mark.parametrize("id_", ["org/single", "org/ranged"])
def test_without_the_endpoint_the_files_are_read_by_ranges(hub: StandIn, id_: str) -> None:
    found = find_on_hub(id_)
    assert shapes_of(found) == TINY
    assert all(file.actual_bytes for file in found.files)
    assert "cdn" in hub.routes()


def test_the_rest_of_a_long_header_comes_from_the_address_of_its_first_part(hub: StandIn) -> None:
    tensors = {f"model.layers.{number}.weight": ("F16", (3, 5)) for number in range(2_000)}
    add(hub, Repo("org/long", {"config.json": config_file(), "model.safetensors": weights_file(header_of(tensors))}))
    assert shapes_of(find_on_hub("org/long")) == tensors
    assert hub.routes().count("resolve shard") == 1
    assert hub.routes().count("cdn") == 2


def test_a_server_that_knows_no_ranges_is_read_no_further_than_needed(hub: StandIn) -> None:
    def whole(handler, right):  # noqa: ANN001, ANN202
        del handler.headers["Range"]
        right()

    hub.faults["cdn"] = whole
    big = weights_file(header_of({"w": ("F32", (1_000, 1_000, 1_000))}))
    add(hub, Repo("org/big", {"config.json": config_file(), "model.safetensors": big}))
    assert to_checkpoint(find_on_hub("org/big").files).bytes == 4_000_000_000
    assert max(seen.sent for seen in hub.seen) < 50_000_000


def test_the_single_file_wins_over_the_shards_as_in_from_pretrained(hub: StandIn) -> None:
    files = {**sharded({"other": ("F32", (2, 2))}, 1), **tiny_single().files}
    add(hub, Repo("org/both", files))
    assert shapes_of(find_on_hub("org/both")) == TINY


def test_shards_without_an_index(hub: StandIn) -> None:
    files = {path: file for path, file in tiny_sharded().files.items() if not path.endswith("index.json")}
    add(hub, Repo("org/plain", files))
    assert shapes_of(find_on_hub("org/plain")) == TINY


def test_a_subfolder(hub: StandIn) -> None:
    inner = {f"text/{path}": file for path, file in tiny_sharded().files.items()}
    add(hub, Repo("org/parts", {"README.md": text_file(""), **inner}))
    assert shapes_of(find_on_hub("org/parts", subfolder="text")) == TINY
    assert shapes_of(find_on_hub("org/parts", subfolder="text/", revision=COMMIT)) == TINY


def test_lists_of_many_pages(hub: StandIn) -> None:
    many = {f"data/{number:04}.txt": text_file("x") for number in range(57)}
    files = {**many, **tiny_single().files}
    hub.page = 10
    add(hub, Repo("org/many", files))
    assert shapes_of(find_on_hub("org/many")) == TINY
    assert hub.routes().count("tree") == 6


def test_an_older_commit_is_read_by_ranges(hub: StandIn) -> None:
    older = {"config.json": config_file(), "model.safetensors": weights_file(header_of({"w": ("F32", (2, 2))}))}
    add(hub, Repo("org/moved", tiny_sharded().files, older={OLDER: older}))
    found = find_on_hub("org/moved", revision=OLDER)
    assert found.revision == OLDER
    assert shapes_of(found) == {"w": ("F32", (2, 2))}
    assert "metadata" not in hub.routes()


def test_a_renamed_repository_is_found_under_its_new_name(hub: StandIn) -> None:
    hub.renamed["old/tiny"] = "org/tiny"
    assert find_on_hub("old/tiny").id == "org/tiny"


def test_a_header_written_in_another_way_is_held_against_the_file(hub: StandIn) -> None:
    files = {"config.json": config_file(), **sharded(TINY, 2)}
    for path in [path for path in files if path.endswith(".safetensors")]:
        tensors = {name: entry for name, entry in TINY.items() if name.encode() in files[path].head}
        files[path] = weights_file(header_of(tensors, separators=(", ", " : ")) + b" " * 100)
    add(hub, Repo("org/spaced", files))
    assert shapes_of(find_on_hub("org/spaced")) == TINY
    assert "cdn" in hub.routes()


# What is cached


def test_a_commit_is_asked_for_once(hub: StandIn) -> None:
    first = find_on_hub("org/tiny")
    hub.seen.clear()
    again = find_on_hub("org/tiny", revision=COMMIT)
    assert hub.seen == []
    assert again.source == "cache"
    assert shapes_of(again) == shapes_of(first)
    assert (again.config, again.other_files, again.revision) == (first.config, first.other_files, COMMIT)
    assert [file.actual_bytes for file in again.files] == [file.actual_bytes for file in first.files]


@pytest.mark.parametrize("id_", ["org/tiny", "org/single", "org/ranged"])
def test_a_branch_costs_one_request(hub: StandIn, id_: str) -> None:
    find_on_hub(id_)
    hub.seen.clear()
    assert find_on_hub(id_).source == "cache"
    assert hub.routes() == ["resolve config"]


def test_a_branch_that_moved_is_read_anew(hub: StandIn) -> None:
    find_on_hub("org/tiny")
    add(hub, tiny_single("org/tiny", commit=OLDER))
    found = find_on_hub("org/tiny")
    assert (found.revision, found.source, len(found.files)) == (OLDER, "hub", 1)
    assert find_on_hub("org/tiny", offline=True).revision == OLDER
    assert find_on_hub("org/tiny", revision=COMMIT, offline=True).revision == COMMIT


def test_offline_answers_from_the_cache_alone(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    find_on_hub("org/tiny")
    hub.seen.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert shapes_of(find_on_hub("org/tiny")) == TINY
    assert hub.seen == []


def test_offline_says_what_is_cached(hub: StandIn) -> None:
    find_on_hub("org/tiny")
    with pytest.raises(OfflineError) as caught:
        find_on_hub("org/single", offline=True)
    assert "org/tiny" in caught.value.way_out
    with pytest.raises(OfflineError) as caught:
        find_on_hub("org/tiny", revision="dev", offline=True)
    assert "'dev'" in caught.value.what


def snapshot(cache: Path, repo: Repo, *, without: str = "nothing") -> None:
    """Files as huggingface_hub lays them down."""
    folder = cache / ("models--" + repo.id.replace("/", "--"))
    for path, file in repo.files.items():
        if without not in path:
            target = folder / "snapshots" / repo.commit / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.part(0, file.size - 1))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(repo.commit)


def test_weights_downloaded_by_others_answer_offline(hub: StandIn, tmp_path: Path) -> None:
    snapshot(tmp_path / "cache", tiny_sharded("org/theirs"))
    found = find_on_hub("org/theirs", offline=True)
    assert (found.id, found.revision, found.source) == ("org/theirs", COMMIT, "cache")
    assert shapes_of(found) == TINY
    assert find_on_hub("org/theirs", revision=COMMIT).source == "cache"
    assert hub.seen == []


def test_half_downloaded_weights_are_not_taken_for_the_whole(hub: StandIn, tmp_path: Path) -> None:
    snapshot(tmp_path / "cache", tiny_sharded("org/half"), without="00002-of")
    found = find_on_hub("org/half", offline=True)
    assert found.files == ()
    assert [note.code for note in found.notes] == ["weights_not_cached"]


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.entry"))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda text: b"", id="emptied"),
        pytest.param(lambda text: text[:-1], id="a byte short"),
        pytest.param(lambda text: text + b" ", id="a byte long"),
        pytest.param(lambda text: text[: len(text) // 2], id="half"),
        pytest.param(lambda text: text.replace(b"BF16", b"BF17"), id="another dtype"),
        pytest.param(lambda text: text.replace(b'"folder": ""', b'"folder": 7 '), id="another folder"),
        pytest.param(lambda text: text.replace(b"lora-size 1", b"lora-size 2"), id="a version to come"),
        pytest.param(lambda text: b"\0" * len(text), id="zeros after a power cut"),
        pytest.param(lambda text: b"lora-size 1 zzzzzzzz\n{}", id="no sum"),
    ],
)
def test_a_damaged_entry_is_replaced(hub: StandIn, tmp_path: Path, damage) -> None:  # noqa: ANN001
    find_on_hub("org/tiny")
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    with pytest.raises(OfflineError):
        find_on_hub("org/tiny", offline=True)
    assert find_on_hub("org/tiny").source == "hub"
    assert entry.read_bytes() == whole


@pytest.mark.parametrize("in_the_way", ["a file", "a folder"])
def test_a_cache_that_cannot_be_written_is_no_error(hub: StandIn, tmp_path: Path, in_the_way: str) -> None:
    if in_the_way == "a file":
        (tmp_path / "cache").write_text("not a folder")
    else:
        find_on_hub("org/tiny")
        (entry,) = entries(tmp_path)
        entry.unlink()
        entry.mkdir()
    assert shapes_of(find_on_hub("org/tiny")) == TINY
    assert shapes_of(find_on_hub("org/tiny")) == TINY


def test_the_hubs_own_tools_read_the_cache_without_complaint(hub: StandIn, tmp_path: Path) -> None:
    from huggingface_hub import scan_cache_dir

    find_on_hub("org/tiny")
    scanned = scan_cache_dir(tmp_path / "cache")
    assert scanned.warnings == []
    assert not (tmp_path / "cache" / "models--org--tiny" / "refs").exists()


# The token


def everything_kept(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("id_", ["org/secret", "org/secret-single"])
def test_the_token_goes_to_the_hub_alone(hub: StandIn, tmp_path: Path, id_: str) -> None:
    add(hub, tiny_sharded("org/secret", private=True, endpoint=False))
    add(hub, tiny_single("org/secret-single", private=True))
    with pytest.raises(NotFoundError):
        find_on_hub(id_)
    hub.seen.clear()
    assert shapes_of(find_on_hub(id_, token=TOKEN)) == TINY
    sent = {seen.server: seen.headers.get("authorization") or seen.headers.get("Authorization") for seen in hub.seen}
    assert sent == {"hub": f"Bearer {TOKEN}", "cdn": None}
    assert TOKEN.encode() not in everything_kept(tmp_path)


def test_the_token_of_the_environment_is_used(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    add(hub, tiny_sharded("org/gated", gated=True))
    with pytest.raises(GatedError) as caught:
        find_on_hub("org/gated")
    assert f"{hub.endpoint}/org/gated" in caught.value.way_out
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert shapes_of(find_on_hub("org/gated")) == TINY


def test_the_token_of_the_login_is_used(hub: StandIn, tmp_path: Path) -> None:
    add(hub, tiny_sharded("org/gated", gated=True))
    (tmp_path / "token").write_text(TOKEN + "\n")
    assert shapes_of(find_on_hub("org/gated")) == TINY


def test_the_implicit_token_can_be_switched_off(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    find_on_hub("org/tiny")
    assert not any("authorization" in map(str.lower, seen.headers) for seen in hub.seen)


def test_a_server_that_echoes_the_token_does_not_get_it_printed(hub: StandIn) -> None:
    hub.faults["resolve config"] = refuse(403, "", f"Bearer {TOKEN} may not do this")
    with pytest.raises(GatedError) as caught:
        find_on_hub("org/tiny", token=TOKEN)
    assert TOKEN not in str(caught.value.what)
    assert "<token>" in caught.value.what


@pytest.mark.parametrize("token", ["hf_a\r\nX-Evil: 1", "hf_\u00e9", "hf a"])
def test_a_token_that_is_none(hub: StandIn, token: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_on_hub("org/tiny", token=token)
    assert token not in f"{caught.value.what}{caught.value.where}{caught.value.way_out}"
    assert hub.seen == []


# What is no model, and settings that are none


@pytest.mark.parametrize(
    ("files", "words"),
    [
        pytest.param({"pytorch_model.bin": 7}, "pytorch_model.bin (7 bytes)", id="pickles alone"),
        pytest.param({"q4.gguf": 10, "q8.gguf": 20, "a.gguf": 1, "b.gguf": 2}, "33 bytes in all", id="GGUF alone"),
        pytest.param({"unet/config.json": 2, "vae/config.json": 2, "model_index.json": 2}, "unet, vae", id="diffusers"),
        pytest.param({"adapter_config.json": 2, "adapter_model.safetensors": 2}, "--adapter", id="an adapter"),
        pytest.param({"README.md": 2}, "neither config.json nor safetensors", id="a card alone"),
    ],
)
def test_a_repository_that_is_no_model_says_what_it_is(hub: StandIn, files: dict[str, int], words: str) -> None:
    add(hub, Repo("org/none", {path: text_file("x" * size) for path, size in files.items()}))
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
    add(hub, Repo("org/old", files))
    found = find_on_hub("org/old")
    assert found.files == ()
    assert found.other_files == {"pytorch_model.bin": 99}
    assert [note.code for note in found.notes] == ["custom_code", "no_safetensors"]


def test_a_folder_that_is_not_there(hub: StandIn) -> None:
    add(hub, Repo("org/parts", {f"text/{path}": file for path, file in tiny_single().files.items()}))
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
    add(hub, Repo("org/list", {"README.md": text_file("")}))
    with pytest.raises(NetworkError) as caught:
        find_on_hub("org/list")
    assert "pages" in caught.value.what
    assert hub.routes().count("tree") <= 51


# Adapters


def adapter(**more: object) -> Repo:
    files = {
        "adapter_config.json": text_file(json.dumps({"peft_type": "LORA", "r": 8})),
        "adapter_model.safetensors": weights_file(header_of(LORA)),
    }
    return Repo("org/adapter", files, **more)  # type: ignore[arg-type]


def test_an_adapter(hub: StandIn) -> None:
    add(hub, adapter())
    found = find_adapter_on_hub("org/adapter")
    assert found.config == {"peft_type": "LORA", "r": 8}
    assert found.file is not None
    assert found.file.actual_bytes == 8 + (found.file.header_length or 0) + 4_096
    hub.seen.clear()
    again = find_adapter_on_hub("org/adapter", offline=True)
    assert (again.config, again.file, again.source) == (found.config, found.file, "cache")
    assert hub.seen == []


def test_an_adapter_downloaded_by_others(hub: StandIn, tmp_path: Path) -> None:
    snapshot(tmp_path / "cache", adapter())
    assert find_adapter_on_hub("org/adapter", offline=True).config["r"] == 8


@pytest.mark.parametrize(
    ("route", "fault", "expected"),
    [
        pytest.param("resolve config", refuse(404, "EntryNotFound"), NotFoundError, id="a model, not an adapter"),
        pytest.param("resolve config", refuse(403, "GatedRepo"), GatedError, id="gated"),
        pytest.param(
            "cached config", lambda handler, right: handler.reply(200, {}, b"[]"), MalformedConfigError, id="a list"
        ),
        pytest.param("cdn", lambda handler, right: handler.reply(200, {}, b"<html>"), MalformedHeaderError, id="HTML"),
        pytest.param("resolve shard", header("X-Repo-Commit", OLDER), NetworkError, id="pushed in between"),
        pytest.param("cdn", silence(60), NetworkError, id="never answers"),
    ],
)
def test_an_adapter_goes_wrong(hub: StandIn, route: str, fault, expected: type[LoraSizeError]) -> None:  # noqa: ANN001
    add(hub, adapter())
    hub.faults[route] = fault
    with pytest.raises(expected):
        find_adapter_on_hub("org/adapter", timeout=1.0)


def test_nothing_cached_of_an_adapter(hub: StandIn) -> None:
    with pytest.raises(OfflineError):
        find_adapter_on_hub("org/adapter", offline=True)


def test_whoever_waits_is_told_for_what(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    find_on_hub("org/tiny", progress=told.append)
    assert told == []
    monkeypatch.setattr("estimator.source.progress.AFTER_SECONDS", 0.0)
    find_on_hub("org/ranged", progress=told.append)
    assert f"asking {hub.endpoint} for org/ranged" in told
    assert told[-1] == ""


def test_a_model_can_be_asked_for_ahead(hub: StandIn) -> None:
    how = {"revision": None, "subfolder": None, "token": None, "offline": False, "online": True, "timeout": 9.0}
    ahead.start("org/tiny", **how)
    assert shapes_of(ahead.collect("org/tiny", **how)) == TINY
    assert hub.routes().count("resolve config") == 1
    assert ahead.collect("org/tiny", **how).source == "cache"
    ahead.start("org/missing", **how)
    with pytest.raises(NotFoundError):
        ahead.collect("org/missing", **how)
