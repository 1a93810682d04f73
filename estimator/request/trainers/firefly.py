"""Firefly's JSON (October 2024: train.py, component/argument.py): LoRA on every Linear but the head."""

from __future__ import annotations

from estimator.request.trainers.keys import Keys, bnb4
from estimator.request.trainers.run_settings import autocast_of, strategy_of
from estimator.request.training_config import TargetRule, TrainingConfig

SOURCE = "Firefly of October 2024, component/argument.py"
DEFAULTS = {
    "train_mode": "qlora",
    "task_type": "sft",
    "lora_rank": 64,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "optim": "adamw_torch_fused",
}


def read(keys: Keys) -> TrainingConfig:
    """Raises UsageError where train_mode is full."""
    mode = keys.text("train_mode")
    if mode not in ("lora", "qlora"):
        raise keys.no_lora(f"train_mode is {mode!r}: this config trains no LoRA.", "set train_mode: lora or qlora")
    unsloth = keys.flag("use_unsloth")
    dtype = "float16" if keys.flag("fp16") else "bfloat16"
    quantized = mode == "qlora"
    return TrainingConfig(
        trainer="firefly",
        lora={
            "r": keys.integer("lora_rank"),
            "lora_alpha": keys.number("lora_alpha"),
            "lora_dropout": keys.number("lora_dropout"),
            "bias": "none",
            "task_type": "CAUSAL_LM",
        },
        target_rule=TargetRule(name="linear_names", settings={"unsloth": unsloth}),
        base=keys.values.get("model_name_or_path"),
        base_precision=dtype,
        quantization=bnb4("bfloat16" if unsloth else dtype, True) if quantized else None,
        prepare_kbit=quantized and not unsloth and keys.get("task_type") in ("pretrain", "sft"),
        batch_size=keys.integer("per_device_train_batch_size"),
        gradient_accumulation=keys.integer("gradient_accumulation_steps"),
        sequence_length=keys.integer("max_seq_length"),
        gradient_checkpointing=keys.flag("gradient_checkpointing"),
        optimizer=keys.get("optim"),
        mixed_precision=autocast_of(not keys.flag("fp16"), keys.flag("fp16")),
        strategy=strategy_of(keys.values.get("deepspeed")),
        defaulted=tuple(keys.defaulted),
        source=SOURCE,
        notes=tuple(keys.notes),
    )
