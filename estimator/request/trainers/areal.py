"""AReaL's YAML (May 2026: areal/api/cli_args.py, engine/fsdp_engine.py): PEFT on the actor, or on what is tuned."""

from __future__ import annotations

from typing import Any

from estimator.errors import UnsupportedError
from estimator.request.trainers.keys import Keys, dtype_name
from estimator.request.trainers.run_settings import attention_of
from estimator.request.training_config import TargetRule, TrainingConfig

SOURCE = "AReaL of May 2026, areal/api/cli_args.py"
DEFAULTS: dict[str, Any] = {}
_ENGINE = {"lora_rank": 32, "lora_alpha": 16, "dtype": "bfloat16", "peft_type": "lora"}
ENGINES = ("actor", "model")  # of a run that reinforces, and of one that tunes
# engine/core/model.py, VALID_VISION_MODELS: loaded whole; of others AutoModelForCausalLM takes the text model.
_SEEING = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "gemma3")


def read(keys: Keys) -> TrainingConfig:
    """Raises UsageError without use_lora, UnsupportedError for Megatron's layers."""
    name = next(name for name in ENGINES if keys.values.get(name) is not None)
    engine = Keys(keys.section(name), keys.where, _ENGINE)
    if not engine.flag("use_lora"):
        raise keys.no_lora("use_lora is not set: this config trains no LoRA.", f"set {name}.use_lora: true")
    backend = str(engine.values.get("backend") or keys.values.get("allocation_mode") or "fsdp")
    if "megatron" in backend or "archon" in backend or engine.get("peft_type") != "lora":
        what = f"{name} is not trained by FSDP with PEFT's LoRA: not counted."
        raise UnsupportedError(what, where=f"{name} in {keys.where}", way_out="backend fsdp and peft_type lora are")
    dtype = dtype_name(engine.get("dtype"))
    return TrainingConfig(
        trainer="areal",
        lora={
            "r": engine.integer("lora_rank"),
            "lora_alpha": engine.number("lora_alpha"),
            "target_modules": engine.targets("target_modules") or "all-linear",
            "bias": "none",
            "task_type": "CAUSAL_LM",
        },
        target_rule=TargetRule(name="causal", settings={"multimodal": _SEEING}),
        base=engine.values.get("path"),
        base_precision=dtype,
        adapter_dtype=dtype,  # get_peft_model(autocast_adapter_dtype=False)
        gradient_checkpointing=engine.flag("gradient_checkpointing"),
        optimizer="adamw_torch",
        mixed_precision="no",
        attention=attention_of(engine.values.get("attn_impl") or "flash_attention_2"),
        strategy="fsdp",
        defaulted=tuple(engine.defaulted),
        source=SOURCE,
        notes=(*keys.notes, *engine.notes),
    )
