"""verl's command line or YAML (verl 0.7.0: trainer/config, workers/fsdp_workers.py, trainer/fsdp_sft_trainer.py).

FSDP's workers put PEFT's LoRA on the actor. Megatron's put Megatron-Bridge's own layers in: not counted.
"""

from __future__ import annotations

from typing import Any

from estimator.errors import UnsupportedError
from estimator.request.trainers.keys import Keys, dtype_name
from estimator.request.trainers.verl_step import step_of
from estimator.request.training_config import TargetRule, TrainingConfig

SOURCE = "verl 0.7.0, trainer/config"
DEFAULTS: dict[str, Any] = {}
MODEL_DEFAULTS = {
    "lora_rank": 0,
    "lora_alpha": 16,
    "target_modules": "all-linear",
    "enable_gradient_checkpointing": True,
}
# Configs that verl itself ships: their values are the defaults above.
_OWN_CONFIGS = ("ppo_trainer", "sft_trainer", "sft_trainer_engine", "ppo_megatron_trainer")


def read(keys: Keys) -> TrainingConfig:
    """Raises UsageError where lora_rank is 0, UnsupportedError for Megatron's layers and configs in other files."""
    parts = Keys(keys.section("actor_rollout_ref"), keys.where, {})
    tunes = not parts.values  # supervised
    model = Keys((keys if tunes else parts).section("model"), keys.where, MODEL_DEFAULTS)
    actor = Keys(parts.section("actor"), keys.where, {})
    _refuse_other_file(keys)
    _refuse_megatron(keys, model, actor)
    _refuse_no_rank(keys, model)
    _remark(keys, model, actor)
    by_itself = "partial_pretrain" in model.values  # fsdp_sft_trainer
    sharding = _sharding(keys, model, actor, tunes=tunes)
    dtype = dtype_name(sharding.get("model_dtype"))  # float32 where nothing is said: FSDP computes in bfloat16
    step = step_of(keys, parts, sharding, engine=tunes and not by_itself)
    return TrainingConfig(
        trainer="verl",
        lora=_lora(model),
        target_rule=TargetRule(name="causal", settings={"multimodal": ()}) if by_itself else None,
        base=model.values.get("partial_pretrain" if by_itself else "path"),
        base_precision=dtype,
        adapter_dtype=dtype if by_itself else "float32",
        batch_size=step.batch_size,
        sequence_length=step.length,
        gradient_checkpointing=model.flag("enable_gradient_checkpointing"),
        optimizer="adamw_torch",
        mixed_precision="bf16",
        attention="flash_attention_2",
        gpus=step.gpus,
        offloads=step.offloads,
        strategy="fsdp",
        saved_by_peft=False,
        defaulted=(*model.defaulted, *step.defaulted),
        source=SOURCE,
        notes=(*keys.notes, *model.notes, *actor.notes, *step.notes),
    )


def _refuse_other_file(keys: Keys) -> None:
    """Raises UnsupportedError for values in a file of one's own, by --config-name or in Hydra's list of defaults."""
    defaults = keys.values.get("defaults")
    listed = [one for one in defaults if isinstance(one, str)] if isinstance(defaults, list) else []
    names = [str(keys.values.get("config_name") or ""), *listed]
    own = {"", "_self_", *_OWN_CONFIGS}
    if name := next((name for name in names if name.removesuffix(".yaml") not in own), None):
        what = f"the command takes its options from {name[:200]}."
        raise UnsupportedError(what, where=keys.where, way_out="name that file, with the command's other options in it")


def _refuse_megatron(keys: Keys, model: Keys, actor: Keys) -> None:
    rank = Keys(model.section("lora"), model.where, {"rank": 0}).integer("rank")
    named = "megatron" in str(keys.values.get("config_name"))
    if rank or named or actor.values.get("strategy") == "megatron":
        what = "verl's Megatron workers put Megatron-Bridge's own layers in: not counted."
        raise UnsupportedError(what, where=f"actor_rollout_ref in {keys.where}", way_out="FSDP's LoRA (lora_rank) is")


def _refuse_no_rank(keys: Keys, model: Keys) -> None:
    if model.integer("lora_rank"):
        return
    if (adapter := model.values.get("lora_adapter_path")) is not None:
        what = f"training goes on from {str(adapter)[:200]}, whose own config says what trains."
        raise UnsupportedError(what, where=keys.where, way_out="give its adapter_config.json")
    raise keys.no_lora("lora_rank is 0: this config trains no LoRA.", "set lora_rank")


def _remark(keys: Keys, model: Keys, actor: Keys) -> None:
    model.continues(model.values.get("lora_adapter_path"))
    model.note(
        "own_file", "verl writes the adapter's file without the metadata that PEFT adds: it has 32 or 40 bytes less."
    )
    critic = Keys(Keys(keys.section("critic"), keys.where, {}).section("model"), keys.where, {"lora_rank": 0})
    if critic.integer("lora_rank"):
        model.note("critic", "The critic gets an adapter of its own: what is counted is the actor's.")
    if actor.flag("freeze_vision_tower"):
        what = "freeze_vision_tower may freeze the tower's adapter too: it is counted, unless exclude_modules names it."
        model.note("frozen_tower", what)
    if changed := sorted(map(str, model.section("override_config").keys() - {"attn_implementation"})):
        model.note("override_config", f"override_config sets {', '.join(changed)[:200]}: --set counts such a base.")


def _lora(model: Keys) -> dict[str, Any]:
    """A text is PEFT's: all-linear or a regular expression."""
    names = {
        key: value if isinstance(value := model.get(key), str) else model.names(key)
        for key in ("target_modules", "exclude_modules")
    }
    return {
        "r": model.integer("lora_rank"),
        "lora_alpha": model.number("lora_alpha"),
        "bias": "none",
        "task_type": "CAUSAL_LM",
        **names,
    }


def _sharding(keys: Keys, model: Keys, actor: Keys, *, tunes: bool) -> Keys:
    """FSDP's section: the actor's, that of the engine which trains, or that of the older fsdp_sft_trainer."""
    section = keys.section("engine") if "path" in model.values else model.section("fsdp_config")
    return Keys(section if tunes else actor.section("fsdp_config"), keys.where, {"model_dtype": "fp32"})
