"""Axolotl's YAML (axolotl 0.18.0: utils/schemas/peft.py, loaders/adapter.py, loaders/model.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from estimator.request.trainers.axolotl_refusals import refuse
from estimator.request.trainers.keys import BNB8, Keys, bnb4, stored_quantization
from estimator.request.trainers.preferences import compared
from estimator.request.trainers.run_settings import attention_of, autocast_of, strategy_of
from estimator.request.training_config import Freezing, TargetRule, TrainingConfig

SOURCE = "axolotl 0.18.0, utils/schemas"
DEFAULTS = {
    "lora_dropout": 0.0,
    "micro_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "sequence_len": 512,
    "optimizer": "adamw_torch_fused",
}
SKIPPED_IN_8_BITS = (("jamba", "mamba"), ("falcon-h1", "out_proj"))  # of a base of that name
# Kept in float32 when 4-bit weights are stored, unless DeepSpeed or FSDP shards them.
# By the repositories of the model types jamba, qwen2_moe and nemotron_h.
FLOAT32_STORAGE = ("jamba", "qwen1.5moe", "qwen257ba14b", "nemotronh", "nemotron3nano")
FUSED_LOSS = ("liger_fused_linear_cross_entropy", "cut_cross_entropy")
ATTENTION = (
    ("flash_attention", "flash_attention_2"),
    ("sdp_attention", "sdpa"),
    ("eager_attention", "eager"),
)
OFFLOADED_CHECKPOINTING = ("offload", "offload_disk", "unsloth")


def read(keys: Keys) -> TrainingConfig:
    """Raises UsageError for what Axolotl refuses or trains without LoRA, UnsupportedError for modules of its own."""
    adapter = keys.values.get("adapter")
    if adapter not in ("lora", "qlora"):
        raise keys.no_lora(f"adapter is {adapter!r}: this config trains no LoRA.", "set adapter: lora or qlora")
    refuse(keys, adapter)
    if keys.values.get("lora_r") is None:
        keys.note("no_rank", "lora_r is not given: Axolotl hands PEFT none, which fails; PEFT's own 8 is counted.")
    if keys.values.get("lora_modules_to_save"):
        keys.may_grow("tokens", "special_tokens", "added_tokens_overrides", "resize_token_embeddings_to_32x")
    keys.continues(keys.values.get("lora_model_dir"))
    if keys.values.get("lora_exclude_modules"):  # utils/schemas/peft.py has no such field, so validation drops it
        message = "Axolotl drops lora_exclude_modules, which its schema does not know: what it names is adapted too."
        keys.note("not_read", message)
    dtype = _dtype(keys)
    quantization = _quantization(keys, adapter, dtype)
    rl = keys.values.get("rl") in ("dpo", "ipo", "kto")
    autocast = keys.values.get("peft_autocast_adapter_dtype") is None or keys.flag("peft_autocast_adapter_dtype")
    return TrainingConfig(
        trainer="axolotl",
        lora=_lora(keys),
        freezing=_freezing(keys),
        target_rule=_target_rule(keys),
        base=keys.values.get("base_model"),
        revision=keys.values.get("revision_of_model"),
        base_precision=dtype,
        quantization=quantization,
        prepare_kbit=_prepares(keys, adapter),
        undoes_upcast=_undoes_upcast(keys),
        adapter_dtype=_adapter_dtype(dtype, rl and bool(quantization), autocast),
        batch_size=keys.integer("micro_batch_size"),
        gradient_accumulation=keys.integer("gradient_accumulation_steps"),
        sequence_length=keys.integer("sequence_len"),
        packing=keys.flag("sample_packing"),
        **compared("reward" if keys.flag("reward_model") else keys.values.get("rl")),
        gradient_checkpointing=_checkpointing(keys),
        offloads_inputs=_offloads(keys),
        optimizer=keys.get("optimizer"),
        mixed_precision=autocast_of(keys.values.get("bf16"), keys.values.get("fp16")),
        attention=_attention(keys),
        loss=_loss(keys),
        strategy=strategy_of(keys.values.get("deepspeed"), keys.values.get("fsdp") or keys.values.get("fsdp_config")),
        num_labels=_labels(keys),
        defaulted=tuple(keys.defaulted),
        source=SOURCE,
        notes=tuple(keys.notes),
    )


def _loss(keys: Keys) -> str | None:
    if any(keys.flag(key) for key in FUSED_LOSS) and not compared(keys.values.get("rl")):  # given no labels
        return "fused"
    return "in_place" if keys.flag("liger_cross_entropy") else None


def _attention(keys: Keys) -> str | None:
    given = attention_of(keys.values.get("attn_implementation"))
    return given or next((name for key, name in ATTENTION if keys.flag(key)), None)


def _adapter_dtype(dtype: str, made_by_trl: bool, autocast: bool) -> str:
    if made_by_trl:
        return "bfloat16"
    return "float32" if autocast else dtype


def _lora(keys: Keys) -> dict[str, Any]:
    targets = keys.values.get("lora_target_modules")
    loftq = Keys(keys.section("peft"), keys.where, {}).section("loftq_config")
    lora: dict[str, Any] = {
        "r": keys.integer("lora_r"),
        "lora_alpha": keys.number("lora_alpha"),
        "lora_dropout": keys.number("lora_dropout"),
        # Where none are named PEFT is handed an empty list, and its own defaults are not asked for.
        "target_modules": targets if targets and isinstance(targets, str) else keys.names("lora_target_modules") or [],
        "target_parameters": keys.names("lora_target_parameters"),
        "modules_to_save": keys.names("lora_modules_to_save"),
        "bias": "none",
        "use_dora": keys.flag("peft_use_dora"),
        "use_rslora": keys.flag("peft_use_rslora"),
        "fan_in_fan_out": keys.flag("lora_fan_in_fan_out"),
        "layers_to_transform": keys.values.get("peft_layers_to_transform"),
        "layers_pattern": keys.values.get("peft_layers_pattern"),
        "rank_pattern": dict(keys.section("lora_rank_pattern")),
        "alpha_pattern": dict(keys.section("lora_alpha_pattern")),
        "init_lora_weights": keys.values.get("peft_init_lora_weights") or ("loftq" if loftq else True),
        "layer_replication": keys.values.get("peft_layer_replication"),
        "trainable_token_indices": keys.values.get("peft_trainable_token_indices"),
        "ensure_weight_tying": keys.flag("peft_ensure_weight_tying"),
        "task_type": _task(keys),
    }
    if loftq:
        lora["loftq_config"] = {"loftq_bits": 4, "loftq_iter": 1, **loftq}  # a LoftQConfig with its defaults
    return lora


def _task(keys: Keys) -> str:
    """loaders/adapter.py, _get_peft_task_type: the name of the class decides; set_reward_model_defaults fills it in."""
    filled = next((named for key, (named, _) in _REWARDS.items() if keys.flag(key)), "")
    named = str(keys.values.get("type_of_model") or keys.values.get("model_type") or filled)
    kinds = (("SequenceClassification", "SEQ_CLS"), ("TokenClassification", "TOKEN_CLS"))
    return next((task for kind, task in kinds if kind in named), "CAUSAL_LM")


def _labels(keys: Keys) -> int | None:
    return keys.integer("num_labels") or next((count for key, (_, count) in _REWARDS.items() if keys.flag(key)), None)


# utils/schemas/validation.py, set_reward_model_defaults: the class and the labels, where the file names none.
_REWARDS = {
    "reward_model": ("AutoModelForSequenceClassification", 1),
    "process_reward_model": ("AutoModelForTokenClassification", 2),
}


def _target_rule(keys: Keys) -> TargetRule:
    if not keys.flag("lora_target_linear"):
        return TargetRule(name="listed")
    listed = keys.values.get("lora_target_modules")
    also = [listed] if listed and isinstance(listed, str) else (keys.names("lora_target_modules") or [])
    return TargetRule(name="axolotl_linear", settings={"and": also})


# utils/freeze.py, _MM_MODULE_PREFIXES: of freeze_mm_modules.
TOWERS = (
    "vision_tower", "vision_model", "vision_encoder", "embed_vision", "multi_modal_projector", "visual", "audio_tower",
    "audio_model", "embed_audio",
)  # fmt: skip


def _freezing(keys: Keys) -> Freezing | None:
    """train.py, setup_model_and_tokenizer: both are applied once the adapter is made."""
    given = keys.values.get("unfrozen_parameters")
    unfrozen = [given] if isinstance(given, str) and given else keys.names("unfrozen_parameters")
    parts = TOWERS if keys.flag("freeze_mm_modules") else ()
    return Freezing(tuple(unfrozen) if unfrozen else None, parts) if unfrozen or parts else None


def _dtype(keys: Keys) -> str:
    bf16 = keys.values.get("bf16")
    if bf16 in ("auto", "full") or keys.flag("bf16") or keys.flag("bfloat16"):
        if bf16 == "auto":
            keys.note("assumed_bf16", "bf16: auto is taken for a GPU with bfloat16.")
        return "bfloat16"
    half = any(keys.flag(key) for key in ("load_in_8bit", "fp16", "float16"))
    return "float16" if half else "float32"


def _quantization(keys: Keys, adapter: str, dtype: str) -> dict[str, Any] | None:
    if stored := stored_quantization(keys.values.get("base_model")):
        return stored
    experts = {"moe_experts": True} if keys.flag("quantize_moe_experts") else {}
    base = str(keys.values.get("base_model") or "").lower()
    if adapter == "lora":
        if keys.flag("load_in_4bit"):
            keys.note("not_quantised", "adapter: lora with load_in_4bit quantises nothing; adapter: qlora does.")
        skipped = [name for kind, name in SKIPPED_IN_8_BITS if kind in base]
        skips = {"trainer_skips": skipped} if skipped else {}
        return {**BNB8, **experts, **skips} if keys.flag("load_in_8bit") else _mxfp4(keys)
    sharded = keys.values.get("deepspeed") or keys.values.get("fsdp") or keys.values.get("fsdp_config")
    wide = not sharded and any(
        name.replace("_", "") in base.replace("-", "").replace("_", "") for name in FLOAT32_STORAGE
    )
    quantization = bnb4(dtype, True, storage="float32" if wide else "bfloat16")
    quantization.update(experts)
    if "falcon-h1" in base:
        quantization["trainer_skips"] = ["out_proj"]
    given = Keys(keys.section("bnb_config_kwargs"), keys.where, {})
    readers: dict[str, tuple[str, Callable[[str], Any]]] = {
        "bnb_4bit_use_double_quant": ("double_quant", given.flag),
        "bnb_4bit_quant_type": ("quant_type", given.text),
        "bnb_4bit_quant_storage": ("quant_storage", given.text),
        "bnb_4bit_compute_dtype": ("compute_dtype", given.text),
        "llm_int8_skip_modules": ("skip_modules", given.names),
    }
    return quantization | {name: read(key) for key, (name, read) in readers.items() if key in given.values}


def _mxfp4(keys: Keys) -> dict[str, Any] | None:
    if keys.values.get("model_quantization_config") != "Mxfp4Config":
        return None
    return {"method": "mxfp4", "dequantize": keys.section("model_quantization_config_kwargs").get("dequantize") is True}


def _prepares(keys: Keys, adapter: str) -> bool:
    """loaders/model.py, ModelLoader._prepare_model_for_quantization."""
    fsdp = bool(keys.values.get("fsdp") or keys.values.get("fsdp_config"))
    config = keys.section("fsdp_config")
    efficient = any(config.get(key) for key in ("cpu_ram_efficient_loading", "fsdp_cpu_ram_efficient_loading"))
    zero3 = "zero3" in str(keys.values.get("deepspeed") or "").replace("_", "").lower()
    loftq = adapter == "lora" and bool(keys.section("peft").get("loftq_config"))
    asked = keys.flag("load_in_8bit") or keys.flag("load_in_4bit")
    skips = (fsdp and (adapter == "qlora" or efficient)) or zero3 or loftq or keys.flag("quantize_moe_experts")
    return bool(asked and not skips)


def _undoes_upcast(keys: Keys) -> bool:
    """loaders/model.py, _configure_embedding_dtypes. A classifier's head keeps its float32; biases and routers do too,
    which changes no file.
    """
    return _task(keys) == "CAUSAL_LM" and not (keys.flag("load_in_4bit") and keys.flag("embeddings_skip_upcast"))


def _checkpointing(keys: Keys) -> bool:
    value = keys.values.get("gradient_checkpointing")
    return value in OFFLOADED_CHECKPOINTING or keys.flag("gradient_checkpointing")


def _offloads(keys: Keys) -> bool:
    """What gradient_checkpointing said before activation_offloading did (true, legacy, disk)."""
    before = keys.values.get("gradient_checkpointing") in OFFLOADED_CHECKPOINTING
    return before or keys.values.get("activation_offloading") in (True, "true", "legacy", "disk", "hidden_states")
