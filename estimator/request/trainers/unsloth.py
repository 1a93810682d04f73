"""The YAML of Unsloth's application (August 2026: its command line's schema and its per-model defaults)."""

from __future__ import annotations

from typing import Any

from estimator.request.trainers.keys import Keys, bnb4
from estimator.request.training_config import TargetRule, TrainingConfig

SOURCE = "Unsloth of August 2026, the command line's schema"
DEFAULTS = {
    "load_in_4bit": True,
    "batch_size": 2,
    "gradient_accumulation_steps": 4,
    "max_seq_length": 2048,
    "gradient_checkpointing": "unsloth",
    "optim": "adamw_8bit",
}
LORA_DEFAULTS = {
    "lora_r": 64,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
ALL_LINEAR = "all-linear"
SCOPES = ("finetune_vision_layers", "finetune_language_layers", "finetune_attention_modules", "finetune_mlp_modules")


def read(keys: Keys) -> TrainingConfig:
    training = Keys(keys.section("training"), keys.where, DEFAULTS)
    lora = Keys(keys.section("lora"), keys.where, LORA_DEFAULTS)
    if training.values.get("training_type") in ("full", "full_finetuning") or not (lora.values or training.values):
        raise keys.no_lora("training_type is full: this config trains no LoRA.", "set training_type: lora")
    if lora.values.get("modules_to_save"):
        message = "modules_to_save is not read by Unsloth's application: embed_tokens in target_modules trains in full."
        lora.note("not_read", message)
    base = keys.values.get("model")
    scopes = {name: lora.flag(name) for name in SCOPES if name in lora.values}
    offloads = training.get("gradient_checkpointing") == "unsloth"  # true is transformers' own, which keeps them
    return TrainingConfig(
        trainer="unsloth",
        lora=_lora(lora),
        own=scopes,
        target_rule=TargetRule(name="unsloth", settings=_settings(lora, scopes)),
        base=base,
        base_precision="bfloat16",
        quantization=_quantization(training, str(base or "")),
        batch_size=training.integer("batch_size"),
        gradient_accumulation=training.integer("gradient_accumulation_steps"),
        sequence_length=training.integer("max_seq_length"),
        packing=training.flag("packing"),
        gradient_checkpointing=offloads or training.flag("gradient_checkpointing"),
        offloads_inputs=offloads,
        optimizer=training.get("optim"),
        mixed_precision="bf16",
        loss="fused",
        defaulted=(*training.defaulted, *lora.defaulted),
        source=SOURCE,
        notes=(*lora.notes, *lora.unread()),
    )


def _settings(lora: Keys, scopes: dict[str, bool]) -> dict[str, Any]:
    """A list is the server's; text is the command line's, which reads vision_all_linear alone for models that see."""
    names = lora.names("target_modules")
    text = "target_modules" not in lora.values or isinstance(lora.values["target_modules"], str)
    return {
        "scopes": scopes,
        "all_linear": names == [ALL_LINEAR],
        "text_names": text,
        "vision_all_linear": text and lora.flag("vision_all_linear"),
    }


def _targets(lora: Keys) -> list[str] | None:
    names = lora.names("target_modules") or []
    return [name for name in names if name != ALL_LINEAR or len(names) == 1] or None


def _lora(lora: Keys) -> dict[str, Any]:
    return {
        "r": lora.integer("lora_r"),
        "lora_alpha": lora.number("lora_alpha"),
        "lora_dropout": lora.number("lora_dropout"),
        "target_modules": _targets(lora),
        "target_parameters": None,
        "modules_to_save": None,
        "bias": "none",
        "use_dora": lora.flag("use_dora"),
        "use_rslora": lora.flag("use_rslora"),
        "task_type": "CAUSAL_LM",
        "init_lora_weights": "loftq" if lora.flag("use_loftq") else True,
    }


def _quantization(training: Keys, base: str) -> dict[str, Any] | None:
    stored = base.lower().endswith("-bnb-4bit")
    if not stored and not training.flag("load_in_4bit"):
        return None
    return {**bnb4("bfloat16", True), **({"stored": True} if stored else {})}
