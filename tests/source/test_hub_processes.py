"""Many processes on one cold cache, and processes that are killed at any moment."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub.faults import bomb, endless, say
from tests.hub.models import tiny_sharded, tiny_single
from tests.hub.reading import Reading
from tests.hub.standin import StandIn

READ = """
import json, sys
from estimator.source.hub import find_on_hub
from estimator.checkpoint.index import to_checkpoint
from estimator.errors import LoraSizeError
try:
    found = find_on_hub(sys.argv[1], offline=sys.argv[2] == "offline", timeout=60.0)
    tensors = to_checkpoint(found.files, found.index).tensors
    print(json.dumps([found.revision, sorted(map(str, tensors))]))
except LoraSizeError as error:
    print(json.dumps(error.code))
if sys.argv[2] == "weighed":
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
MOST_MEMORY = 400_000_000


def start(
    hub: StandIn, folder: Path, id_: str, how: str = "online", *, before: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder), "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", READ, id_, how]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, preexec_fn=before, **pipes)  # noqa: PLW1509


def ended(process: subprocess.Popen[str]) -> object:
    out, err = process.communicate(timeout=120)
    assert err == ""
    return json.loads(out)


def test_fifty_processes_on_one_cold_cache_give_one_answer_and_one_entry(tmp_path: Path) -> None:
    with StandIn([tiny_sharded()]) as hub:
        readings = [Reading(hub.endpoint, tmp_path, "org/tiny") for _ in range(50)]
        answers = [reading.ended() for reading in readings]
        assert all(answer == answers[0] for answer in answers)
        assert isinstance(answers[0], list)
        kept = [path for path in (tmp_path / "hub").rglob("*") if path.is_file() and path.parent.name == "v2"]
        assert [path.suffix for path in kept] == [".entry"]
        assert Reading(hub.endpoint, tmp_path, "org/tiny", offline=True).ended() == answers[0]


def test_a_process_killed_at_any_moment_leaves_a_cache_that_the_next_one_reads_or_replaces(tmp_path: Path) -> None:
    with StandIn([tiny_sharded()]) as hub:
        Reading(hub.endpoint, tmp_path / "warm", "org/tiny").ended()
        begun = time.monotonic()
        whole = Reading(hub.endpoint, tmp_path / "first", "org/tiny").ended()
        lasts = time.monotonic() - begun
        for step in range(12):
            folder = tmp_path / str(step)
            process = Reading(hub.endpoint, folder, "org/tiny")
            time.sleep(lasts * step / 11)
            process.kill()
            assert Reading(hub.endpoint, folder, "org/tiny", offline=True).ended() in (whole, "offline")
            assert Reading(hub.endpoint, folder, "org/tiny").ended() == whole


def no_room() -> None:
    """No file may grow beyond a few bytes, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


def test_a_full_disk_costs_the_cache_and_not_the_answer(tmp_path: Path) -> None:
    with StandIn([tiny_sharded()]) as hub:
        whole = ended(start(hub, tmp_path / "roomy", "org/tiny"))
        assert ended(start(hub, tmp_path / "full", "org/tiny", before=no_room)) == whole
        kept = [path.name for path in (tmp_path / "full").rglob("*") if path.is_file() and path.name != "main"]
        assert kept == []  # neither an entry nor the draft of one
        assert ended(start(hub, tmp_path / "full", "org/tiny")) == whole
        assert ended(start(hub, tmp_path / "full", "org/tiny", "offline")) == whole


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is where nobody may write")
def test_a_cache_where_nobody_may_write_costs_no_answer() -> None:
    with StandIn([tiny_sharded()]) as hub:
        answers = [ended(start(hub, Path("/proc/no/cache"), "org/tiny")) for _ in range(2)]
        assert isinstance(answers[0], list)
        assert answers[0] == answers[1]
        assert ended(start(hub, Path("/proc/no/cache"), "org/tiny", "offline")) == "offline"


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        pytest.param("metadata", bomb(), id="a bomb of the endpoint"),
        pytest.param("metadata", endless(b'{"a":' * 200_000), id="nested without end"),
        pytest.param(
            "metadata",
            say(b'{"headers":{"a.safetensors":{"b":[' + b"[]," * 20_000_000 + b"[]]}}}"),
            id="60 MB of lists",
        ),
        pytest.param(
            "metadata",
            say(b'{"headers":{"a.safetensors":{"b":["' + b"\xf0\x9f\x92\xa9" * 15_000_000 + b'"]}}}'),
            id="60 MB of wide letters",
        ),
        pytest.param("cached config", say(b'{"a":[' + b"{}," * 6_000_000 + b"{}]}"), id="18 MB of objects as config"),
        pytest.param("cached config", bomb(), id="a bomb of a config"),
        pytest.param("tree", say(b"[" + b"{}," * 2_600_000 + b"{}]"), id="8 MB of objects as list"),
    ],
)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_memory_stays_bounded(tmp_path: Path, route: str, fault) -> None:  # noqa: ANN001
    with StandIn([tiny_sharded(), tiny_single()]) as hub:
        hub.faults[route] = fault
        out, err = start(hub, tmp_path, "org/tiny", "weighed").communicate(timeout=120)
        assert err == ""
        kilobytes = int(out.split()[-1])
        assert kilobytes * 1_024 < MOST_MEMORY
