"""The README's commands are commands, and what it shows is what is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from estimator.architecture import shapes
from estimator.cli.group import COMMANDS, cli
from estimator.source.snapshot import known_models

README, CHANGELOG = (
    (Path(__file__).parents[2] / name).read_text(encoding="utf-8") for name in ("README.md", "CHANGELOG.md")
)
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


def test_figures_are_those_of_the_facts() -> None:
    sized, bundled = len(shapes.whole_text().splitlines()), len(list(known_models()))
    assert f"`config.json` alone is enough for {sized:,} classes" in README
    assert f"`config.json` alone is enough for {sized:,} classes" in CHANGELOG
    assert f"the {bundled:,} bundled models" in README
    assert f"{bundled:,} models are known without a network" in CHANGELOG
