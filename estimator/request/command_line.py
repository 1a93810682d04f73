"""A shell script that starts a training, read as words; nothing of it is run.

What comes back are the options of the last command that has any, and beside them `_program` (what is started),
`_command` (its words before the options) and `_world` (processes on this machine, where the line says it).
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from estimator.errors import UsageError

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_PROCESSES = ("NPROC_PER_NODE", "nproc_per_node")


def parse_command(text: str, where: str) -> dict[str, Any]:
    """Raises UsageError where no command with options is found."""
    commands = [words for words in _commands(text, where) if any(word.startswith("--") for word in words)]
    if not commands:
        raise UsageError(
            "no command with options is in it.", where=where, way_out="give the line that starts the training"
        )
    variables, words = _variables(commands[-1])
    options = _options(words)
    options["_program"], options["_command"] = _program(words), " ".join(_before_options(words))
    world = next((variables[name] for name in _PROCESSES if name in variables), "1")
    options["_world"] = int(world) if world.isdigit() and len(world) < 7 else None
    return options


def _commands(text: str, where: str) -> list[list[str]]:
    joined = re.sub(r"\\\r?\n", " ", text)
    commands = []
    for line in joined.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                commands.append(shlex.split(_expressions_as_words(line), comments=True))
            except ValueError as error:
                raise UsageError(f"a line can't be read: {error}.", where=where, way_out="close the quote") from error
    return commands


def _expressions_as_words(line: str) -> str:
    """`$(expr 16 / $n)` as one word, so that its value is seen to be an expression."""
    return re.sub(r"\$\(+[^()]*\)+", "'$(...)'", line)


def _variables(words: list[str]) -> tuple[dict[str, str], list[str]]:
    variables = {}
    for index, word in enumerate(words):
        match = _ASSIGNMENT.fullmatch(word)
        if match is None or word.startswith("-"):
            return variables, words[index:]
        variables[match[1]] = match[2]
    return variables, []


def _before_options(words: list[str]) -> list[str]:
    return words[: next((i for i, word in enumerate(words) if word.startswith("--")), len(words))]


def _program(words: list[str]) -> str:
    """`swift sft`, `megatron sft`, `llamafactory-cli train`, `trl sft`, or the script that python runs."""
    scripts = [word.rpartition("/")[2] for word in words if word.endswith(".py")]
    for index, word in enumerate(words):
        leaf = word.rpartition("/")[2]
        if leaf in ("swift", "megatron", "llamafactory-cli", "trl"):
            return " ".join((leaf, *words[index + 1 : index + 2]))
    return scripts[-1] if scripts else (words[0] if words else "")


def _options(words: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    key = None
    values: list[str] = []
    for word in [*words, "--"]:
        if word.startswith("--"):
            if key is not None:
                options[key] = _value(values)
            name, equals, value = word[2:].partition("=")
            key, values = name.replace("-", "_"), [value] if equals else []
        elif key is not None:
            values.append(word)
    return options


def _value(words: list[str]) -> Any:
    plain = {"true": True, "false": False, "none": None, "null": None}
    values = [plain.get(word.lower(), word) for word in words]
    if not values:
        return True
    return values[0] if len(values) == 1 else [str(value) for value in values]
