"""The command line or JSON of PEFT's own example of a training (August 2026: examples/sft, train.py and utils.py).

It hands its model and a LoraConfig to TRL's SFTTrainer; with use_unsloth Unsloth makes the adapter.
"""

from __future__ import annotations

from typing import Any

from estimator.request.trainers.keys import BNB8, Keys, bnb4, dtype_name, stored_quantization
from estimator.request.trainers.run_settings import autocast_of, strategy_of
from estimator.request.trainers.trl import sft_loss
from estimator.request.training_config import TargetRule, TrainingConfig

SOURCE = "PEFT's examples/sft of August 2026, and SFTConfig of TRL 1.10.0.dev0"
DEFAULTS = {
    "lora_r": 64,
    "lora_alpha": 16,
    "lora_dropout": 0.1,
    "lora_target_modules": "q_proj,k_proj,v_proj,o_proj,down_proj,up_proj,gate_proj",
    "bnb_4bit_compute_dtype": "float16",
    "bnb_4bit_quant_storage_dtype": "uint8",
    "bnb_4bit_quant_type": "nf4",
    "chat_template_format": "none",
    "gradient_checkpointing": True,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "max_length": 1024,
    "optim": "adamw_torch_fused",
}
_FLOATING = ("float32", "float16", "bfloat16")


def read(keys: Keys) -> TrainingConfig:
    """Raises UsageError where use_peft_lora is not set."""
    unsloth = keys.flag("use_unsloth")
    if not (unsloth or keys.flag("use_peft_lora")):
        raise keys.no_lora("use_peft_lora is not set: this config trains no LoRA.", "set use_peft_lora: true")
    if keys.get("chat_template_format") in ("chatml", "zephyr"):
        keys.note(
            "vocabulary_may_grow",
            "chat_template_format adds tokens and rounds the embeddings' rows up to a multiple of 8: PEFT saves them "
            "along where that changes their number. --vocab-size says how many there are.",
        )
    storage = dtype_name(keys.get("bnb_4bit_quant_storage_dtype"))
    four = keys.flag("use_4bit_quantization")
    quantization = _quantization(keys, storage, unsloth)
    cast = quantization is not None and quantization["method"] == "bnb" and not unsloth
    dtype = storage if four and storage in _FLOATING else "float32"
    launcher = keys.values.get("config_file")
    return TrainingConfig(
        trainer="peft-sft",
        lora=_lora(keys),
        target_rule=_rule(keys, unsloth),
        base=keys.values.get("model_name_or_path"),
        base_precision="bfloat16" if unsloth else dtype,
        quantization=quantization,
        adapter_dtype="bfloat16" if cast else "float32",
        batch_size=keys.integer("per_device_train_batch_size"),
        gradient_accumulation=keys.integer("gradient_accumulation_steps"),
        sequence_length=keys.integer("max_length"),
        packing=keys.flag("packing"),
        gradient_checkpointing=keys.flag("gradient_checkpointing"),
        optimizer=keys.get("optim"),
        mixed_precision=autocast_of(keys.flag("bf16") or not keys.flag("fp16"), keys.flag("fp16")),
        attention="flash_attention_2" if keys.flag("use_flash_attn") else None,
        loss=sft_loss(keys) if not unsloth else "fused" if keys.flag("use_liger_kernel") else None,
        strategy=strategy_of(launcher, "fsdp" in str(launcher)),
        defaulted=tuple(keys.defaulted),
        source=SOURCE,
        notes=tuple(keys.notes),
    )


def _rule(keys: Keys, unsloth: bool) -> TargetRule:
    if not unsloth:
        return TargetRule(name="causal", settings={"multimodal": ()})
    return TargetRule(name="unsloth", settings={"all_linear": keys.text("lora_target_modules") == "all-linear"})


def _lora(keys: Keys) -> dict[str, Any]:
    targets = keys.text("lora_target_modules")
    return {
        "r": keys.integer("lora_r"),
        "lora_alpha": keys.number("lora_alpha"),
        "lora_dropout": keys.number("lora_dropout"),
        "target_modules": targets if targets in (None, "all-linear") else targets.split(","),
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }


def _quantization(keys: Keys, storage: str | None, unsloth: bool) -> dict[str, Any] | None:
    if stored := stored_quantization(keys.values.get("model_name_or_path")):
        return stored
    if keys.flag("use_4bit_quantization"):
        if unsloth:
            return bnb4("bfloat16", True)
        compute = dtype_name(keys.get("bnb_4bit_compute_dtype"))
        return bnb4(compute, keys.flag("use_nested_quant"), keys.text("bnb_4bit_quant_type"), storage)
    return dict(BNB8) if keys.flag("use_8bit_quantization") and not unsloth else None
