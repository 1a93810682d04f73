"""Oumi's YAML of a training (main of August 2026: core/configs/params, builders/models.py, train.py)."""

from __future__ import annotations

from typing import Any

from estimator.errors import UnsupportedError
from estimator.request.trainers.keys import BNB8, Keys, bnb4, dtype_name
from estimator.request.trainers.preferences import compared
from estimator.request.trainers.run_settings import attention_of
from estimator.request.training_config import TargetRule, TrainingConfig

SOURCE = "Oumi of August 2026, PeftParams and TrainingParams"
DEFAULTS: dict[str, Any] = {}
PEFT_DEFAULTS = {
    "lora_r": 8,
    "lora_alpha": 8,
    "lora_dropout": 0.0,
    "lora_bias": "none",
    "lora_init_weights": "default",
    "lora_task_type": "CAUSAL_LM",
    "q_lora_bits": 4,
    "bnb_4bit_quant_type": "fp4",
    "bnb_4bit_compute_dtype": "float32",
    "bnb_4bit_quant_storage": "uint8",
}
TRAINING_DEFAULTS = {
    "trainer_type": "HF",
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "optimizer": "adamw_torch",
}
CASTING = ("TRL_SFT", "TRL_DPO", "TRL_KTO", "TRL_GRPO")  # TRL 1: the adapter of a quantised base becomes bfloat16
# supported_models.py, get_all_models_map: types that AutoModelForImageTextToText loads; all others are causal.
MULTIMODAL = (
    "blip-2", "blip", "chameleon", "idefics", "idefics2", "idefics3", "instructblip", "llava", "mllama", "paligemma",
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "vipllava", "internvl", "muse_glimmer",
)  # fmt: skip
WITH_LENGTH = ("TRL_SFT", "TRL_DPO", "TRL_GKD", "TRL_GOLD")  # what model_max_length cuts at
_SHORT = {"f32": "float32", "f16": "float16"}
# LoraWeightInitialization, by its names and values.
_INIT = {"default": True, "random": False, "pisa": "pissa"}


def read(keys: Keys) -> TrainingConfig:
    """Raises UsageError where use_peft is not set, UnsupportedError for what does not go through PEFT."""
    model = Keys(keys.section("model"), keys.where, {"torch_dtype_str": "auto"})
    training = Keys(keys.section("training"), keys.where, TRAINING_DEFAULTS)
    peft = Keys(keys.section("peft"), keys.where, PEFT_DEFAULTS)
    if not training.flag("use_peft"):
        raise keys.no_lora("training.use_peft is not set: this config trains no LoRA.", "set training.use_peft: true")
    trainer = str(training.get("trainer_type")).upper()
    if trainer == "VERL_GRPO":
        what = "trainer_type VERL_GRPO hands the model to verl, which makes an adapter of its own."
        raise UnsupportedError(what, where=f"trainer_type in {keys.where}", way_out="TRL's trainers and HF are read")
    model.continues(model.values.get("adapter_model"))
    dtype = _dtype(model.get("torch_dtype_str"))
    quantization = _quantization(peft) or _dequantized(model)
    sharded = _strategy(keys) == "fsdp"
    q_lora = peft.flag("q_lora")
    coerced = dtype if sharded else "bfloat16" if trainer in CASTING else "float32"
    return TrainingConfig(
        trainer="oumi",
        lora=_lora(peft),
        target_rule=TargetRule(name="causal", settings={"multimodal": MULTIMODAL}),
        base=model.values.get("model_name"),
        revision=model.values.get("model_revision"),
        base_precision=dtype,
        quantization=quantization,
        prepare_kbit=q_lora and not sharded,  # train.py: coerce_model_to_dtype undoes it
        adapter_dtype=coerced if q_lora else "float32",
        batch_size=training.integer("per_device_train_batch_size"),
        gradient_accumulation=training.integer("gradient_accumulation_steps"),
        sequence_length=model.integer("model_max_length") if trainer in WITH_LENGTH else None,
        packing=_packs(keys),
        **compared(trainer.removeprefix("TRL_")),
        gradient_checkpointing=training.flag("enable_gradient_checkpointing"),
        optimizer=training.get("optimizer"),
        mixed_precision=str(training.values.get("mixed_precision_dtype") or "no").lower().replace("none", "no"),
        attention=attention_of(model.values.get("attn_implementation")),
        loss="fused" if model.flag("enable_liger_kernel") else "in_rows" if trainer == "TRL_SFT" else None,
        strategy=_strategy(keys),
        defaulted=(*model.defaulted, *training.defaulted, *peft.defaulted),
        source=SOURCE,
        notes=(*model.notes, *training.notes, *peft.notes, *peft.unread()),
    )


def _lora(peft: Keys) -> dict[str, Any]:
    """PeftParams.to_lora: the names that are left out are joined into one expression."""
    excluded = peft.names("lora_exclude_modules", commas=False)
    init = str(peft.get("lora_init_weights")).lower()
    return {
        "r": peft.integer("lora_r"),
        "lora_alpha": peft.number("lora_alpha"),
        "lora_dropout": peft.number("lora_dropout"),
        "target_modules": peft.targets("lora_target_modules"),
        "exclude_modules": "|".join(f"({name})" for name in excluded) if excluded else None,
        "target_parameters": peft.names("lora_target_parameters", commas=False),
        "modules_to_save": peft.names("lora_modules_to_save", commas=False),
        "bias": str(peft.get("lora_bias")),
        "task_type": str(peft.get("lora_task_type")),
        "init_lora_weights": _INIT.get(init, init),
    }


def _quantization(peft: Keys) -> dict[str, Any] | None:
    if not peft.flag("q_lora"):
        return None
    skipped = peft.names("llm_int8_skip_modules", commas=False)
    skips = {"skip_modules": skipped} if skipped else {}
    bits = peft.integer("q_lora_bits")
    if bits == 8:
        return {**BNB8, **skips}
    if bits != 4:
        raise peft.odd("q_lora_bits", bits, "4 or 8")
    storage = _dtype(peft.get("bnb_4bit_quant_storage"))
    compute = _dtype(peft.get("bnb_4bit_compute_dtype"))
    four = bnb4(compute, peft.flag("use_bnb_nested_quant"), peft.text("bnb_4bit_quant_type"), storage)
    return {**four, **skips}


def _dequantized(model: Keys) -> dict[str, Any] | None:
    """builders/models.py, _get_quantization_config_for_training: MXFP4 alone, and never kept."""
    given = Keys(model.section("model_kwargs"), model.where, {}).section("quantization_config")
    return {"method": "mxfp4", "dequantize": True} if given.get("quant_method") == "mxfp4" else None


def _dtype(value: Any) -> str | None:
    name = str(value).lower()
    return _SHORT.get(name) or dtype_name(name)


def _packs(keys: Keys) -> bool:
    data = Keys(keys.section("data"), keys.where, {})
    return Keys(data.section("train"), keys.where, {}).flag("pack")


def _strategy(keys: Keys) -> str | None:
    if Keys(keys.section("fsdp"), keys.where, {}).flag("enable_fsdp"):
        return "fsdp"
    deepspeed = Keys(keys.section("deepspeed"), keys.where, {})
    if not deepspeed.flag("enable_deepspeed"):
        return None
    stage = str(deepspeed.values.get("zero_stage")).lower().removeprefix("zero_")
    return f"zero{stage}" if stage in ("1", "2", "3") else None
