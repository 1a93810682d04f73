"""EasyR1's YAML (July 2026: verl/workers/actor/config.py, verl/workers/fsdp_workers.py).

It grew out of an early verl, and has LoRA in a section of its own; the class is the one that the checkpoint names.
"""

from __future__ import annotations

from typing import Any

from estimator.request.trainers.keys import Keys, dtype_name
from estimator.request.training_config import TrainingConfig

SOURCE = "EasyR1 of July 2026, verl/workers"
DEFAULTS: dict[str, Any] = {}
_LORA = {"rank": 0, "alpha": 64, "target_modules": "all-linear"}
_ACTOR = {"micro_batch_size_per_device_for_update": 4}
_MACHINES = {"nnodes": 1, "n_gpus_per_node": 8}
_LENGTHS = {"max_prompt_length": 512, "max_response_length": 512}


def read(keys: Keys) -> TrainingConfig:
    """Raises UsageError where lora.rank is 0."""
    actor = Keys(Keys(keys.section("worker"), keys.where, {}).section("actor"), keys.where, _ACTOR)
    model = Keys(actor.section("model"), keys.where, {"enable_gradient_checkpointing": True})
    lora = Keys(model.section("lora"), keys.where, _LORA)
    if not lora.integer("rank"):
        raise keys.no_lora("lora.rank is 0: this config trains no LoRA.", "set worker.actor.model.lora.rank")
    fsdp = Keys(actor.section("fsdp"), keys.where, {"torch_dtype": "fp32"})
    data = Keys(keys.section("data"), keys.where, _LENGTHS)
    machines = Keys(keys.section("trainer"), keys.where, _MACHINES)
    gpus = [machines.integer("nnodes"), machines.integer("n_gpus_per_node")]
    lengths = [data.integer(key) for key in _LENGTHS]
    if model.flag("freeze_vision_tower"):
        what = "freeze_vision_tower may freeze the tower's adapter too: it is counted, unless exclude_modules names it."
        keys.note("frozen_tower", what)
    keys.note(
        "own_file", "EasyR1 writes the adapter's file without the metadata that PEFT adds: it has 32 or 40 bytes less."
    )
    parts = (lora, actor, model, fsdp, data, machines)
    return TrainingConfig(
        trainer="easyr1",
        lora=_lora(lora),
        base=model.values.get("model_path"),
        base_precision="bfloat16",  # what is frozen, once the adapter is made
        adapter_dtype=dtype_name(fsdp.get("torch_dtype")),
        batch_size=actor.integer("micro_batch_size_per_device_for_update"),
        sequence_length=sum(filter(None, lengths)) if all(lengths) else None,
        gradient_checkpointing=model.flag("enable_gradient_checkpointing"),
        optimizer="adamw_torch",
        mixed_precision="bf16",
        attention="flash_attention_2",
        gpus=gpus[0] * gpus[1] if gpus[0] and gpus[1] else None,
        strategy="fsdp",
        saved_by_peft=False,
        defaulted=tuple(key for part in parts for key in part.defaulted),
        source=SOURCE,
        notes=(*keys.notes, *(note for part in parts for note in part.notes)),
    )


def _lora(lora: Keys) -> dict[str, Any]:
    """Targets are all-linear or names with commas, what is left out a regular expression."""
    return {
        "r": lora.integer("rank"),
        "lora_alpha": lora.number("alpha"),
        "target_modules": lora.targets("target_modules", commas=True),
        "exclude_modules": lora.text("exclude_modules"),
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
