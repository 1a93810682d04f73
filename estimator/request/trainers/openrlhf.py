"""OpenRLHF's command line (0.11.0: openrlhf/cli, models/actor.py; the names of its options before 0.10.2 as well).

DeepSpeed casts the whole model, adapter included, to --ds.param_dtype.
"""

from __future__ import annotations

from typing import Any

from estimator.errors import UnsupportedError
from estimator.request.trainers.keys import Keys, bnb4, dtype_name, stored_quantization
from estimator.request.trainers.launch import attention_of
from estimator.request.training_config import TrainingConfig

SOURCE = "OpenRLHF 0.11.0, openrlhf/cli"
DEFAULTS: dict[str, Any] = {
    "lora.rank": 0,
    "lora.alpha": 16,
    "lora.dropout": 0,
    "lora.target_modules": "all-linear",
    "param_dtype": "bf16",
    "zero_stage": 2,
    "max_len": 2048,
    "batch": 8,
}
PPO_DEFAULTS = {**DEFAULTS, "batch": 1}
# What an option is called, the newest name first.
_NAMES = {
    "base": ("model.model_name_or_path", "actor.model_name_or_path", "pretrain"),
    "lora.rank": ("ds.lora.rank", "lora_rank"),
    "lora.alpha": ("ds.lora.alpha", "lora_alpha"),
    "lora.dropout": ("ds.lora.dropout", "lora_dropout"),
    "lora.target_modules": ("ds.lora.target_modules", "target_modules"),
    "load_in_4bit": ("ds.load_in_4bit", "load_in_4bit"),
    "param_dtype": ("ds.param_dtype", "param_dtype"),
    "zero_stage": ("ds.zero_stage", "zero_stage"),
    "attention": ("ds.attn_implementation", "attn_implementation"),
    "packing": ("ds.packing_samples", "packing_samples"),
    "checkpointing": (
        "model.gradient_checkpointing_enable", "actor.gradient_checkpointing_enable", "gradient_checkpointing",
    ),
    "batch": ("train.micro_batch_size", "micro_train_batch_size"),
    "max_len": ("data.max_len", "max_len"),
}  # fmt: skip
_WITH_HEADS = ("train_rm", "train_prm")


def read(keys: Keys) -> TrainingConfig:
    """Raises UsageError where the rank is 0, UnsupportedError for reward models, whose heads are OpenRLHF's own."""
    program = str(keys.values.get("_program"))
    said = _said(keys, PPO_DEFAULTS if "ppo" in program else DEFAULTS)
    if not said.integer("lora.rank"):
        raise keys.no_lora("the rank of LoRA is 0: this command trains none.", "give --ds.lora.rank")
    if program.endswith(_WITH_HEADS):
        what = f"{program} puts a head of its own on the model: not counted."
        raise UnsupportedError(what, where=keys.where, way_out="count the base with --model and the targets")
    if "ppo" in program:
        said.note("critic", "A critic gets an adapter of its own: what is counted is the actor's.")
    dtype = dtype_name(said.get("param_dtype"))
    four = said.flag("load_in_4bit")
    base = said.values.get("base")
    return TrainingConfig(
        trainer="openrlhf",
        lora=_lora(said),
        base=base,
        base_precision=dtype,
        quantization=stored_quantization(base) or (bnb4("bfloat16", True) if four else None),
        adapter_dtype=dtype,
        batch_size=said.integer("batch"),
        sequence_length=said.integer("max_len"),
        packing=said.flag("packing"),
        gradient_checkpointing=said.flag("checkpointing"),
        optimizer="adamw_torch",
        mixed_precision="no",
        attention=attention_of(said.values.get("attention")) or "flash_attention_2",
        strategy=f"zero{said.integer('zero_stage')}" if said.integer("zero_stage") else None,
        defaulted=tuple(said.defaulted),
        source=SOURCE,
        notes=(*keys.notes, *said.notes),
    )


def _said(keys: Keys, defaults: dict[str, Any]) -> Keys:
    """The options by one name each."""
    found = {
        name: keys.values[known]
        for name, names in _NAMES.items()
        if (known := next((one for one in names if one in keys.values), None)) is not None
    }
    return Keys(found, keys.where, defaults)


def _lora(said: Keys) -> dict[str, Any]:
    """--target_modules takes a list: all-linear, given, is a name in it, which PEFT does not find."""
    targets = said.get("lora.target_modules")
    given = "lora.target_modules" in said.values
    return {
        "r": said.integer("lora.rank"),
        "lora_alpha": said.number("lora.alpha"),
        "lora_dropout": said.number("lora.dropout"),
        "target_modules": (targets if isinstance(targets, list) else [targets]) if given else targets,
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
