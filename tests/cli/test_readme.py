"""The README's commands are commands, and what it shows is what is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from estimator.cli.group import COMMANDS, cli

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```\n\$ lora-size ((?:.*\\\n)*.*?)(?: \| head -(\d+))?\n((?:.*\n)*?)```", README)
ROWS = re.findall(r"^\| (?:[^|]+) \| (`.*`) \|$", README, re.MULTILINE)
WRITTEN = [written for row in ROWS for written in re.findall(r"`([^`]+)`", row)]
IN_TEXT = re.findall(r"`(lora-size [^`]+)`", README)


@pytest.mark.parametrize(("command", "lines", "shown"), SHOWN)
def test_what_is_shown_is_what_the_command_prints(command: str, lines: str, shown: str) -> None:
    words = shlex.split(command.replace("\\\n", ""))
    printed = CliRunner().invoke(cli, [*words, "--offline"]).output.splitlines(keepends=True)
    assert "".join(printed[: int(lines or len(printed))]) == shown


def test_both_of_what_is_shown_are_found() -> None:
    assert [command.split()[0] for command, *_ in SHOWN] == ["--model", "sweep"]


@pytest.mark.parametrize("written", sorted({*WRITTEN, *IN_TEXT}))
def test_a_command_or_an_option_is_one(written: str) -> None:
    words = shlex.split(written.removeprefix("lora-size ").replace("<owner>", "owner"))
    context = cli.make_context("lora-size", [*words])
    if words[0] in COMMANDS:
        name, command, left = cli.resolve_command(context, words)
        command.make_context(name, left, parent=context)


def test_every_command_is_named() -> None:
    assert set(COMMANDS) <= {written.split()[1] for written in (*WRITTEN, *IN_TEXT) if written.startswith("lora-size ")}
