"""Whose config a file is, told by keys that no other trainer has; a file of a script of one's own is nobody's.

People's own scripts name their keys after these trainers': what a trainer would not take (`target_modules` beside
TRL's `use_peft`, a `lora` with `r` in it beside Unsloth's `training`) tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_SWIFT = frozenset(
    f"{program} {command}"
    for program in ("swift", "megatron")
    for command in ("sft", "pt", "rlhf", "infer", "export", "deploy", "eval", "sample", "app", "rollout", "merge-lora")
)
# Of the section `lora` of Unsloth's application (August 2026, unsloth_cli/config.py and its per-model defaults).
_UNSLOTH = frozenset(
    (
        "lora_r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save", "vision_all_linear", "use_rslora",
        "use_loftq", "use_dora", "finetune_vision_layers", "finetune_language_layers", "finetune_attention_modules",
        "finetune_mlp_modules",
    )
)  # fmt: skip
# ModelConfig of TRL 1.10.0.dev0; its parser refuses every other key of this kind.
_TRL = frozenset(
    (
        "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters", "lora_modules_to_save",
        "lora_task_type",
    )
)  # fmt: skip
_NO_TRL = ("target_modules", "lora", "use_adalora")
# PeftParams of Oumi (August 2026), which takes no other key in its section `peft`.
_OUMI = frozenset(
    (
        "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_exclude_modules", "lora_target_parameters",
        "lora_modules_to_save", "lora_bias", "lora_init_weights", "lora_task_type", "q_lora", "q_lora_bits",
        "bnb_4bit_quant_type", "llm_int8_skip_modules", "use_bnb_nested_quant", "bnb_4bit_quant_storage",
        "bnb_4bit_compute_dtype", "peft_save_mode",
    )
)  # fmt: skip
_LITGPT = frozenset(("lora_query", "lora_key", "lora_value", "lora_projection", "lora_mlp", "lora_head"))
_FIRST_SCRIPTS = {
    "qlora.py": ("bits", "source_max_len", "max_memory_MB", "dataset_format", "full_finetune"),
    "finetune.py": (
        "base_model data_path", "base_model lora_target_modules", "base_model cutoff_len", "dataset_path use_lora",
        "dataset_path use_qlora", "dataset_path use_dora",
    ),
    "train_lora.py": ("q_lora", "lora_bias", "model_name_or_path lora_r"),
}  # fmt: skip
_AXOLOTL = ("adapter", "datasets", "pretraining_dataset", "sequence_len", "micro_batch_size")
_LLAMAFACTORY = ("finetuning_type", "lora_target", "pissa_init", "additional_target")
_TRL_DATA = ("dataset_name", "dataset_mixer", "dataset_mixture", "dataset_id_or_path")


def recognise(values: Mapping[str, Any]) -> str | None:
    """The name of the trainer's file in `request.trainers`; None for a config of nobody."""
    return next((trainer for trainer, matches in _SIGNS if matches(values)), None)


def _program(values: Mapping[str, Any]) -> str:
    return str(values.get("_program") or "")


