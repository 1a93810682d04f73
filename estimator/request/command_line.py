"""A shell script that starts a training, read as words; nothing of it is run.

What comes back are the options of the last command that has any, and beside them `_program` (what is started),
`_command` (its words before the options) and `_world` (processes on this machine, where the line says it).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from estimator.errors import UsageError
from estimator.request.trainers.keys import UnknownTrainerError

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?[-=]([^{}]*))?\})", re.ASCII)  # ${NAME:-what it is where nobody set it}
_COMMENT = re.compile(r"(?P<comment>#[^\n]*)")
_PIECE = re.compile(
    r"""(?P<space>(?:[ \t\r]|\\\r?\n|\\\Z)+) | (?P<end>[\n;&|]+) | (?P<single>'[^']*') | (?P<double>"(?:\\.|[^"\\])*")
    | (?P<expression>\$\(+[^()]*\)+) | (?P<escaped>\\.)
    | (?P<text>(?:\$\{[^{}\n]*\}|\$\w+|\$(?!\()|[^ \t\r\n;&|'"\\$])+|\$)""",
    re.VERBOSE | re.DOTALL,
)
# How a command that trains ends before its options.
TRAINING = (".py", " sft", " pt", " rlhf", " train", " dpo", " grpo", " kto", " reward", " rloo", " orpo", " cpo")
# Programs whose next word says what they do, and the same started as a script or a module.
_COMMANDS = ("swift", "megatron", "llamafactory-cli", "trl")
_SCRIPT = re.compile(r"(?:.*/)?(swift)/cli/(_megatron/)?(\w+)\.py|(swift)\.cli\.(_megatron\.)?(\w+)")
_PROCESSES = ("NPROC_PER_NODE", "nproc_per_node")


def parse_command(text: str, where: str) -> dict[str, Any]:
    """Of several commands the last that starts a training, else the last.

    Raises UnknownTrainerError where no command with options is found, UsageError where a quote is left open.
    """
    commands = [words for words in _commands(text, where) if any(word.startswith("--") for word in words)]
    if not commands:
        raise UnknownTrainerError(
            "no command with options is in it.", where=where, way_out="give the line that starts the training"
        )
    chosen = next((words for words in reversed(commands) if _program(words).endswith(TRAINING)), commands[-1])
    variables, words = _variables(chosen)
    options = _options(words)
    options["_program"], options["_command"] = _program(words), " ".join(_before_options(words))
    world = next((variables[name] for name in _PROCESSES if name in variables), "1")
    options["_world"] = int(world) if world.isdigit() and len(world) < 7 else None
    return options


def _commands(text: str, where: str) -> list[list[str]]:
    """Words of each command; plain variables that the script sets are put in where it names them."""
    commands: list[list[str]] = [[]]
    word: str | None = None
    known: dict[str, str] = {}
    for kind, piece in _pieces(text, where):
        if kind == "text":
            word = (word or "") + _VARIABLE.sub(partial(_said, known), piece)
            continue
        if kind == "literal":
            word = (word or "") + piece
            continue
        if word is not None:
            commands[-1].append(word)
            word = None
        if kind == "end":
            known.update(_settings(commands[-1]))
            commands.append([])
    return commands


def _said(known: Mapping[str, str], variable: re.Match[str]) -> str:
    """What a variable stands for; itself where nobody says so."""
    return known.get(variable[1] or variable[2], variable[0] if variable[3] is None else variable[3])


def _settings(words: list[str]) -> dict[str, str]:
    """What a line sets for those after it: nothing where a command stands behind the assignments."""
    variables, rest = _variables(words[1:] if words[:1] == ["export"] else words)
    return {} if rest else {name: value for name, value in variables.items() if "$" not in value}


def _pieces(text: str, where: str) -> Iterator[tuple[str, str]]:
    """ "text", "literal" (single quotes), "space" and "end" (of a command), as a shell reads them."""
    at, fresh = 0, True
    while at < len(text):
        match = _COMMENT.match(text, at) if fresh else None
        match = match or _PIECE.match(text, at)
        if match is None:
            line = text.count("\n", 0, at) + 1
            raise UsageError(f"a quote of line {line} is left open.", where=where, way_out="close the quote")
        kind, piece = str(match.lastgroup), match[0]
        fresh, at = kind in ("space", "end"), match.end()
        if kind == "double":
            yield "text", re.sub(r'\\([$`"\\])', r"\1", piece[1:-1].replace("\\\n", ""))
        elif kind == "single":
            yield "literal", piece[1:-1]
        elif kind == "escaped":
            yield "literal", piece[1:]
        elif kind == "expression":
            yield "literal", "$(...)"
        elif kind != "comment":
            yield kind, piece
    yield "end", ""


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
    """`swift sft`, `megatron sft`, `llamafactory-cli train`, `trl sft`, or the script that is run."""
    scripts = [word for word in words if word.endswith(".py")]  # the first one: others are options of it
    for index, word in enumerate(words[: words.index(scripts[0]) + 1] if scripts else _before_options(words)):
        leaf = word.rpartition("/")[2]
        if leaf in _COMMANDS:
            return " ".join((leaf, *words[index + 1 : index + 2]))
        if (match := _SCRIPT.fullmatch(word)) is not None:
            return f"{'megatron' if match[2] or match[5] else 'swift'} {match[3] or match[6]}"
    return scripts[0].rpartition("/")[2] if scripts else (words[0] if words else "")


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
