"""What the Hub is waited for: on a terminal every command says it, on a pipe and under --quiet none does."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.models import Repo, text_file, tiny_single
from tests.hub.standin import StandIn

SOON = """
import sys
from estimator.source import progress
progress.AFTER_SECONDS = 0.05
from estimator.cli.main import main
main(sys.argv[1:])
"""
LORA = {"peft_type": "LORA", "base_model_name_or_path": "org/single", "target_modules": ["q_proj"]}
LINE = json.dumps({"model": "org/single", "lora": LORA})
MODEL = ["--model", "org/single", "--targets", "q_proj"]
BASE = "asking {} for org/single"
COMMANDS = [
    pytest.param(MODEL, [BASE], id="an estimate"),
    pytest.param(["plan", *MODEL], [BASE, "working out what fits"], id="plan"),
    pytest.param(["sweep", *MODEL, "--r", "4,8"], [BASE, "case 1 of 2"], id="sweep"),
    pytest.param(["batch", "-"], [BASE, "line 1"], id="batch"),
    pytest.param(["--adapter", "org/adapter"], ["asking {} for org/adapter", BASE], id="an adapter and its base"),
    pytest.param(
        ["--model", "gpt2", "--tokenizer", "org/words"], ["reading the tokenizer org/words"], id="a tokenizer"
    ),
]


@pytest.fixture(scope="module")
def slow_hub() -> Iterator[StandIn]:
    adapter = Repo("org/adapter", {"adapter_config.json": text_file(json.dumps(LORA))})
    words = Repo("org/words", {"vocab.json": text_file('{"a": 0}')})
    with StandIn([tiny_single(), adapter, words], latency=0.1) as hub:
        yield hub


def told(hub: StandIn, home: Path, arguments: list[str], stderr: int) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "PYTHONPATH": os.getcwd()}
    return subprocess.run(
        [sys.executable, "-c", SOON, *arguments],
        env=environment, input=LINE, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=60, check=False,
    )  # fmt: skip


def on_a_terminal(hub: StandIn, home: Path, arguments: list[str]) -> tuple[str, str]:
    """The standard output, and what the terminal got."""
    reader, terminal = pty.openpty()
    run = told(hub, home, arguments, terminal)
    os.write(terminal, b"\n.")  # a terminal that got nothing would keep one waiting
    os.close(terminal)
    seen = os.read(reader, 100_000).decode()
    os.close(reader)
    return run.stdout, seen.removesuffix("\r\n.")


@pytest.mark.parametrize(("arguments", "says"), COMMANDS)
def test_a_terminal_is_told_what_is_waited_for(
    slow_hub: StandIn, tmp_path: Path, arguments: list[str], says: list[str]
) -> None:
    out, seen = on_a_terminal(slow_hub, tmp_path, arguments)
    assert [said for said in says if said.format(slow_hub.endpoint) not in seen] == []
    assert seen.endswith("\r\033[K")
    assert "\033" not in out


@pytest.mark.parametrize(
    "arguments", [MODEL, ["plan", *MODEL], ["sweep", *MODEL]], ids=["an estimate", "plan", "sweep"]
)
def test_nothing_is_said_under_quiet(slow_hub: StandIn, tmp_path: Path, arguments: list[str]) -> None:
    assert on_a_terminal(slow_hub, tmp_path, [*arguments, "--quiet"])[1] == ""


def test_nothing_is_said_on_a_pipe(slow_hub: StandIn, tmp_path: Path) -> None:
    assert told(slow_hub, tmp_path, ["plan", *MODEL], subprocess.PIPE).stderr == ""
