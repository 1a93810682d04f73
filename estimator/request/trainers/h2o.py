"""H2O LLM Studio's YAML (March 2026: python_configs/, src/utils/modeling_utils.py)."""

from __future__ import annotations

from typing import Any

from estimator.errors import UnsupportedError
from estimator.request.trainers.keys import BNB8, Keys, bnb4
from estimator.request.trainers.preferences import compared
from estimator.request.trainers.run_settings import attention_of
from estimator.request.training_config import TargetRule, TrainingConfig

SOURCE = "H2O LLM Studio of March 2026, python_configs"
DEFAULTS: dict[str, Any] = {}
_TRAINING = {
    "lora": True,
    "lora_r": 4,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "batch_size": 2,
    "grad_accumulation": 1,
    "optimizer": "AdamW",
}
_ARCHITECTURE = {"backbone_dtype": "int4", "gradient_checkpointing": True}
_READ = ("text_causal_language_modeling", "text_dpo_modeling")
_WITHOUT_REFERENCE = ("CPOLoss", "SimPOLoss")
_OPTIMIZERS = {"AdamW": "adamw_torch", "AdamW8bit": "adamw_bnb_8bit", "Adam": "adamw_torch", "SGD": "sgd"}


def read(keys: Keys) -> TrainingConfig:
    """Raises UsageError where lora is off, UnsupportedError for problems with a head or a class of their own."""
    training = Keys(keys.section("training"), keys.where, _TRAINING)
    architecture = Keys(keys.section("architecture"), keys.where, _ARCHITECTURE)
    tokenizer = Keys(keys.section("tokenizer"), keys.where, {"max_length": 512})
    environment = Keys(keys.section("environment"), keys.where, {})
    if not training.flag("lora"):
        raise keys.no_lora("training.lora is off: this config trains no LoRA.", "set training.lora: true")
    _refuse(keys, training)
    dtype = str(architecture.get("backbone_dtype"))
    quantization = {"int4": bnb4("float16", False), "int8": dict(BNB8)}.get(dtype)
    keys.note(
        "vocabulary_may_grow",
        "The embeddings get more rows where the tokenizer has more tokens: PEFT then saves them along. --tokenizer or "
        "--vocab-size says how many.",
    )
    read_parts = (training, architecture, tokenizer, environment)
    gpus = environment.names("gpus") or []
    mixed = str(environment.values.get("mixed_precision_dtype") or "bfloat16")
    return TrainingConfig(
        trainer="h2o",
        lora=_lora(training),
        target_rule=_rule(training),
        base=keys.values.get("llm_backbone"),
        revision=environment.values.get("huggingface_branch"),
        base_precision="float16" if quantization else dtype,
        quantization=quantization,
        prepare_kbit=quantization is not None,  # it casts to float32 what is not quantised, as PEFT's function does
        batch_size=training.integer("batch_size"),
        gradient_accumulation=training.integer("grad_accumulation"),
        sequence_length=tokenizer.integer("max_length"),
        **_compared(keys, training),
        gradient_checkpointing=architecture.flag("gradient_checkpointing"),
        optimizer=_OPTIMIZERS.get(str(training.get("optimizer"))),
        mixed_precision={"bfloat16": "bf16", "float16": "fp16"}.get(mixed, "no"),
        attention=attention_of(training.values.get("attention_implementation")),
        gpus=len(gpus) or None,
        defaulted=tuple(key for part in read_parts for key in part.defaulted),
        source=SOURCE,
        notes=(*keys.notes, *(note for part in read_parts for note in part.notes)),
    )


def _refuse(keys: Keys, training: Keys) -> None:
    problem = str(keys.values.get("problem_type") or _READ[0])
    if problem not in _READ:
        what = f"{problem[:60]!r} trains a head, or loads a class, of its own: not counted."
        raise UnsupportedError(what, where=f"problem_type in {keys.where}", way_out=f"{' and '.join(_READ)} are")
    if training.names("lora_unfreeze_layers"):
        what = "lora_unfreeze_layers trains layers of the base beside the adapter: not counted."
        raise UnsupportedError(what, where=f"training in {keys.where}", way_out="leave it out")


def _compared(keys: Keys, training: Keys) -> dict[str, Any]:
    """src/losses/text_dpo_modeling_losses.py: requires_reference_model."""
    if keys.values.get("problem_type") != "text_dpo_modeling":
        return {}
    return compared("dpo") | ({"beside": None} if training.values.get("loss_function") in _WITHOUT_REFERENCE else {})


def _rule(training: Keys) -> TargetRule:
    if training.names("lora_target_modules"):
        return TargetRule(name="causal", settings={"multimodal": ()})
    return TargetRule(name="h2o")


def _lora(training: Keys) -> dict[str, Any]:
    return {
        "r": training.integer("lora_r"),
        "lora_alpha": training.number("lora_alpha"),
        "lora_dropout": training.number("lora_dropout"),
        "target_modules": training.names("lora_target_modules") or None,
        "bias": "none",
        "use_dora": training.flag("use_dora"),
        "use_rslora": training.flag("use_rslora"),
        "task_type": "CAUSAL_LM",
    }
