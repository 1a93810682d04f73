"""Config files of PEFT and of trainers, as each tool reads its own. Nothing of a file is ever executed."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from estimator.errors import NotFoundError, UnsupportedError, UsageError
from estimator.notes import Note
from estimator.request.recognise import recognise
from estimator.request.trainers.keys import OPEN, Keys, UnknownTrainerError, known_when_run
from estimator.request.training_config import TrainingConfig

MAX_BYTES = 2_000_000
MAX_ALIASES = 200
MAX_DEPTH = 60
SHELL_ENDINGS = (".sh", ".bash", ".slurm", ".sbatch")


# A line of a config that trains; a file that can't be read and has no such line is somebody else's.
_MARKS = re.compile(
    r"""^[ \t]*["']?(?:_component_:[ ]*torchtune|_target_:[ ]*nemo)
    | ^(?:[ \t]*(?:\{[ \t]*)?"|["']?)(?:lora_\w+|adapter|base_model|(?:base_)?model_name_or_path|finetuning_type
    |(?:tuner|train|sft|peft)_type|use_peft|checkpoint_dir)["']?[ \t]*:
    | \b(?:swift|megatron)[ ](?:sft|pt|rlhf)\b | \bllamafactory-cli[ ]train\b | \bautotrain[ ]llm\b | --use_peft\b""",
    re.MULTILINE | re.VERBOSE,
)
_UNREAD = {".py": "Python files", ".ipynb": "notebooks", ".toml": "TOML files"}
# Keys that decide what trains or how the base is loaded; switches are asked about where they are read.
_DECIDING = re.compile(
    r"(?!.*_(?:dir|path|name|id)$).*(?:lora|peft|(?:tuner|train|sft|finetuning)_type|target|quant|load_in_)|.*adapter$|r$|dim$|num_labels$"
)
# A template whose values stand without quotes: `lora_r: {{ rank }}`, `{% if qlora %}`; as YAML or JSON it is broken.
_TEMPLATE = re.compile(r"^[^#\n]*?(?:^|[:,\[{-])[ \t]*\{(?:\{|%)", re.MULTILINE)
_INSERTED = re.compile(r"\$\{([\w.]+)\}")


def read_config_file(path: str) -> TrainingConfig:
    """What the file says, with its trainer's defaults.

    Raises NotFoundError; UnsupportedError where a value that decides is known only when the command runs; UsageError
    for a file that is no config of a known trainer (UnknownTrainerError), or that trains no LoRA (NoLoraError).
    """
    values = _values(path)
    trainer = recognise(values)
    if trainer is None:
        raise _unknown(values, path)
    if "_program" in values and _is_file_of_options(values.get("config")):
        what = f"the command takes its options from {str(values['config'])[:200]}."
        raise UnsupportedError(what, where=path, way_out="name that file, with the command's other options in it")
    _refuse_open(values, path)
    module = importlib.import_module(f"estimator.request.trainers.{trainer}")
    keys = Keys(values, path, module.DEFAULTS)
    for name in values.get("_hidden", ()):
        keys.note("hidden_options", f"{name[:80]} may hold further options: they are not read.")
    if others := values.get("_others"):
        keys.note("several_commands", f"The script starts {others + 1} trainings: the last command is read.")
    config = module.read(keys)
    if config.gpus is None and "_world" in values:
        config = replace(config, gpus=values["_world"])
    if trainer != "adapter_config":
        from estimator.request.trainers.run_settings import offloads_of

        moved, told = offloads_of(values)
        added = (*keys.unread(), *told, *_not_sized(config.quantization))
        config = replace(config, offloads=config.offloads | moved, notes=(*config.notes, *added))
    for name, value in (("the base model", config.base), ("the optimizer", config.optimizer)):
        if value is not None and not isinstance(value, str):
            raise keys.odd(name, value, "its name")
    return config


def _unknown(values: Mapping[str, Any], path: str) -> UnknownTrainerError:
    from estimator.request.other_trainers import DIFFUSION, why_unread

    why = why_unread(values)
    if why is not None:
        way_out = "--model and --targets count PEFT's LoRA on " + (
            "a model of transformers" if why == DIFFUSION else "the language model"
        )
        return UnknownTrainerError(f"{why}: not counted.", where=path, way_out=way_out)
    file = values.get("_file") or values.get("config") if "_program" in values else None
    if _is_file_of_options(file):
        way_out = f"name {str(file)[:200]} itself, if it holds the options"
        return UnknownTrainerError("the command is of no trainer that is known.", where=path, way_out=way_out)
    way_out = "known: PEFT, Axolotl, LLaMA-Factory, TRL, torchtune, Unsloth, ms-swift, AutoTrain, NeMo, litgpt, Oumi, "
    way_out += "Ludwig, verl, OpenRLHF, EasyR1, AReaL, H2O LLM Studio, Firefly, LMFlow, FastChat, alpaca-lora, qlora.py"
    return UnknownTrainerError("this is no config of a trainer that is known.", where=path, way_out=way_out)


def _is_file_of_options(value: Any) -> bool:
    return isinstance(value, str) and (value.endswith((".yaml", ".yml", ".json")) or OPEN.fullmatch(value) is not None)


def _refuse_open(values: Mapping[str, Any], path: str) -> None:
    """Raises UnsupportedError for a rank, a target or a switch that is a variable of the shell or of a template."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            _refuse_open(value, path)
        listed = value if isinstance(value, list) else [value]
        said = next((one for one in listed if isinstance(one, str) and OPEN.fullmatch(one.strip())), None)
        if said is not None and _DECIDING.match(str(key)):
            raise known_when_run(key, said, path)


# Quantised as the base is loaded, and sized: torchao's NF4 has bitsandbytes' blocks of 64 and scales of 256.
_SIZED = ("bnb", "torchao")


def _not_sized(quantization: Mapping[str, Any] | None) -> tuple[Note, ...]:
    """A note on a base that the trainer quantises by a method that this tool sizes in checkpoints alone."""
    given = quantization or {}
    if given.get("method") in (None, *_SIZED) or given.get("stored") or "dequantize" in given:
        return ()
    how = f"{str(given['method'])[:40]} to {given.get('bits')} bits"
    message = f"The trainer quantises the base by {how} as it loads it: it is shown and planned as it is stored."
    return (Note("quantised_otherwise", message),)


def named_base(config: TrainingConfig) -> str | None:
    """The base model; None where the config names none, or leaves it to a variable."""
    return None if OPEN.fullmatch(config.base or "") else config.base or None


def to_request(config: TrainingConfig) -> dict[str, Any]:
    """Option names of an estimate, with underscores, and their values; what the config leaves open is left out."""
    quantization = config.quantization or {}
    sized = quantization.get("method") in _SIZED and not quantization.get("stored")
    bits = quantization.get("bits") if sized else None
    precision = {8: "int8", 4: quantization.get("quant_type", "nf4")}.get(bits) if bits else None
    dtype = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(config.base_precision or "")
    precision = dtype if quantization.get("dequantize") else precision
    options = {
        "model": named_base(config),
        "revision": None if config.revision in (None, "main") else str(config.revision),
        # PEFT's own file is handed on as it is: null is no default to PEFT everywhere.
        "lora": {name: value for name, value in config.lora.items() if value is not None or config.trainer == "peft"},
        "target_rule": config.target_rule,
        "config_notes": config.notes,
        "freezing": config.freezing,
        "base_precision": precision,
        "dtype": dtype,
        "double_quant": quantization.get("double_quant") if bits == 4 else None,
        "quant_storage": quantization.get("quant_storage") if bits == 4 else None,
        "compute_dtype": quantization.get("compute_dtype") if bits == 4 else None,
        "skip_modules": quantization.get("skip_modules") if bits else None,
        "trainer_skips": quantization.get("trainer_skips") if bits else None,
        "prepare_kbit": (config.prepare_kbit and not config.undoes_upcast) or None,
        "adapter_dtype": None if config.adapter_dtype in (None, "float32") else config.adapter_dtype,
        "num_labels": config.num_labels,
        "save_embedding_layers": None if config.saved_by_peft else "no",
    }
    return {name: value for name, value in options.items() if value is not None}


def _values(path: str) -> dict[str, Any]:
    """The file's values by name. What can't be read is a fault where it looks like a config, else nobody's file."""
    raw = _raw(path)
    try:
        return _parse(path, _decoded(path, raw))
    except UnknownTrainerError:
        raise
    except UsageError as error:
        text = raw.decode("ascii", "ignore").replace("\0", "")
        if _MARKS.search(text) and _TEMPLATE.search(text):
            what = "the file is a template: its values are known only when it is rendered."
            raise UnsupportedError(what, where=path, way_out="give the file that is made of it") from error
        if _MARKS.search(text):
            raise
        raise UnknownTrainerError(error.what, where=error.where, way_out=error.way_out) from error


def _raw(path: str) -> bytes:
    """The first MAX_BYTES + 1 bytes."""
    try:
        if os.path.isdir(path):
            path = os.path.join(path, "adapter_config.json")
            if os.path.exists(path) and not os.path.isfile(path):  # a pipe that is named itself is read, as a shell's
                raise ValueError("it is no file")
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise NotFoundError(f"{path} can't be read: {reason}.", where="--config", way_out="check the path") from error


def _decoded(path: str, raw: bytes) -> str:
    if len(raw) > MAX_BYTES:
        raise UsageError(f"the file is over {MAX_BYTES:,} bytes.", where=path, way_out="name a config file")
    try:
        text = raw.decode("utf-8" if path.endswith(".json") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError("the file is not text in UTF-8.", where=path, way_out="save it in UTF-8") from error
    if "\0" in text:
        way_out = "name an adapter_config.json or a trainer's config file"
        raise UsageError("the file is no text: it holds zeros.", where=path, way_out=way_out)
    return text


def _parse(path: str, text: str) -> dict[str, Any]:
    kind = os.path.splitext(path)[1]
    if kind in _UNREAD:
        what = f"{_UNREAD[kind]} are not read."
        raise UnknownTrainerError(what, where=path, way_out="give YAML, JSON or the command line")
    if path.endswith(SHELL_ENDINGS):
        from estimator.request.commands.parse import parse_command

        return parse_command(text, path)
    if text.startswith("\ufeff"):
        what = "the file begins with a mark of the byte order, at which Python fails to read JSON."
        raise UsageError(what, where=path, way_out="save it in UTF-8 without one")
    try:
        values = json.loads(text) if text.lstrip().startswith("{") else _yaml(path, text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        reason = "a number in it has thousands of digits" if "set_int_max_str_digits" in reason else reason
        what = f"the file is neither JSON nor YAML: {reason}."
        raise UsageError(what, where=path, way_out="mend its syntax") from error
    if not isinstance(values, dict):
        raise UnknownTrainerError("the file holds no object of named values.", where=path, way_out="name a config file")
    named = {key: value for key, value in values.items() if isinstance(key, str)}  # `on:` is true in YAML
    return _inserted(named, named)


def _inserted(part: Any, whole: Mapping[str, Any]) -> Any:
    """The values with OmegaConf's `${a.b}` that name plain values of the same file put in, one behind the other."""
    if isinstance(part, dict):
        return {key: _inserted(value, whole) for key, value in part.items()}
    for _ in range(MAX_DEPTH):
        match = _INSERTED.fullmatch(part) if isinstance(part, str) else None
        found: Any = whole
        for name in match[1].split(".") if match else ():
            found = found.get(name) if isinstance(found, dict) else None
        if match is None or found is None or isinstance(found, (dict, list)):
            break
        part = found
    return part


def _yaml(path: str, text: str) -> Any:
    """Raises UsageError for broken YAML, and for aliases or nesting beyond what a config has."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        aliases = depth = 0
        for event in yaml.parse(text, Loader=loader):
            aliases += isinstance(event, yaml.AliasEvent)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if aliases > MAX_ALIASES or depth > MAX_DEPTH:
                raise UsageError("the YAML is nested or aliased too deeply.", where=path, way_out="write it out")
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f" in line {place.line + 1}" if place else ""
        why = f": {error.problem}" if getattr(error, "problem", None) else ""
        raise UsageError(f"broken YAML{line}{why[:200]}.", where=path, way_out="mend its syntax") from error
