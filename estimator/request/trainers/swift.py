"""ms-swift's command line, YAML or JSON (4.6.0.dev0: arguments/, tuners, pipelines/train/tuner.py)."""

from __future__ import annotations

from math import ceil
from typing import Any

from estimator.errors import UnsupportedError
from estimator.request.trainers.keys import BNB8, Keys, bnb4, dtype_name, stored_quantization
from estimator.request.trainers.preferences import compared
from estimator.request.trainers.run_settings import attention_of, strategy_of
from estimator.request.training_config import Freezing, TargetRule, TrainingConfig

SOURCE = "ms-swift 4.6.0.dev0, arguments"
DEFAULTS = {
    "lora_rank": 8,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "target_modules": "all-linear",
    "lora_bias": "none",
    "freeze_vit": True,
    "freeze_aligner": True,
    "per_device_train_batch_size": 1,
    "optim": "adamw_torch_fused",
    "gradient_checkpointing": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "init_weights": True,
    "micro_batch_size": 1,
    "optimizer": "adam",
}
TRAINING = ("sft", "pt", "rlhf")
KIND_KEYS = ("tuner_type", "train_type", "sft_type")
OF_RELEASE_2 = ("model_id_or_path", "sft_type", "lora_target_modules", "lora_dropout_p")
WITHOUT_PREPARATION = ("lora", "lora_llm", "longlora")
# megatron/arguments/megatron_args.py: `swift sft` has no such options and stops at one.
OF_MEGATRON = frozenset(
    ("micro_batch_size", "global_batch_size", "tensor_model_parallel_size", "pipeline_model_parallel_size",
     "expert_model_parallel_size", "recompute_granularity", "train_iters", "no_save_optim")
)  # fmt: skip
# utils/transformers_utils.py, get_modules_to_not_convert: the head, routers and Qwen 3.5's narrow projections by the
# end of their names, towers and what joins them to the text model by the beginning. No other model has such names.
NOT_QUANTISED = (
    "lm_head", "mlp.gate", "mlp.shared_expert_gate", "in_proj_a", "in_proj_b", "model.visual", "model.vision_tower",
    "model.vision_model", "model.audio_tower", "model.embed_vision", "model.embed_audio", "model.multi_modal_projector",
    "model.connector", "model.merger", "model.vision_adapter", "model.vision_projection", "vision_model",
    "multi_modal_projector", "audio_tower", "thinker.visual", "thinker.audio_tower",
)  # fmt: skip


def read(keys: Keys) -> TrainingConfig:
    """Raises UsageError for what trains no LoRA, UnsupportedError for a command of another release."""
    group = keys.section("train")  # ray/megatron/driver_utils.py: its options win over those beside it
    keys.values.update(group)
    program = str(keys.values.get("_program") or "")
    if program and program.rpartition(" ")[2] not in TRAINING and not program.endswith(".py"):
        raise keys.no_lora(f"{program} trains nothing.", "give the command that trains: swift sft, pt or rlhf")
    in_a_file = not program and bool(group or not OF_MEGATRON.isdisjoint(keys.values))
    megatron = program.startswith("megatron") or in_a_file
    kind = next((keys.values[key] for key in KIND_KEYS if key in keys.values), "full" if megatron else "lora")
    if kind not in WITHOUT_PREPARATION:
        raise keys.no_lora(f"tuner_type is {kind!r}: this command trains no LoRA.", "give --tuner_type lora")
    if old := next((key for key in OF_RELEASE_2 if keys.values.get(key) is not None), None):
        what = f"{old} is an option of ms-swift 2, which chose targets otherwise: its commands are not read."
        raise UnsupportedError(what, where=f"{old} in {keys.where}", way_out="write it as ms-swift 4 has it")
    if keys.flag("use_swift_lora"):
        what = "use_swift_lora puts layers of ms-swift's own in: not counted."
        raise UnsupportedError(what, where=f"use_swift_lora in {keys.where}", way_out="leave it out")
    keys.continues(keys.values.get("resume_from_checkpoint") or keys.values.get("adapters"))
    keys.may_grow("new_special_tokens")
    dtype = _dtype(keys)
    return TrainingConfig(
        trainer="ms-swift",
        lora=_lora(keys),
        own={"megatron": True} if megatron else {},
        target_rule=_rule(keys, kind, megatron),
        freezing=Freezing(dtype="F32") if dtype == "float16" and not megatron else None,
        base=keys.values.get("model"),
        revision=keys.values.get("model_revision"),
        base_precision=dtype,
        quantization=_quantization(keys, dtype),
        adapter_dtype=_adapter_dtype(keys, dtype, megatron),
        batch_size=keys.integer("micro_batch_size" if megatron else "per_device_train_batch_size"),
        gradient_accumulation=None if megatron else _accumulation(keys),
        sequence_length=keys.integer("max_length"),
        packing=keys.flag("packing"),
        **compared(keys.values.get("rlhf_type")),
        gradient_checkpointing=True if megatron else keys.flag("gradient_checkpointing"),
        optimizer=keys.get("optimizer" if megatron else "optim"),
        mixed_precision=None if megatron else {"bfloat16": "bf16", "float16": "fp16"}.get(dtype, "no"),
        attention=attention_of(keys.values.get("attn_impl")),
        loss="fused" if keys.flag("use_liger_kernel") else None,
        strategy=strategy_of(keys.values.get("deepspeed"), keys.values.get("fsdp")),
        num_labels=keys.integer("num_labels") or (1 if _rewards(keys) else None),
        defaulted=tuple(keys.defaulted),
        source=SOURCE,
        notes=tuple(keys.notes),
    )


