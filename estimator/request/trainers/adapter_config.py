"""PEFT's own adapter_config.json."""

from __future__ import annotations

from estimator.request.trainers.keys import Keys
from estimator.request.training_config import TrainingConfig

SOURCE = "PEFT 0.21.2, LoraConfig"
DEFAULTS: dict[str, object] = {}


def read(keys: Keys) -> TrainingConfig:
    base = keys.values.get("base_model_name_or_path")
    return TrainingConfig(
        trainer="peft",
        lora=dict(keys.values),
        base=base or None,
        revision=keys.values.get("revision"),
        prepare_kbit=None,
        adapter_dtype=None,
        packing=None,
        source=SOURCE,
    )
