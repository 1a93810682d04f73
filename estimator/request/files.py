"""Config files of PEFT and of trainers, as each tool reads its own. Nothing of a file is ever executed."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from estimator.errors import NotFoundError, UnsupportedError, UsageError
from estimator.request.trainers.keys import Keys, UnknownTrainerError
from estimator.request.training_config import TrainingConfig

MAX_BYTES = 2_000_000
MAX_ALIASES = 200
MAX_DEPTH = 60


# What a config that trains has in it somewhere; a file that can't be read and has nothing of it is somebody else's.
_MARKS = re.compile(r"lora|peft|finetuning_type|tuner_type|_component_|base_model|model_name_or_path", re.IGNORECASE)


def read_config_file(path: str) -> TrainingConfig:
    """What the file says, with its trainer's defaults.

    Raises NotFoundError; UsageError for a file that is no config of a known trainer, or that trains no LoRA
    (NoLoraError).
    """
    text = _text(path)
    try:
        values = _parse(path, text)
    except UsageError as error:
        if _MARKS.search(text):
            raise
        raise UnknownTrainerError(error.what, where=error.where, way_out=error.way_out) from error
    trainer = recognise(values)
    if trainer is None:
        raise UnknownTrainerError(
            "this is no config of a trainer that is known.",
            where=path,
            way_out="known: PEFT, Axolotl, LLaMA-Factory, TRL, torchtune, Unsloth, ms-swift, AutoTrain, NeMo, litgpt",
        )
    module = importlib.import_module(f"estimator.request.trainers.{trainer}")
    return module.read(Keys(values, path, module.DEFAULTS))


def recognise(values: Mapping[str, Any]) -> str | None:
    """The name of the trainer's file in `request.trainers`; None for a config of nobody."""
    return next((trainer for trainer, matches in _SIGNS if matches(values)), None)


def _has(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda values: any(key in values for key in keys)


def _nested(section: str, key: str, start: str = "") -> Callable[[Mapping[str, Any]], bool]:
    def matches(values: Mapping[str, Any]) -> bool:
        inner = values.get(section)
        return isinstance(inner, Mapping) and key in inner and str(inner[key]).startswith(start)

    return matches


def _started_by(*programs: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda values: str(values.get("_program", "\0")).startswith(programs)


# The first that matches; the signs are keys that no other trainer has.
_SIGNS: tuple[tuple[str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("adapter_config", _has("peft_type")),
    ("swift", _started_by("swift ", "megatron ")),
    ("llamafactory", _started_by("llamafactory-cli")),
    ("torchtune", _nested("model", "_component_")),
    ("nemo", _nested("model", "_target_", "nemo")),
    ("nemo", _nested("peft", "_target_", "nemo")),
    ("autotrain", lambda values: "params" in values and "task" in values),
    ("unsloth", lambda values: isinstance(values.get("training"), Mapping)),
    ("litgpt", _has("checkpoint_dir", "lora_query", "lora_projection")),
    ("llamafactory", _has("finetuning_type", "cutoff_len", "lora_target", "model_class", "peft_config")),
    ("swift", _has("tuner_type", "train_type", "sft_type", "target_regex")),
    ("axolotl", _has("base_model")),
    ("trl", _has("model_name_or_path", "use_peft")),
)


def to_request(config: TrainingConfig) -> dict[str, Any]:
    """Option names of an estimate, with underscores, and their values; what the config leaves open is left out.

    Raises UnsupportedError where what trains in the end is not known.
    """
    if config.own.get("unfrozen_parameters"):
        raise UnsupportedError(
            "unfrozen_parameters trains what its patterns match, in the base too, and nothing else: not counted.",
            where="unfrozen_parameters",
            way_out="leave it out beside an adapter",
        )
    quantization = config.quantization or {}
    bits = quantization.get("bits") if quantization.get("method") == "bnb" and not quantization.get("stored") else None
    precision = {8: "int8", 4: quantization.get("quant_type", "nf4")}.get(bits) if bits else None
    dtype = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(config.base_precision or "")
    options = {
        "model": config.base,
        "revision": None if config.revision in (None, "main") else str(config.revision),
        "lora": {name: value for name, value in config.lora.items() if value is not None and value != "lora-ga"},
        "target_rule": config.target_rule,
        "config_notes": config.notes or None,
        "nothing_trains": config.nothing_trains or None,
        "base_precision": precision,
        "dtype": dtype,
        "double_quant": quantization.get("double_quant") if bits == 4 else None,
        "quant_storage": quantization.get("quant_storage") if bits == 4 else None,
        "compute_dtype": quantization.get("compute_dtype") if bits == 4 else None,
        "prepare_kbit": config.prepare_kbit or None,
        "adapter_dtype": None if config.adapter_dtype in (None, "float32") else config.adapter_dtype,
        "num_labels": config.num_labels,
    }
    return {name: value for name, value in options.items() if value is not None}


def _text(path: str) -> str:
    try:
        if os.path.isdir(path):
            path = os.path.join(path, "adapter_config.json")
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise NotFoundError(f"{path} can't be read: {reason}.", where="--config", way_out="check the path") from error
    if len(raw) > MAX_BYTES:
        raise UsageError(f"the file is over {MAX_BYTES:,} bytes.", where=path, way_out="name a config file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError("the file is not text in UTF-8.", where=path, way_out="name a config file") from error


def _parse(path: str, text: str) -> dict[str, Any]:
    if path.endswith(".py"):
        raise UsageError("Python files are not read.", where=path, way_out="give YAML, JSON or the command line")
    if path.endswith((".sh", ".bash")):
        from estimator.request.command_line import parse_command

        return parse_command(text, path)
    try:
        values = json.loads(text) if text.lstrip().startswith("{") else _yaml(path, text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"the file is neither JSON nor YAML: {error}.", where=path, way_out="mend its syntax"
        ) from error
    if not isinstance(values, dict):
        raise UnknownTrainerError("the file holds no object of named values.", where=path, way_out="name a config file")
    return {key: value for key, value in values.items() if isinstance(key, str)}  # `on:` is true in YAML


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
        raise UsageError(f"broken YAML{line}.", where=path, way_out="mend its syntax") from error
