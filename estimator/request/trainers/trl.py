"""TRL's YAML or command line, and the recipes of alignment-handbook (TRL 1.10.0.dev0: ModelConfig, *Config)."""

from __future__ import annotations

from typing import Any

from estimator.errors import UsageError
from estimator.request.trainers.keys import BNB8, Keys, bnb4, dtype_name, stored_quantization
from estimator.request.trainers.preferences import compared, method_of
from estimator.request.trainers.run_settings import attention_of, autocast_of, strategy_of
from estimator.request.training_config import Freezing, TrainingConfig

SOURCE = "TRL 1.10.0.dev0, ModelConfig and SFTConfig"
DEFAULTS = {
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "lora_task_type": "CAUSAL_LM",
    "dtype": "float32",
    "gradient_checkpointing": True,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "optim": "adamw_torch_fused",
    "bnb_4bit_quant_type": "nf4",
}
# Trainers that still call prepare_model_for_kbit_training and leave the adapter in float32.
PREPARING = ("bco", "cpo", "orpo")
# SFT, DPO, KTO and the reward trainer cut at 1,024 tokens; online methods and own scripts set no max_length.
WITH_LENGTH = ("sft", "dpo", "kto", "reward", "orpo", "cpo", "bco")
ONLINE = ("num_generations", "max_completion_length", "max_new_tokens")
# Processes of the configs for accelerate that TRL ships (trl/accelerate_configs); one GPU's names eight and takes one.
_SHIPPED = {"single_gpu": 1, **dict.fromkeys(("multi_gpu", "zero1", "zero2", "zero3", "fsdp1", "fsdp2"), 8)}


def read(keys: Keys) -> TrainingConfig:
    """Raises UsageError where use_peft is not set."""
    if not keys.flag("use_peft"):
        raise keys.no_lora("use_peft is not set: this config trains no LoRA.", "set use_peft: true")
    handbook = "dataset_mixer" in keys.values or "torch_dtype" in keys.values and "dataset_splits" in keys.values
    script = _script(keys)
    method = method_of(script)
    dtype = _dtype(keys)
    quantization = _quantization(keys, dtype)
    by_bnb = quantization is not None and quantization["method"] == "bnb"
    prepares = by_bnb and (handbook or method in PREPARING)
    zero3 = "zero3" in _launch(keys)
    cast = by_bnb and not prepares  # is_loaded_in_4bit and is_loaded_in_8bit are bitsandbytes' alone
    if zero3 and not quantization:
        keys.note("zero3", "ZeRO-3 keeps the adapter in the base's dtype.")
    return TrainingConfig(
        trainer="alignment-handbook" if handbook else "trl",
        lora=_lora(keys, method),
        freezing=Freezing(dtype="BF16") if cast and keys.values.get("lora_modules_to_save") else None,
        base=keys.values.get("model_name_or_path") or (keys.values.get("model_name") if script else None),
        revision=keys.values.get("model_revision"),
        base_precision=dtype,
        quantization=quantization,
        prepare_kbit=prepares,
        adapter_dtype="bfloat16" if cast else (dtype if zero3 and not quantization else "float32"),
        batch_size=keys.integer("per_device_train_batch_size"),
        gradient_accumulation=keys.integer("gradient_accumulation_steps"),
        sequence_length=_length(keys, script, method),
        packing=keys.flag("packing"),
        **compared(method),
        gradient_checkpointing=keys.flag("gradient_checkpointing"),
        offloads_inputs=keys.flag("activation_offloading"),
        optimizer=keys.get("optim"),
        mixed_precision=autocast_of(
            keys.flag("bf16") if "bf16" in keys.values else not keys.flag("fp16"), keys.flag("fp16")
        ),
        attention=attention_of(keys.values.get("attn_implementation")),
        loss=None if handbook else _loss(keys, script, method),
        gpus=_gpus(keys),
        strategy=strategy_of(_launch(keys), "fsdp" in _launch(keys)),
        num_labels=1 if method == "reward" else None,
        defaulted=tuple(keys.defaulted),
        source=SOURCE,
        notes=tuple(keys.notes),
    )


def _script(keys: Keys) -> str:
    return str(keys.values.get("_program") or "").lower()


def _launch(keys: Keys) -> str:
    said = ("_command", "config_file", "accelerate_config", "deepspeed")
    return " ".join(str(keys.values.get(key) or "") for key in said).lower().replace("_", "").replace("-", "")


def _gpus(keys: Keys) -> int | None:
    """What `trl sft`, or its YAML, hands on to accelerate (trl/cli/commands/training.py)."""
    if not str(keys.values.get("_program") or "trl ").startswith("trl "):
        return None
    return keys.integer("num_processes") or _SHIPPED.get(str(keys.values.get("accelerate_config")))


def _dtype(keys: Keys) -> str | None:
    given = keys.values.get("torch_dtype")
    if given is None:
        given = keys.get("dtype")
    return dtype_name(given)


def _lora(keys: Keys, method: str | None) -> dict[str, Any]:
    targets = keys.values.get("lora_target_modules")
    if isinstance(targets, list):
        targets = targets[0] if len(targets) == 1 else [str(name) for name in targets]
    task = keys.get("lora_task_type")
    return {
        "r": keys.integer("lora_r"),
        "lora_alpha": keys.number("lora_alpha"),
        "lora_dropout": keys.number("lora_dropout"),
        "target_modules": targets,
        "target_parameters": keys.names("lora_target_parameters", commas=False),
        "modules_to_save": keys.names("lora_modules_to_save", commas=False),
        "bias": "none",
        "use_dora": keys.flag("use_dora"),
        "use_rslora": keys.flag("use_rslora"),
        "task_type": "SEQ_CLS" if method == "reward" and "lora_task_type" in keys.defaulted else task,
        "init_lora_weights": True,
    }


def _quantization(keys: Keys, dtype: str | None) -> dict[str, Any] | None:
    if stored := stored_quantization(keys.values.get("model_name_or_path")):
        return stored
    if keys.flag("load_in_4bit") and keys.flag("load_in_8bit"):  # trainer/model_config.py, __post_init__
        what = "TRL refuses load_in_8bit with load_in_4bit."
        raise UsageError(what, where=f"load_in_8bit in {keys.where}", way_out="leave out one of them")
    if keys.flag("load_in_4bit"):
        storage = dtype_name(keys.values.get("bnb_4bit_quant_storage"))
        return bnb4(dtype, keys.flag("use_bnb_nested_quant"), keys.text("bnb_4bit_quant_type"), storage)
    return dict(BNB8) if keys.flag("load_in_8bit") else None


def _loss(keys: Keys, script: str, method: str | None) -> str | None:
    """No other method's is made in rows."""
    if method == "sft" or not (script or any(key in keys.values for key in ONLINE)):
        return sft_loss(keys)
    return "fused" if keys.flag("use_liger_kernel") else None


def sft_loss(keys: Keys) -> str | None:
    """SFTConfig's default is "chunked_nll", but with Liger (sft_config.py, __post_init__)."""
    if keys.flag("use_liger_kernel"):
        return "fused"
    return "in_rows" if keys.values.get("loss_type") in (None, "chunked_nll") else None


def _length(keys: Keys, script: str, method: str | None) -> int | None:
    for key in ("max_length", "max_seq_length"):
        if key in keys.values:
            value = keys.values[key]
            return None if value in (None, "None", "none", "null") else keys.integer(key)
    offline = method in WITH_LENGTH and "online" not in script
    return 1024 if offline or not (script or any(key in keys.values for key in ONLINE)) else None
