"""Hugging Face AutoTrain's YAML (0.8.37.dev0: trainers/clm/params.py, trainers/clm/utils.py)."""

from __future__ import annotations

from typing import Any

from estimator.request.trainers.keys import BNB8, Keys, bnb4
from estimator.request.training_config import TrainingConfig

SOURCE = "AutoTrain 0.8.37.dev0, trainers/clm/params.py"
DEFAULTS = {
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "target_modules": "all-linear",
    "quantization": "int4",
    "batch_size": 2,
    "gradient_accumulation": 4,
    "optimizer": "adamw_torch",
    "block_size": 1024,
}
UNSLOTH_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CAUSAL = ("llm", "clm")


def read(keys: Keys) -> TrainingConfig:
    outer = keys
    task = str(outer.values.get("task") or "")
    keys = Keys(outer.section("params"), outer.where, DEFAULTS)
    if not keys.flag("peft"):
        raise outer.no_lora("params.peft is not set: this config trains no LoRA.", "set params.peft: true")
    # Given as null, quantization is off; left out, it is int4.
    quantized = keys.values["quantization"] if "quantization" in keys.values else keys.get("quantization")
    quantization = {"int4": bnb4("float16", False), "int8": dict(BNB8)}.get(str(quantized))
    return TrainingConfig(
        trainer="autotrain",
        lora=_lora(keys, task),
        base=outer.values.get("base_model"),
        base_precision="float16" if quantization else "float32",
        quantization=quantization,
        prepare_kbit=None if keys.flag("unsloth") else quantization is not None,
        batch_size=keys.integer("batch_size"),
        gradient_accumulation=keys.integer("gradient_accumulation"),
        sequence_length=keys.integer("block_size") if task.startswith(CAUSAL) else None,
        gradient_checkpointing=not keys.flag("disable_gradient_checkpointing"),
        optimizer=keys.get("optimizer"),
        mixed_precision=str(keys.values.get("mixed_precision") or "no"),
        defaulted=tuple(keys.defaulted),
        source=SOURCE,
        notes=tuple(keys.notes),
    )


def _lora(keys: Keys, task: str) -> dict[str, Any]:
    targets: Any = keys.get("target_modules")
    if isinstance(targets, str) and targets != "all-linear":
        targets = keys.names("target_modules")
    if keys.flag("unsloth") and targets == "all-linear":
        targets = UNSLOTH_TARGETS
    return {
        "r": keys.integer("lora_r"),
        "lora_alpha": keys.number("lora_alpha"),
        "lora_dropout": keys.number("lora_dropout"),
        "target_modules": targets,
        "target_parameters": None,
        "modules_to_save": None,
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "task_type": "SEQ_CLS" if task.endswith("reward") else "CAUSAL_LM",
        "init_lora_weights": True,
    }
