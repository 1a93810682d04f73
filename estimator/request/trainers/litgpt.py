"""litgpt's YAML (June 2026: finetune/lora.py, lora.py). One fused qkv holds A and B for each part switched on."""

from __future__ import annotations

from typing import Any

from estimator.errors import UsageError
from estimator.request.trainers.keys import Keys, dtype_name
from estimator.request.training_config import TargetRule, TrainingConfig

SOURCE = "litgpt of June 2026, finetune/lora.py"
DEFAULTS = {
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "lora_query": True,
    "lora_value": True,
    "precision": "bf16-true",
    "devices": 1,
    "num_nodes": 1,
}
TRAIN_DEFAULTS = {"global_batch_size": 16, "micro_batch_size": 1}
OTHERS = (["full"], ["adapter"], ["adapter_v2"])  # of `litgpt finetune` in releases before 0.5
SWITCHES = ("lora_query", "lora_key", "lora_value", "lora_projection", "lora_mlp", "lora_head")


def read(keys: Keys) -> TrainingConfig:
    """Raises NoLoraError for another method's config, UsageError where every switch is off."""
    if not any(key in keys.values for key in (*SWITCHES, "lora_r")) and not _starts_lora(keys):
        raise keys.no_lora("no lora_ key: this config trains no LoRA.", "use the keys of litgpt finetune_lora")
    dotted = {key.removeprefix("train."): value for key, value in keys.values.items() if key.startswith("train.")}
    train = Keys({**keys.section("train"), **dotted}, keys.where, TRAIN_DEFAULTS)
    own = {name: keys.flag(name) for name in SWITCHES}
    if not any(own.values()):
        what = "every lora_ switch is off: litgpt has nothing to train, and its first step fails."
        raise UsageError(what, where=keys.where, way_out="set lora_query: true, or another")
    precision = str(keys.get("precision"))
    mixed = precision.removesuffix("-mixed") if precision.endswith("-mixed") else None
    if mixed and keys.values.get("quantize"):
        raise keys.odd("precision", precision, "bf16-true, 16-true or 32-true: litgpt quantises with no other")
    dtype = "float32" if mixed else dtype_name(precision)  # Fabric's autocast keeps the weights in float32
    micro, whole = train.integer("micro_batch_size"), train.integer("global_batch_size")
    devices = (keys.integer("devices") or 1) * (keys.integer("num_nodes") or 1)
    quantization = _quantization(keys.values.get("quantize"))
    if quantization:
        message = (
            "litgpt quantises every Linear of its own classes: where the published class has others (Falcon), less "
        )
        keys.note("own_classes", f"{message}is loaded than is shown.")
    return TrainingConfig(
        trainer="litgpt",
        lora=_lora(keys, own),
        own=own,
        target_rule=TargetRule(name="litgpt", settings=own),
        base=_base(keys),
        base_precision=dtype,
        quantization=quantization,
        adapter_dtype=dtype,
        batch_size=micro,
        gradient_accumulation=whole // devices // micro if whole and micro else None,
        sequence_length=train.integer("max_seq_length"),
        gradient_checkpointing=devices > 1,
        optimizer=_optimizer(keys),
        loss="chunked",
        mixed_precision={"bf16": "bf16", "16": "fp16"}.get(mixed or "", "no"),
        gpus=devices,
        saved_by_peft=False,
        defaulted=(*keys.defaulted, *train.defaulted),
        source=SOURCE,
        notes=tuple(keys.notes),
    )


def _starts_lora(keys: Keys) -> bool:
    """`litgpt finetune_lora BASE`, and its short name `litgpt finetune`; older releases: `litgpt finetune lora`."""
    words = str(keys.values.get("_command") or "").split()
    behind = words[words.index("litgpt") + 1 :] if "litgpt" in words else []
    return behind[:1] == ["finetune_lora"] or (behind[:1] == ["finetune"] and behind[1:2] not in OTHERS)


def _base(keys: Keys) -> str | None:
    parts = [part for part in str(keys.values.get("checkpoint_dir") or "").split("/") if part]
    return "/".join(parts[-2:]) or None


def _lora(keys: Keys, own: dict[str, bool]) -> dict[str, Any]:
    names = {
        "lora_query": ["q_proj"],
        "lora_key": ["k_proj"],
        "lora_value": ["v_proj"],
        "lora_projection": ["o_proj"],
        "lora_mlp": ["gate_proj", "up_proj", "down_proj"],
        "lora_head": ["lm_head"],
    }
    return {
        "r": keys.integer("lora_r"),
        "lora_alpha": keys.number("lora_alpha"),
        "lora_dropout": keys.number("lora_dropout"),
        "target_modules": sorted(name for switch, on in own.items() if on for name in names[switch]),
        "bias": "none",
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }


def _quantization(value: Any) -> dict[str, Any] | None:
    """By Fabric's BitsandbytesPrecision, which converts every Linear, the head as well."""
    if not isinstance(value, str) or not value.startswith("bnb."):
        return None
    kind, _, double = value.removeprefix("bnb.").partition("-")
    if kind == "int8":
        return {"method": "bnb", "bits": 8, "skip_modules": []}
    return {"method": "bnb", "bits": 4, "quant_type": kind, "double_quant": double == "dq", "skip_modules": []}


def _optimizer(keys: Keys) -> str | None:
    value = keys.values.get("optimizer")
    if keys.values.get("quantize"):
        return "bitsandbytes.optim.PagedAdamW"
    return value.get("class_path") if isinstance(value, dict) else value
