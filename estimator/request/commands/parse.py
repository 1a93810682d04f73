"""A shell script that starts a training, read as words; nothing of it is run.

What comes back are the options of the last command that trains, and beside them `_program` (what is started),
`_command` (its words before the options), `_world` (processes of all machines, where the line says it), `_file` (a
file that may hold options, given to a script without a name for it), `_hidden` (variables behind the options that may
hold further ones) and `_others` (how many more commands train). Such a file of a known trainer's program is `config`,
litgpt's base `checkpoint_dir`. verl's overrides (`a.b=1`) come as sections.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from estimator.errors import UsageError
from estimator.request.commands.launchers import VARIABLES, processes
from estimator.request.commands.overrides import is_override, nested
from estimator.request.commands.words import commands, split_assignments
from estimator.request.recognise import recognise
from estimator.request.trainers.keys import UnknownTrainerError

# How a command that trains ends before its options.
TRAINING = (
    ".py",
    " sft",
    " pt",
    " rlhf",
    " train",
    " dpo",
    " grpo",
    " kto",
    " reward",
    " rloo",
    " orpo",
    " cpo",
    " llm",
    " finetune",
    " finetune_lora",
    " train_sft",
    " train_dpo",
    " train_kto",
    " train_rm",
    " train_ppo",
    " train_ppo_ray",
    " main_ppo",
    " fsdp_sft_trainer",
    " sft_trainer",
    "tune run",
)
# Programs whose next word says what they do, and the same started as a script or a module.
_COMMANDS = ("swift", "megatron", "llamafactory-cli", "trl", "autotrain", "axolotl", "litgpt", "tune")
_SCRIPT = re.compile(
    r"(?:.*/)?(?:(swift|axolotl|openrlhf)[/.]cli|(verl)[/.]trainer)[/.](_megatron[/.])?(?!config)(\w+)(?:\.py)?"
)
_SHELL, _GIVES_TEXT = re.compile(r"(?:.*/)?(?:ba|z|da|k)?sh"), re.compile(r"-[a-zA-Z]*c")
# Calls a function of the file with its own parameters, whatever their names (modal.com/docs/reference/cli/run).
_CALLS_A_FUNCTION = ("modal", "run")
_VERL = "actor_rollout_ref."  # verl's section for the model, on whose main program others build theirs
_OPTION_FILES = (".yaml", ".yml", ".json")
# A word that is wholly an expansion, one that may be several words, and options that need no value behind them.
_HIDDEN = re.compile(r"(?:\$(?:[@*]|\w+|\{.*\}|\(\.\.\.\)))+", re.DOTALL)
_SEVERAL = re.compile(r"\$(?:[@*]|\{[@*].*\}|\{\w+\[[@*].*\}|\{\w+:?\+.*\})", re.DOTALL)
_SWITCH = re.compile(
    r"bf16|fp16|tf32|(?:pure|bf16|fp16)_\w+|packing|gradient_checkpointing|streaming|train|peft"
    r"|(?:do|use|no|not|load_in|group_by|push_to|overwrite|ignore|remove|disable|enable|freeze|auto|save_only|load_best)_\w+"
)
_DECIDING = re.compile(r"(?:use|load_in|freeze)_\w+|peft|train")  # where `$NAME` may say yes or no


def parse_command(text: str, where: str) -> dict[str, Any]:
    """Of several commands the last that starts a training of a known trainer; else the last that trains, or the last.

    Raises UnknownTrainerError where no command with options is found, UsageError where a quote is left open or where
    the command ends before its options do.
    """
    found = [words for words in _commands(text, where) if _has_options(words)]
    if any(_CALLS_A_FUNCTION in pairwise(words) for words in found[-1:]):
        what = "modal run calls a function of one's own: what its options mean is known to that function alone."
        raise UnknownTrainerError(what, where=where, way_out="give the trainer's config or command that it starts")
    if not found:
        files = [w for words in _commands(text, where) for w in _program(words)[1] if w.endswith(_OPTION_FILES)]
        way_out = (
            f"name {files[-1][:200]} itself, if it holds them" if files else "give the line that starts the training"
        )
        raise UnknownTrainerError("no command with options is in it.", where=where, way_out=way_out)
    read = [_read(words) for words in found]
    train = [i for i, options in enumerate(read) if options["_program"].endswith(TRAINING) and not _tests(options)]
    known = [i for i, options in enumerate(read) if recognise(options) is not None]
    both = sorted({*train} & {*known})
    at = (both or known or train or [len(found) - 1])[-1]
    if at < len(found) - 1 and found[at + 1][0].startswith("--"):
        raise UsageError(
            f"{found[at + 1][0][:80]} stands on its own: the command before it ends at a comment, or at a backslash "
            "with a blank behind it.",
            where=where,
            way_out="end each line but the last with a backslash alone, and move comments out",
        )
    return {**read[at], "_others": len(both) - 1 if at in both else 0}


def _commands(text: str, where: str) -> Iterator[list[str]]:
    """The script's commands; for `sh -c TEXT` those of the text, with the variables in front of it."""
    for words in commands(text, where, VARIABLES):
        at = next((i for i, pair in enumerate(pairwise(words)) if _is_shell(*pair)), len(words))
        inner = words[at + 2 : at + 3]
        variables = words[: len(words) - len(split_assignments(words)[1])]
        yield from ([*variables, *found] for found in commands(inner[0], where)) if inner else (words,)


