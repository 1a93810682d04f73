"""The command lines of four scripts that many copies go back to, with PEFT as it is today: artidoro's qlora.py,
alpaca-lora's finetune.py and FastChat's train_lora.py (2023), LMFlow's finetune.py (April 2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator.request.trainers.keys import BNB8, Keys, bnb4, dtype_name
from estimator.request.trainers.run_settings import autocast_of, strategy_of
from estimator.request.training_config import TargetRule, TrainingConfig

SOURCE = "the script's own arguments"
DEFAULTS: dict[str, Any] = {}
_QLORA = {
    "bits": 4,
    "double_quant": True,
    "quant_type": "nf4",
    "lora_r": 64,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "model_name_or_path": "EleutherAI/pythia-12b",
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "gradient_checkpointing": True,
    "source_max_len": 1024,
    "target_max_len": 256,
    "optim": "paged_adamw_32bit",
}
_ALPACA = {
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "lora_target_modules": ["q_proj", "v_proj"],
    "batch_size": 128,
    "micro_batch_size": 4,
    "cutoff_len": 256,
}
_FASTCHAT = {
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "lora_target_modules": ["q_proj", "v_proj"],
    "lora_bias": "none",
    "model_max_length": 512,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "optim": "adamw_torch",
}
_LMFLOW = {
    "lora_r": 8,
    "lora_alpha": 32,
    "lora_dropout": 0.1,
    "quant_bit": 4,
    "quant_type": "nf4",
    "double_quant": True,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "optim": "adamw_torch_fused",
}


def read(keys: Keys) -> TrainingConfig:
    """Raises UsageError where the whole model trains."""
    values, where = keys.values, keys.where
    if values["_program"] == "finetune.py":
        return (_alpaca if "base_model" in values else _lmflow)(values, where)
    return (_qlora if values["_program"] == "qlora.py" else _fastchat)(values, where)


def _qlora(values: Mapping[str, Any], where: str) -> TrainingConfig:
    keys = Keys(values, where, _QLORA)
    if keys.flag("full_finetune"):
        raise keys.no_lora("full_finetune is set: this command trains no LoRA.", "leave it out")
    half = "float16" if keys.flag("fp16") else "bfloat16" if keys.flag("bf16") else "float32"
    bits = keys.integer("bits")
    lengths = [keys.integer("source_max_len"), keys.integer("target_max_len")]
    keys.note(
        "vocabulary_may_grow",
        "qlora.py adds a padding token where the tokenizer has none, and resizes the embeddings to the tokenizer: PEFT "
        "saves them along where that changes their number. --tokenizer or --vocab-size says how many rows there are.",
    )
    return TrainingConfig(
        trainer="qlora.py",
        lora=_lora(keys),
        target_rule=TargetRule(name="linear_names"),
        base=keys.get("model_name_or_path"),
        base_precision="bfloat16" if half == "bfloat16" else "float32",
        quantization=_bits(keys, bits, half),
        prepare_kbit=half != "bfloat16",  # the embeddings go back to bfloat16, as the adapter does
        adapter_dtype="bfloat16" if half == "bfloat16" else "float32",
        batch_size=keys.integer("per_device_train_batch_size"),
        gradient_accumulation=keys.integer("gradient_accumulation_steps"),
        sequence_length=sum(filter(None, lengths)) if all(lengths) else None,
        gradient_checkpointing=keys.flag("gradient_checkpointing"),
        optimizer=keys.get("optim"),
        mixed_precision=autocast_of(keys.flag("bf16"), keys.flag("fp16")),
        strategy=strategy_of(keys.values.get("deepspeed")),
        defaulted=tuple(keys.defaulted),
        source=SOURCE,
        notes=tuple(keys.notes),
    )


def _bits(keys: Keys, bits: int | None, half: str) -> dict[str, Any] | None:
    if bits == 4:
        return bnb4(half, keys.flag("double_quant"), keys.text("quant_type"))
    return dict(BNB8) if bits == 8 else None


def _alpaca(values: Mapping[str, Any], where: str) -> TrainingConfig:
    """Fire reads a list of names as Python or bare words in brackets."""
    keys = Keys(values, where, _ALPACA)
    targets = keys.get("lora_target_modules")
    said = " ".join(targets) if isinstance(targets, list) else str(targets)
    names = [name.strip("[]()'\" ") for name in said.replace(",", " ").split()]
    batch, micro = keys.integer("batch_size"), keys.integer("micro_batch_size")
    return TrainingConfig(
        trainer="alpaca-lora",
        lora={**_lora(keys), "target_modules": [name for name in names if name]},
        base=keys.values.get("base_model"),
        base_precision="float16",
        quantization=dict(BNB8),
        prepare_kbit=True,
        batch_size=micro,
        gradient_accumulation=batch // micro // (keys.values.get("_world") or 1) if batch and micro else None,
        sequence_length=keys.integer("cutoff_len"),
        gradient_checkpointing=True,
        optimizer="adamw_torch",
        mixed_precision="fp16",
        defaulted=tuple(keys.defaulted),
        source=SOURCE,
        notes=tuple(keys.notes),
    )


def _fastchat(values: Mapping[str, Any], where: str) -> TrainingConfig:
    keys = Keys(values, where, _FASTCHAT)
    half = "float16" if keys.flag("fp16") else "bfloat16" if keys.flag("bf16") else "float32"
    quantized = keys.flag("q_lora")
    return TrainingConfig(
        trainer="fastchat",
        lora={
            **_lora(keys),
            "target_modules": keys.names("lora_target_modules", commas=False),
            "bias": keys.text("lora_bias"),
        },
        base=keys.values.get("model_name_or_path"),
        base_precision=None,
        quantization=bnb4(half, True) if quantized else None,
        prepare_kbit=quantized,
        batch_size=keys.integer("per_device_train_batch_size"),
        gradient_accumulation=keys.integer("gradient_accumulation_steps"),
        sequence_length=keys.integer("model_max_length"),
        gradient_checkpointing=keys.flag("gradient_checkpointing"),
        optimizer=keys.get("optim"),
        mixed_precision=autocast_of(keys.flag("bf16"), keys.flag("fp16")),
        attention="flash_attention_2" if keys.flag("flash_attn") else None,
        strategy=strategy_of(keys.values.get("deepspeed"), keys.values.get("fsdp")),
        defaulted=tuple(keys.defaulted),
        source=SOURCE,
        notes=tuple(keys.notes),
    )


def _lmflow(values: Mapping[str, Any], where: str) -> TrainingConfig:
    """PEFT's targets for the model type where none are named (models/hf_model_mixin.py)."""
    keys = Keys(values, where, _LMFLOW)
    quantized, dora = keys.flag("use_qlora"), keys.flag("use_dora")
    if not (quantized or dora or keys.flag("use_lora")):
        raise keys.no_lora("use_lora is not set: this command trains no LoRA.", "set --use_lora 1")
    keys.continues(keys.values.get("lora_model_path"))
    dtype = dtype_name(keys.values.get("torch_dtype"))
    quantization = None
    if quantized:
        four = bnb4("bfloat16", keys.flag("double_quant"), keys.text("quant_type"), "bfloat16")
        quantization = dict(BNB8) if keys.integer("quant_bit") == 8 else four
    return TrainingConfig(
        trainer="lmflow",
        lora={**_lora(keys), "target_modules": keys.names("lora_target_modules"), "use_dora": dora},
        base=keys.values.get("model_name_or_path"),
        base_precision=dtype,
        quantization=quantization,
        batch_size=keys.integer("per_device_train_batch_size"),
        gradient_accumulation=keys.integer("gradient_accumulation_steps"),
        sequence_length=keys.integer("block_size"),
        gradient_checkpointing=keys.flag("gradient_checkpointing"),
        optimizer=keys.get("optim"),
        mixed_precision=autocast_of(keys.flag("bf16"), keys.flag("fp16")),
        strategy=strategy_of(keys.values.get("deepspeed"), "fsdp" in str(keys.values.get("config_file"))),
        defaulted=tuple(keys.defaulted),
        source=SOURCE,
        notes=tuple(keys.notes),
    )


def _lora(keys: Keys) -> dict[str, Any]:
    return {
        "r": keys.integer("lora_r"),
        "lora_alpha": keys.number("lora_alpha"),
        "lora_dropout": keys.number("lora_dropout"),
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