def _section(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = values.get(key)
    return section if isinstance(section, Mapping) else {}


def _adapter_config(values: Mapping[str, Any]) -> bool:
    return "peft_type" in values


def _swift(values: Mapping[str, Any]) -> bool:
    """Of a command, its YAML, or the YAML that Ray takes, which has the training's own options in a group."""
    said = any(key in values for key in ("tuner_type", "sft_type", "target_regex"))
    if "rlhf_type" in values and "tuner_type" in _section(values, "train"):
        return True
    model = any(key in values for key in ("model", "model_id_or_path", "model_type"))
    return _program(values) in _SWIFT or said or ("train_type" in values and model)


def _llamafactory(values: Mapping[str, Any]) -> bool:
    """Of both generations; a key of LLaMA-Factory's alone, or its template beside its cutoff_len."""
    model = "model_name_or_path" in values
    keys = any(key in values for key in _LLAMAFACTORY) or {"cutoff_len", "template"} <= values.keys()
    first = "model" in values and ("model_class" in values or "name" in _section(values, "peft_config"))
    return _program(values).startswith("llamafactory-cli") or "finetuning_type" in values or (model and keys) or first


def _torchtune(values: Mapping[str, Any]) -> bool:
    return "_component_" in _section(values, "model") or _program(values) == "tune run"


def _nemo(values: Mapping[str, Any]) -> bool:
    return any(str(_section(values, section).get("_target_")).startswith("nemo") for section in ("model", "peft"))


def _autotrain(values: Mapping[str, Any]) -> bool:
    return _program(values).startswith("autotrain ") or {"task", "base_model", "params"} <= values.keys()


def _unsloth(values: Mapping[str, Any]) -> bool:
    training, lora = _section(values, "training"), _section(values, "lora")
    return bool(training) and ("training_type" in training or "lora_r" in lora) and lora.keys() <= _UNSLOTH


def _oumi(values: Mapping[str, Any]) -> bool:
    model, training = _section(values, "model"), _section(values, "training")
    trains = "use_peft" in training or str(training.get("trainer_type")).upper().startswith(("TRL_", "VERL_"))
    return "model_name" in model and trains and _section(values, "peft").keys() <= _OUMI


def _ludwig(values: Mapping[str, Any]) -> bool:
    sections = any(key in values for key in ("input_features", "adapters")) or bool(_section(values, "adapter"))
    return values.get("model_type") == "llm" and "base_model" in values and sections


def _verl(values: Mapping[str, Any]) -> bool:
    reinforced = isinstance(_section(values, "actor_rollout_ref").get("model"), Mapping)
    return reinforced or _program(values).startswith("verl ") or "partial_pretrain" in _section(values, "model")


def _openrlhf(values: Mapping[str, Any]) -> bool:
    return _program(values).startswith("openrlhf ")


def _litgpt(values: Mapping[str, Any]) -> bool:
    run = "checkpoint_dir" in values and ("lora_r" in values or bool(_section(values, "train")))
    started = _program(values).startswith("litgpt finetune")
    return not _LITGPT.isdisjoint(values) or started or (run and not _program(values))


def _axolotl(values: Mapping[str, Any]) -> bool:
    foreign = any(key in values for key in ("target_modules", "lora_rank", "lora", "peft_config", "use_peft"))
    foreign = foreign or isinstance(values.get("adapter"), Mapping)
    file = "base_model" in values and not _program(values) and not foreign and any(key in values for key in _AXOLOTL)
    return file or (_program(values).startswith("axolotl train") and "config" in values)


def _easyr1(values: Mapping[str, Any]) -> bool:
    return "model_path" in _section(_section(_section(values, "worker"), "actor"), "model")


def _areal(values: Mapping[str, Any]) -> bool:
    return any({"path", "mb_spec"} <= _section(values, name).keys() for name in ("actor", "model"))


def _h2o(values: Mapping[str, Any]) -> bool:
    return "llm_backbone" in values and ("problem_type" in values or "lora" in _section(values, "training"))


def _firefly(values: Mapping[str, Any]) -> bool:
    own = any(key in values for key in ("train_mode", "lora_rank"))
    return own and {"model_name_or_path", "train_file", "max_seq_length"} <= values.keys() and not _program(values)


def _first_scripts(values: Mapping[str, Any]) -> bool:
    """By the script's name, and an option that is its own."""
    own = _FIRST_SCRIPTS.get(_program(values), ())
    return any(set(option.split()) <= values.keys() for option in own)


def _peft_sft(values: Mapping[str, Any]) -> bool:
    """Of PEFT's example as it is today: older copies of it name the base and the length otherwise."""
    own = any(key in values for key in ("chat_template_format", "append_concat_token", "splits"))
    return "use_peft_lora" in values and "model_name_or_path" in values and own


def _trl(values: Mapping[str, Any]) -> bool:
    foreign = {key for key in values if key.startswith(("lora_", "peft_")) or key in _NO_TRL} - _TRL
    recipe = "model_name_or_path" in values and any(key in values for key in _TRL_DATA) and not _program(values)
    return not foreign and ("use_peft" in values or recipe or _program(values).startswith("trl "))


# The first that matches.
_SIGNS: tuple[tuple[str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("adapter_config", _adapter_config),
    ("torchtune", _torchtune),
    ("nemo", _nemo),
    ("autotrain", _autotrain),
    ("oumi", _oumi),
    ("ludwig", _ludwig),
    ("easyr1", _easyr1),
    ("verl", _verl),
    ("openrlhf", _openrlhf),
    ("areal", _areal),
    ("h2o", _h2o),
    ("first_scripts", _first_scripts),
    ("unsloth", _unsloth),
    ("litgpt", _litgpt),
    ("firefly", _firefly),
    ("llamafactory", _llamafactory),
    ("swift", _swift),
    ("axolotl", _axolotl),
    ("peft_sft", _peft_sft),
    ("trl", _trl),
)
