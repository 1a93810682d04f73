"""What a reader of the Hub gets, and with how many requests."""

from __future__ import annotations

import pytest

from estimator.checkpoint.index import to_checkpoint
from estimator.errors import (
    NotFoundError,
)
from estimator.source import ahead
from estimator.source.hub import find_on_hub
from tests.hub.checks import shapes_of
from tests.hub.models import (
    COMMIT,
    CONFIG,
    OLDER,
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
from tests.hub.standin import StandIn


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
    hub.add(Repo("org/long", {"config.json": config_file(), "model.safetensors": weights_file(header_of(tensors))}))
    assert shapes_of(find_on_hub("org/long")) == tensors
    assert hub.routes().count("resolve shard") == 1
    assert hub.routes().count("cdn") == 2


@pytest.mark.parametrize("number", [1, 5_000], ids=["a short header", "a header of 350 kB"])
def test_a_server_that_knows_no_ranges_is_read_no_further_than_needed(hub: StandIn, number: int) -> None:
    def whole(handler, right):  # noqa: ANN001, ANN202
        del handler.headers["Range"]
        right()

    hub.faults["cdn"] = whole
    big = weights_file(header_of({f"w{at}": ("F32", (1_000, 1_000_000 // number)) for at in range(number)}))
    hub.add(Repo("org/big", {"config.json": config_file(), "model.safetensors": big}))
    assert to_checkpoint(find_on_hub("org/big").files).bytes == 4_000_000_000
    assert max(seen.sent for seen in hub.seen) < 50_000_000


def test_the_single_file_wins_over_the_shards_as_in_from_pretrained(hub: StandIn) -> None:
    files = {**sharded({"other": ("F32", (2, 2))}, 1), **tiny_single().files}
    hub.add(Repo("org/both", files))
    assert shapes_of(find_on_hub("org/both")) == TINY


def test_shards_without_an_index(hub: StandIn) -> None:
    files = {path: file for path, file in tiny_sharded().files.items() if not path.endswith("index.json")}
    hub.add(Repo("org/plain", files))
    assert shapes_of(find_on_hub("org/plain")) == TINY


def test_a_subfolder(hub: StandIn) -> None:
    inner = {f"text/{path}": file for path, file in tiny_sharded().files.items()}
    hub.add(Repo("org/parts", {"README.md": text_file(""), **inner}))
    assert shapes_of(find_on_hub("org/parts", subfolder="text")) == TINY
    assert shapes_of(find_on_hub("org/parts", subfolder="text/", revision=COMMIT)) == TINY


def test_lists_of_many_pages(hub: StandIn) -> None:
    many = {f"data/{number:04}.txt": text_file("x") for number in range(57)}
    files = {**many, **tiny_single().files}
    hub.page = 10
    hub.add(Repo("org/many", files))
    assert shapes_of(find_on_hub("org/many")) == TINY
    assert hub.routes().count("tree") == 6


def test_an_older_commit_is_read_by_ranges(hub: StandIn) -> None:
    older = {"config.json": config_file(), "model.safetensors": weights_file(header_of({"w": ("F32", (2, 2))}))}
    hub.add(Repo("org/moved", tiny_sharded().files, older={OLDER: older}))
    found = find_on_hub("org/moved", revision=OLDER)
    assert found.revision == OLDER
    assert shapes_of(found) == {"w": ("F32", (2, 2))}
    assert "metadata" not in hub.routes()


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/1", "feature/long context", "100%", "grün"])
@pytest.mark.parametrize("id_", ["org/moved", "old/moved"])
def test_a_branch_is_read_at_its_commit(hub: StandIn, id_: str, revision: str) -> None:
    files = {f"a b/ü/{path}": file for path, file in tiny_sharded().files.items()}
    hub.add(Repo("org/moved", tiny_single().files, older={OLDER: files}, branches={revision: OLDER}))
    hub.renamed["old/moved"] = "org/moved"
    found = find_on_hub(id_, revision=revision, subfolder="a b/ü")
    assert (found.id, found.revision) == ("org/moved", OLDER)
    assert shapes_of(found) == TINY
    assert "metadata" not in hub.routes()
    assert find_on_hub(id_, revision=revision, subfolder="a b/ü").source == "cache"


def test_a_renamed_repository_is_found_under_its_new_name(hub: StandIn) -> None:
    hub.renamed["old/tiny"] = "org/tiny"
    assert find_on_hub("old/tiny").id == "org/tiny"


def test_a_header_written_in_another_way_is_held_against_the_file(hub: StandIn) -> None:
    files = {"config.json": config_file(), **sharded(TINY, 2)}
    for path in [path for path in files if path.endswith(".safetensors")]:
        tensors = {name: entry for name, entry in TINY.items() if name.encode() in files[path].head}
        files[path] = weights_file(header_of(tensors, separators=(", ", " : ")) + b" " * 100)
    hub.add(Repo("org/spaced", files))
    assert shapes_of(find_on_hub("org/spaced")) == TINY
    assert "cdn" in hub.routes()


def test_whoever_waits_is_told_for_what(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("estimator.source.progress._LISTENER", [told.append])
    find_on_hub("org/tiny")
    assert told == []
    monkeypatch.setattr("estimator.source.progress.AFTER_SECONDS", 0.0)
    find_on_hub("org/ranged")
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
