"""What is kept of the Hub, and what is made of what others have kept."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from estimator.errors import (
    MalformedHeaderError,
    OfflineError,
)
from estimator.jobs.base import checkpoint_of
from estimator.source.cache import _WRITERS, settle
from estimator.source.hub import find_on_hub
from estimator.source.side_by_side import Started
from tests.hub.checks import shapes_of
from tests.hub.faults import replaced
from tests.hub.laid_down import snapshot
from tests.hub.models import (
    COMMIT,
    OLDER,
    TINY,
    tiny_sharded,
    tiny_single,
)
from tests.hub.standin import StandIn


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
    hub.add(tiny_single("org/tiny", commit=OLDER))
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


def test_what_was_read_in_a_thread_that_nobody_waits_for_is_kept_whole(hub: StandIn) -> None:
    Started(find_on_hub, "org/tiny").value(time.monotonic() + 30)
    (writer,) = _WRITERS
    assert not writer.daemon  # the interpreter's end would cut it short
    assert find_on_hub("org/tiny", offline=True).source == "cache"


def test_offline_says_what_is_cached(hub: StandIn) -> None:
    find_on_hub("org/tiny")
    with pytest.raises(OfflineError) as caught:
        find_on_hub("org/single", offline=True)
    assert "org/tiny" in caught.value.way_out
    with pytest.raises(OfflineError) as caught:
        find_on_hub("org/tiny", revision="dev", offline=True)
    assert "'dev'" in caught.value.what


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
    settle()
    return sorted((tmp_path / "cache").rglob("*.entry"))


def _rewritten(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """An entry with another head and the sum that goes with it."""

    def damage(text: bytes) -> bytes:
        _, head, parts = text.split(b"\n", 2)
        said = json.loads(head)
        change(said)
        rest = json.dumps(said).encode() + b"\n" + parts * bool(said["parts"])
        return b"lora-size 2 %08x\n" % zlib.crc32(rest) + rest

    return damage


def _with_part(kind: str, text: bytes) -> Callable[[bytes], bytes]:
    """An entry with other text in its parts of this kind, and the sum that goes with it."""

    def damage(entry: bytes) -> bytes:
        _, head, rest = entry.split(b"\n", 2)
        said, texts, at = json.loads(head), [], 0
        for part in said["parts"]:
            texts.append(text if part[0] == kind else rest[at : at + part[2]])
            at, part[2] = at + part[2], len(texts[-1])
        rest = json.dumps(said).encode() + b"\n" + b"".join(texts)
        return b"lora-size 2 %08x\n" % zlib.crc32(rest) + rest

    return damage


def _stack(*fields: object) -> Callable[[bytes], bytes]:
    return _with_part("stacks", json.dumps({"stacks": [fields], "metadata": {}}).encode())


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda text: b"", id="emptied"),
        pytest.param(lambda text: text[:-1], id="a byte short"),
        pytest.param(lambda text: text + b" ", id="a byte long"),
        pytest.param(lambda text: text[: len(text) // 2], id="half"),
        pytest.param(lambda text: text.replace(b"BF16", b"BF17"), id="another dtype"),
        pytest.param(lambda text: text.replace(b'"folder": ""', b'"folder": 7 '), id="another folder"),
        pytest.param(lambda text: text.replace(b"lora-size 2", b"lora-size 3"), id="a version to come"),
        pytest.param(lambda text: b"\0" * len(text), id="zeros after a power cut"),
        pytest.param(lambda text: b"lora-size 2 zzzzzzzz\n{}", id="no sum"),
        pytest.param(_rewritten(lambda head: head.update(parts=[])), id="no parts, the sum right"),
        pytest.param(_rewritten(lambda head: head["parts"][1].__setitem__(0, "odd")), id="a part of no kind"),
        pytest.param(_rewritten(lambda head: head["parts"][1].__setitem__(3, -1)), id="a file of minus one byte"),
        pytest.param(_rewritten(lambda head: head.update(id=7)), id="an id that is none"),
        pytest.param(_rewritten(lambda head: head.update(notes=[[1]])), id="half a note"),
        pytest.param(_with_part("stacks", b"{}"), id="no stacks"),
        pytest.param(_with_part("stacks", b"[" * 100_000), id="stacks nested 100,000 deep"),
        pytest.param(_with_part("stacks", b'{"stacks":[],"metadata":{}}'), id="a header of no tensors"),
        pytest.param(_stack(7, "w", "", "F32", [1], [[0]]), id="a name that is a number"),
        pytest.param(_stack("", "w", "", "F32", [1.5], [[0]]), id="one and a half elements"),
        pytest.param(_stack("", "w", "", "F32", [-1], [[0]]), id="minus one element"),
        pytest.param(_stack("", "w", "", "F99", [1], [[0]]), id="no dtype"),
        pytest.param(_stack("a.", ".w", "0 0", "F32", [1], [0, 4]), id="a tensor that is twice there"),
        pytest.param(_stack("a.", ".w", "0 1", "F32", [1], [[0]]), id="a beginning too few"),
        pytest.param(_stack("a.", ".w", "0 1", "F32", [1], [0, 0]), id="no distance"),
        pytest.param(_with_part("index", b"7"), id="an index that is a number"),
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
    settle()
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


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)], ids=["a pipe", "no end"])
@pytest.mark.parametrize("place", ["entry", "ref"])
def test_what_is_no_file_in_the_cache_is_not_read(
    hub: StandIn, tmp_path: Path, place: str, make: Callable[[Path], None]
) -> None:
    find_on_hub("org/tiny")
    (entry,) = entries(tmp_path)
    path = entry if place == "entry" else entry.parent / "refs" / "main"
    path.unlink()
    make(path)
    assert shapes_of(find_on_hub("org/tiny")) == TINY
    assert find_on_hub("org/tiny").source == "cache"


@pytest.mark.parametrize("id_", ["org/single", "org/ranged"])
def test_headers_that_can_not_be_are_read_anew_by_the_next(hub: StandIn, id_: str) -> None:
    hub.faults["cdn"] = replaced(b'"BF16"', b'"XF16"')
    find_on_hub(id_)
    for _ in range(2):  # as they are kept, then as the Hub sends them
        with pytest.raises(MalformedHeaderError):
            checkpoint_of(find_on_hub(id_, revision=COMMIT))
    del hub.faults["cdn"]
    assert set(checkpoint_of(find_on_hub(id_, revision=COMMIT)).tensors) == set(TINY)


def test_the_hubs_own_tools_read_the_cache_without_complaint(hub: StandIn, tmp_path: Path) -> None:
    from huggingface_hub import scan_cache_dir

    find_on_hub("org/tiny")
    settle()
    scanned = scan_cache_dir(tmp_path / "cache")
    assert scanned.warnings == []
    assert not (tmp_path / "cache" / "models--org--tiny" / "refs").exists()


def test_drafts_of_killed_writers_are_removed_after_a_while(hub: StandIn, tmp_path: Path) -> None:
    find_on_hub("org/tiny")
    (entry,) = entries(tmp_path)
    old, new = entry.with_suffix(".entry.1-a.tmp"), entry.with_suffix(".entry.2-b.tmp")
    for draft in (old, new):
        draft.write_text("half")
    os.utime(old, (0, 0))
    entry.unlink()
    find_on_hub("org/tiny")
    settle()
    assert entry.exists()
    assert (old.exists(), new.exists()) == (False, True)
