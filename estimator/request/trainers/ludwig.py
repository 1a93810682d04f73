"""Ludwig's YAML of a language model (July 2026: schema/llms/peft.py and quantization.py, models/llm.py)."""

from __future__ import annotations

from typing import Any

from estimator.errors import UnsupportedError
from estimator.request.trainers.keys import BNB8, Keys, bnb4
from estimator.request.training_config import TargetRule, TrainingConfig

SOURCE = "Ludwig of July 2026, LoraConfig and QuantizationConfig"
DEFAULTS: dict[str, Any] = {}
ADAPTER_DEFAULTS = {"r": 8, "dropout": 0.05, "bias_type": "none", "init_lora_weights": "default"}
QUANTIZATION_DEFAULTS = {
    "backend": "bitsandbytes",
    "bits": 4,
    "bnb_4bit_compute_dtype": "float16",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_quant_type": "nf4",
}


def read(keys: Keys) -> TrainingConfig:
    """Raises UsageError where no LoRA is asked for, UnsupportedError for several adapters and for torchao."""
    if keys.values.get("adapters"):
        what = "adapters names several: which of them counts is not said."
        raise UnsupportedError(what, where=f"adapters in {keys.where}", way_out="name one in adapter")
    adapter = Keys(keys.section("adapter"), keys.where, ADAPTER_DEFAULTS)
    if adapter.values.get("type") != "lora":
        raise keys.no_lora("adapter.type is not lora: this config trains no LoRA.", "set adapter.type: lora")
    adapter.continues(adapter.values.get("pretrained_adapter_weights"))
    trainer = Keys(keys.section("trainer"), keys.where, {"batch_size": 1})
    given = Keys(keys.section("quantization"), keys.where, QUANTIZATION_DEFAULTS)
    quantization = _quantization(given) if given.values else None
    sees = keys.flag("is_multimodal")
    return TrainingConfig(
        trainer="ludwig",
        lora=_lora(adapter),
        target_rule=None if sees else TargetRule(name="causal", settings={"multimodal": ()}),
        base=keys.values.get("base_model"),
        base_precision=str(given.get("bnb_4bit_compute_dtype")) if quantization else "float32",
        quantization=quantization,
        prepare_kbit=quantization is not None,
        batch_size=_number(trainer, "batch_size"),
        gradient_accumulation=_number(trainer, "gradient_accumulation_steps"),
        gradient_checkpointing=trainer.flag("enable_gradient_checkpointing"),
        defaulted=(*adapter.defaulted, *trainer.defaulted),
        source=SOURCE,
        notes=tuple(adapter.notes),
    )


def _lora(adapter: Keys) -> dict[str, Any]:
    targets, rank, alpha = adapter.values.get("target_modules"), adapter.integer("r"), adapter.number("alpha")
    init = adapter.get("init_lora_weights")
    return {
        "r": rank,
        "lora_alpha": 2 * (rank or 0) if alpha is None else alpha,
        "lora_dropout": adapter.number("dropout"),
        "bias": adapter.get("bias_type"),
        "target_modules": targets if isinstance(targets, str) else adapter.names("target_modules"),
        "task_type": "CAUSAL_LM",
        "use_rslora": adapter.flag("use_rslora"),
        "use_dora": adapter.flag("use_dora"),
        "init_lora_weights": True if init == "default" else init,
        "rank_pattern": adapter.values.get("rank_pattern") or {},
        "alpha_pattern": adapter.values.get("alpha_pattern") or {},
        "layer_replication": adapter.values.get("layer_replication"),
        **{name: adapter.values[name] for name in (f"{init}_config",) if adapter.values.get(name)},
    }


def _quantization(given: Keys) -> dict[str, Any]:
    """llm_utils.py, load_pretrained_from_config; what is not quantised is loaded in the dtype that computes."""
    if given.get("backend") != "bitsandbytes":
        what = "Ludwig quantises with torchao only after the model is loaded: not counted."
        raise UnsupportedError(what, where=f"quantization.backend in {given.where}", way_out="backend: bitsandbytes")
    bits = given.integer("bits")
    if bits not in (4, 8):
        raise given.odd("bits", bits, "4 or 8")
    compute, double = str(given.get("bnb_4bit_compute_dtype")), given.flag("bnb_4bit_use_double_quant")
    return dict(BNB8) if bits == 8 else bnb4(compute, double, given.text("bnb_4bit_quant_type"))


def _number(keys: Keys, key: str) -> int | None:
    return None if keys.values.get(key) == "auto" else keys.integer(key)