def _dtype(keys: Keys) -> str:
    given = dtype_name(keys.values.get("torch_dtype") or keys.values.get("dtype"))
    if given:
        return given
    return "float16" if keys.flag("fp16") else "bfloat16"


def _adapter_dtype(keys: Keys, dtype: str, megatron: bool) -> str:
    """pipelines/train/tuner.py, prepare_model: what would train in float16 is made float32."""
    given = dtype_name(keys.values.get("lora_dtype")) or (dtype if megatron else "float32")
    return "float32" if given == "float16" and not megatron else given


def _rewards(keys: Keys) -> bool:
    return keys.values.get("rlhf_type") == "rm" or keys.values.get("task_type") in ("reranker",)


def _lora(keys: Keys) -> dict[str, Any]:
    targets = keys.targets("target_modules")
    if keys.values.get("target_regex"):
        targets = keys.values["target_regex"]
    classifies, init = _classifies(keys), keys.get("init_weights")
    return {
        "r": keys.integer("lora_rank"),
        "lora_alpha": keys.number("lora_alpha"),
        "lora_dropout": keys.number("lora_dropout"),
        "target_modules": targets,
        "target_parameters": keys.names("target_parameters", commas=False),
        "modules_to_save": keys.names("modules_to_save", commas=False) or _heads(keys, classifies),
        "bias": keys.get("lora_bias"),
        "use_dora": keys.flag("use_dora"),
        "use_rslora": keys.flag("use_rslora"),
        "init_lora_weights": True if init == "lora-ga" else init,  # a package of its own, on PEFT's layers
        "task_type": _task(keys, classifies),
    }


def _classifies(keys: Keys) -> bool:
    """model/model_meta.py: labels alone make it a classifier."""
    task = keys.values.get("task_type")
    labels = task is None and keys.values.get("num_labels") is not None
    return task in ("seq_cls", "reranker") or labels or _rewards(keys)


def _task(keys: Keys, classifies: bool) -> str | None:
    if keys.values.get("task_type") == "embedding":
        return None
    return "SEQ_CLS" if classifies else "CAUSAL_LM"


def _heads(keys: Keys, classifies: bool) -> list[str] | None:
    """The heads that swift trains whole; PEFT's SEQ_CLS adds classifier and score by itself."""
    if not classifies:
        return None
    return ["v_head"] if keys.values.get("task_type") == "seq_cls" else ["v_head", "classifier", "score"]


def _rule(keys: Keys, kind: str, megatron: bool) -> TargetRule:
    settings = {
        "freeze_vit": keys.flag("freeze_vit"),
        "freeze_aligner": keys.flag("freeze_aligner"),
        "freeze_llm": keys.flag("freeze_llm"),
        "whole_towers": kind == "lora_llm",
        "megatron": megatron,
        "classifies": _classifies(keys),
        "unsloth": keys.values.get("tuner_backend") == "unsloth",
    }
    return TargetRule(name="swift_all_linear", settings=settings)


def _quantization(keys: Keys, dtype: str) -> dict[str, Any] | None:
    if stored := stored_quantization(keys.values.get("model")):
        return stored
    bits = keys.integer("quant_bits")
    if bits is None and keys.flag("load_in_4bit"):
        bits = 4
    method = "bnb" if keys.flag("load_in_4bit") else keys.values.get("quant_method")
    if bits is None or method is None:
        return None
    if method != "bnb":
        return {"method": method, "bits": bits}
    if bits == 8:
        return {**BNB8, "trainer_skips": list(NOT_QUANTISED)}
    compute = dtype_name(keys.values.get("bnb_4bit_compute_dtype")) or dtype
    storage = dtype_name(keys.values.get("bnb_4bit_quant_storage"))
    four = bnb4(compute, keys.flag("bnb_4bit_use_double_quant"), keys.text("bnb_4bit_quant_type"), storage)
    return {**four, "trainer_skips": list(NOT_QUANTISED)}


def _accumulation(keys: Keys) -> int | None:
    if keys.values.get("gradient_accumulation_steps") is not None:
        return keys.integer("gradient_accumulation_steps")
    if keys.values.get("rlhf_type") == "grpo":
        return 1
    batch = keys.integer("per_device_train_batch_size")
    world = keys.values.get("_world", 1)
    if not batch or not isinstance(world, int):
        return None
    return max(1, ceil(16 / batch / world))
