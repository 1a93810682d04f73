"""Streams that are closed or full, and Ctrl-C: each ends as a shell expects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_a_pipe_closed_early_is_no_error(tmp_path: Path) -> None:
    script = f"{sys.executable} -m estimator models | head -n 1"
    run = subprocess.run(["bash", "-c", f"set -o pipefail; {script}"], capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert run.stderr == ""
    assert run.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("shell", "exit_code", "out", "err"),
    [
        pytest.param("{} --model gpt2 -q >&-", 0, "", "", id="output closed"),
        pytest.param("{} --model gpt2 -q 2>&-", 0, "294912\t1182680\n", "", id="errors closed"),
        pytest.param("{} --model ./nowhere 2>&-", 3, "", "", id="errors closed, and an error"),
        pytest.param("{} batch - <&-", 0, "", "", id="input closed"),
        pytest.param("{} --model gpt2 -q >/dev/full", 2, "", "can't be written: no space left", id="a full disk"),
    ],
)
def test_streams_that_are_closed_or_full(shell: str, exit_code: int, out: str, err: str) -> None:
    command = f'"{sys.executable}" -m estimator'
    done = subprocess.run(shell.format(command), shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (exit_code, out)
    assert err in done.stderr
    assert bool(err) == bool(done.stderr)


INTERRUPTED = """
import sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "{name}":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from estimator.cli.main import main
main(["--model", "llama-3.1-8b"])
"""


@pytest.mark.parametrize("name", ["click", "estimator.cli.group", "estimator.cli.estimate", "estimator.lora.adapt"])
def test_ctrl_c_is_heard_while_the_command_is_imported(name: str) -> None:
    script = INTERRUPTED.format(name=name)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "\nstopped.\n")