def _is_shell(word: str, behind: str) -> bool:
    return _GIVES_TEXT.fullmatch(behind) is not None and _SHELL.fullmatch(word) is not None


def _tests(options: Mapping[str, Any]) -> bool:
    """Whether a command that could train only evaluates or predicts: scripts train, and then test what they trained."""
    return not options.get("do_train") and any(map(options.get, ("do_predict", "do_eval")))


def _has_options(words: list[str]) -> bool:
    return any(word.startswith("--") for word in words) or _unnamed(*_program(words)) is not None or _is_verl(words)


def _is_verl(words: list[str]) -> bool:
    overrides = [word for word in words if is_override(word)]
    return any(word.lstrip("+").startswith(_VERL) for word in overrides) or (
        bool(overrides) and _program(words)[0].startswith("verl ")
    )


def _read(command: list[str]) -> dict[str, Any]:
    variables, words = split_assignments(command)
    program, behind = _program(words)
    start = words[: len(words) - len(behind)]
    unnamed = _unnamed(program, behind)
    named = list(words)
    if unnamed is not None:
        del named[len(words) - len(behind) + unnamed[1]]
    overrides = [word for word in words if is_override(word)] if _is_verl(words) else []
    if overrides:
        named = [word for word in words if not is_override(word)]
    return {
        **nested(overrides),
        **({} if unnamed is None else {unnamed[0]: behind[unnamed[1]]}),
        **_options(named),
        "_program": program,
        "_command": " ".join(_before_options(words)),
        "_file": next((word for word in behind[:1] if word.endswith(_OPTION_FILES)), None),
        "_world": processes(variables, start if len(start) > 1 else words, program),
    }


def _before_options(words: list[str]) -> list[str]:
    return words[: next((i for i, word in enumerate(words) if word.startswith("--")), len(words))]


def _program(words: list[str]) -> tuple[str, list[str]]:
    """`swift sft`, `megatron sft`, `llamafactory-cli train`, `trl sft`, or the script that is run; the words behind."""
    scripts = [i for i, word in enumerate(words) if word.endswith(".py") or _is_module(word)]  # others: options
    for index, word in enumerate(words[: scripts[0] + 1] if scripts else _before_options(words)):
        leaf = word.rpartition("/")[2]
        if leaf in _COMMANDS:
            return " ".join((leaf, *words[index + 1 : index + 2])), words[index + 2 :]
        if (match := _SCRIPT.fullmatch(word)) is not None:
            return f"{'megatron' if match[3] else match[1] or match[2]} {match[4]}", words[index + 1 :]
    if scripts:
        return words[scripts[0]].rpartition("/")[2], words[scripts[0] + 1 :]
    for index, (name, does) in enumerate(pairwise(words)):  # behind a launcher's own options: torchrun, srun, docker
        leaf = name.rpartition("/")[2]
        if leaf in _COMMANDS and f"{leaf} {does}".endswith(TRAINING):
            return f"{leaf} {does}", words[index + 2 :]
    return (words[0] if words else ""), words[1:]


def _is_module(word: str) -> bool:
    return _SCRIPT.fullmatch(word) is not None


def _unnamed(program: str, behind: list[str]) -> tuple[str, int] | None:
    """The option that a program takes without its name, and which word behind the program it is."""
    trainer = program.partition(" ")[0]
    if trainer == "litgpt":
        base = _base_of_litgpt(behind)
        return None if base is None else ("checkpoint_dir", base)
    first = behind[0] if behind and trainer in _COMMANDS else "-"
    is_file = first[:1] != "-" and (trainer == "axolotl" or first.endswith(_OPTION_FILES))
    return ("config", 0) if is_file else None


def _base_of_litgpt(behind: list[str]) -> int | None:
    """The first word that is neither an option nor its one value; releases before 0.5 name the method before it."""
    method = behind[:1] in (["lora"], ["full"], ["adapter"], ["adapter_v2"])
    alone = (
        index
        for index, (before, word) in enumerate(pairwise(["", *behind]))
        if index >= method and not word.startswith("--") and (not before.startswith("--") or "=" in before)
    )
    return next(alone, None)


def _options(words: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {"_hidden": []}
    key, started = None, False
    values: list[str] = []
    for word in [*words, "--"]:
        if word.startswith("--"):
            if key is not None:
                options[key] = _value(values)
            if key is not None and key.startswith("no_") and not values:  # HfArgumentParser's, of a switch that is on
                options[key.removeprefix("no_")] = False
            name, equals, value = word[2:].partition("=")
            key, values = name.replace("-", "_"), [value] if equals else []
        elif started and _HIDDEN.fullmatch(word) and (values or key is None or _needs_none(key, word)):
            options["_hidden"].append(word)
        elif key is not None:
            values.append(word)
        started = started or word.endswith(".py") or word.rpartition("/")[2] in _COMMANDS or _is_module(word)
    return options


def _needs_none(key: str, word: str) -> bool:
    """Whether an expansion behind a key is no value of it."""
    several = _SEVERAL.fullmatch(word) is not None
    return _SWITCH.fullmatch(key) is not None and (several or _DECIDING.fullmatch(key) is None)


def _value(words: list[str]) -> Any:
    plain = {"true": True, "false": False, "none": None, "null": None}
    values = [plain.get(word.lower(), word) for word in words]
    if not values:
        return True
    return values[0] if len(values) == 1 else [str(value) for value in values]
