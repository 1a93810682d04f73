"""LLaMA-Factory's YAML, JSON or command line (0.9.6.dev0: hparams/, model/adapter.py, model/model_utils/)."""

from __future__ import annotations

from typing import Any

from estimator.errors import UnsupportedError, UsageError
from estimator.request.trainers.keys import Keys, bnb4, dtype_name, stored_quantization
from estimator.request.trainers.preferences import compared
from estimator.request.trainers.run_settings import attention_of, autocast_of, strategy_of
from estimator.request.training_config import Freezing, TargetRule, TrainingConfig

SOURCE = "LLaMA-Factory 0.9.6.dev0, hparams"
DEFAULTS = {
    "lora_rank": 8,
    "lora_dropout": 0.0,
    "lora_target": "all",
    "freeze_vision_tower": True,
    "freeze_multi_modal_projector": True,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "cutoff_len": 2048,
    "optim": "adamw_torch_fused",
    "double_quantization": True,
    "pissa_iter": 16,
    "freeze_trainable_layers": 2,
    "quantization_method": "bnb",
    "quantization_type": "nf4",
    "finetuning_type": "lora",
    "micro_batch_size": 1,  # this and the next are v1's
    "enable_activation_checkpointing": True,
}
# What grows the vocabulary; the last is what an earlier release calls the third.
RESIZING = ("resize_vocab", "add_tokens", "add_special_tokens", "new_special_tokens_config", "new_special_tokens")
# hparams/parser.py takes these where USE_MEGATRON_BRIDGE or USE_MCA is set, and refuses them elsewhere.
_MEGATRON = (
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "expert_model_parallel_size",
    "context_parallel_size",
    "use_distributed_optimizer",
)
# model/model_utils/quantization.py: what each method takes.
_BITS = {"bnb": (4, 8), "hqq": (1, 2, 3, 4, 5, 6, 8), "eetq": (8,)}
V1_DEFAULTS = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": "all"}
_V1_QUANT = {"double_quantization": True, "quantization_type": "nf4", "compute_dtype": "float16"}


def read(keys: Keys) -> TrainingConfig:
    """Raises UsageError for what trains no LoRA, UnsupportedError for modules that are not transformers' own."""
    if isinstance(keys.values.get("peft_config"), dict) or ("model" in keys.values and "model_class" in keys.values):
        return _read_v1(keys)
    kind = keys.get("finetuning_type")
    if kind != "lora":
        raise keys.no_lora(f"finetuning_type is {kind!r}: this config trains no LoRA.", "set finetuning_type: lora")
    _refuse(keys)
    if keys.flag("use_kt"):
        keys.note("own_experts", "use_kt puts KTransformers' experts in: what is counted is the plain class.")
    if not keys.flag("create_new_adapter"):
        keys.continues(keys.values.get("adapter_name_or_path"))
    if _resizes(keys):
        keys.may_grow(*RESIZING)
    rank = keys.integer("lora_rank")
    dtype = _compute(keys)
    comparing = _compared(keys)
    return TrainingConfig(
        trainer="llamafactory",
        lora=_lora(keys, rank),
        target_rule=_rule(keys),
        freezing=_cast(keys),
        base=keys.values.get("model_name_or_path"),
        revision=keys.values.get("model_revision"),
        quantization=_quantization(keys, dtype),
        batch_size=keys.integer("per_device_train_batch_size"),
        gradient_accumulation=keys.integer("gradient_accumulation_steps"),
        sequence_length=keys.integer("cutoff_len"),
        packing=keys.values.get("stage") == "pt" if keys.values.get("packing") is None else keys.flag("packing"),
        **comparing,
        gradient_checkpointing=not keys.flag("disable_gradient_checkpointing"),
        offloads_inputs=keys.flag("use_unsloth_gc") or keys.flag("use_unsloth"),
        optimizer=keys.get("optim"),
        mixed_precision="no" if keys.flag("pure_bf16") else autocast_of(keys.flag("bf16"), keys.flag("fp16")),
        attention=attention_of(keys.values.get("flash_attn")),
        loss="fused" if keys.flag("enable_liger_kernel") and not comparing else None,
        strategy=strategy_of(keys.values.get("deepspeed"), keys.values.get("fsdp")),
        defaulted=tuple(keys.defaulted),
        source=SOURCE,
        notes=tuple(keys.notes),
    )


def _compared(keys: Keys) -> dict[str, Any]:
    """By stage (data/collator.py), whose losses need the logits whole (tuner.py, require_logits).

    ORPO and SimPO, of stage dpo, have no reference (hparams/finetuning_args.py, use_ref_model) and no second loss.
    """
    stage = keys.values.get("stage")
    comparing = compared(stage) if stage in ("dpo", "rm", "kto") else {}
    alone = stage == "dpo" and keys.values.get("pref_loss") in ("orpo", "simpo")
    return {**comparing, "beside": None} if alone else comparing


def _cast(keys: Keys) -> Freezing | None:
    """model/adapter.py, init_adapter: what trains is made float32, unless pure_bf16 or ZeRO-3 stands against it.

    FSDP has not since 0.9.3; 0.9.2 asked is_fsdp_enabled as well.
    """
    saved = keys.values.get("additional_target") or _resizes(keys)
    zero3 = strategy_of(keys.values.get("deepspeed")) == "zero3" and keys.values.get("quantization_bit") is None
    return None if not saved or zero3 or keys.flag("pure_bf16") else Freezing(dtype="F32")


def _resizes(keys: Keys) -> bool:
    """model/patcher.py, patch_tokenizer: tokens that are new set resize_vocab."""
    return keys.flag("resize_vocab") or any(keys.values.get(name) for name in RESIZING[1:])


def _refuse(keys: Keys) -> None:
    """Raises NoLoraError for what trains nothing, UnsupportedError for modules and defaults that are not known here."""
    if not _trains(keys):
        raise keys.no_lora("do_train is not set: this config trains nothing.", "set do_train: true")
    for name in ("pissa_init", "resize_vocab"):  # hparams/parser.py, _verify_model_args
        if keys.values.get("quantization_bit") is not None and keys.flag(name):
            what = f"LLaMA-Factory refuses {name} with quantization_bit."
            raise UsageError(what, where=f"{name} in {keys.where}", way_out="leave out one of them")
    for name in ("use_galore", "use_apollo", "use_badam"):  # hparams/finetuning_args.py
        if keys.flag(name):
            what = f"LLaMA-Factory refuses {name} with LoRA."
            raise UsageError(what, where=f"{name} in {keys.where}", way_out="leave out one of them")
    own = [name for name in _MEGATRON if name in keys.values]
    own += ["use_megatron_bridge"] * keys.flag("use_megatron_bridge")
    own += ["mixture_of_depths"] * bool(keys.values.get("mixture_of_depths"))
    if own:
        what = f"{own[0]} is of a training that builds modules of its own: not counted."
        raise UnsupportedError(what, where=f"{own[0]} in {keys.where}", way_out="leave it out")
    program = str(keys.values.get("_program") or "")
    earlier = program.endswith(".py") and program not in ("train.py", "launcher.py")
    if earlier and keys.values.get("lora_target") is None:
        what = f"{program[:80]} is of an earlier LLaMA-Factory, whose default targets were others."
        raise UnsupportedError(what, where=f"lora_target in {keys.where}", way_out="name --lora_target")


def _trains(keys: Keys) -> bool:
    """False for what chats, evaluates, predicts or merges; a file that says neither is taken for a training."""
    others = ("do_eval", "do_predict", "export_dir", "infer_backend", "adapter_name_or_path", "task")
    return keys.flag("do_train") if "do_train" in keys.values else not any(map(keys.values.get, others))


def _compute(keys: Keys) -> str:
    if keys.flag("bf16") or keys.flag("pure_bf16"):
        return "bfloat16"
    return "float16" if keys.flag("fp16") else "float32"


def _lora(keys: Keys, rank: int | None) -> dict[str, Any]:
    alpha = keys.number("lora_alpha")
    saved = keys.names("additional_target")
    init: bool | str = True
    if keys.flag("pissa_init"):
        steps = keys.integer("pissa_iter")
        init = "pissa" if steps == -1 else f"pissa_niter_{steps}"
    targets = keys.names("lora_target")
    return {
        "r": rank,
        "lora_alpha": alpha or 2 * (rank or 0),
        "lora_dropout": keys.number("lora_dropout"),
        "target_modules": "all-linear" if targets == ["all"] else targets,
        "target_parameters": None,
        "modules_to_save": saved,
        "bias": "none",
        "use_dora": keys.flag("use_dora"),
        "use_rslora": keys.flag("use_rslora"),
        "init_lora_weights": init,
        "task_type": "CAUSAL_LM",
    }


def _rule(keys: Keys) -> TargetRule:
    return TargetRule(
        name="llamafactory",
        settings={
            "targets": keys.names("lora_target"),
            "freeze_vision_tower": keys.flag("freeze_vision_tower"),
            "freeze_projector": keys.flag("freeze_multi_modal_projector"),
            "freeze_language_model": keys.flag("freeze_language_model"),
            "value_head": keys.values.get("stage") in ("rm", "ppo"),
            "expanded_layers": keys.integer("freeze_trainable_layers") if keys.flag("use_llama_pro") else None,
            "embeddings": _resizes(keys) and not keys.values.get("additional_target"),
            "unsloth": keys.flag("use_unsloth"),
            "skip": ["lm_head"],
        },
    )


def _quantization(keys: Keys, dtype: str) -> dict[str, Any] | None:
    if stored := stored_quantization(keys.values.get("model_name_or_path")):
        return stored
    bits = keys.integer("quantization_bit")
    if bits is None:
        return None
    method = keys.text("quantization_method")
    known = _BITS.get({"bitsandbytes": "bnb", "BNB": "bnb"}.get(str(method), str(method)))
    if known is not None and bits not in known:
        wanted = " or ".join(map(str, known))
        raise keys.odd("quantization_bit", bits, f"{wanted}, which is what {method} takes")
    if method in ("bnb", "bitsandbytes", "BNB"):
        if bits == 8:
            return {"method": "bnb", "bits": 8}
        return bnb4(dtype, keys.flag("double_quantization"), keys.text("quantization_type"), storage=dtype)
    return {"method": method, "bits": bits}


def _read_v1(keys: Keys) -> TrainingConfig:
    """v1/core/model_engine.py and v1/plugins/model_plugins/peft.py."""
    peft = Keys(keys.section("peft_config"), keys.where, V1_DEFAULTS)
    if peft.values.get("name") != "lora":
        raise keys.no_lora(
            "peft_config names no LoRA: this config trains something else.", "set peft_config.name: lora"
        )
    if peft.values.get("export_dir"):
        raise keys.no_lora("peft_config.export_dir merges an adapter: this config trains nothing.", "leave it out")
    keys.continues(peft.values.get("adapter_name_or_path"))
    quant = Keys(keys.section("quant_config"), keys.where, {"quantization_bit": 4, **_V1_QUANT})
    quantization = None
    if quant.values.get("name") == "bnb" or quant.values.get("quantization_bit"):
        compute = dtype_name(quant.get("compute_dtype"))
        bits, double = quant.integer("quantization_bit"), quant.flag("double_quantization")
        kind = quant.text("quantization_type")
        quantization = bnb4(compute, double, kind, compute) if bits == 4 else {"method": "bnb", "bits": bits}
    given = peft.get("target_modules")
    targets = [given] if isinstance(given, str) else peft.names("target_modules")
    skip = ["lm_head", "output_layer", "output", "score", "classifier"]
    classifies = keys.values.get("model_class") == "cls"
    return TrainingConfig(
        trainer="llamafactory",
        lora={
            "r": peft.integer("r"),
            "lora_alpha": peft.number("lora_alpha"),
            "lora_dropout": peft.number("lora_dropout"),
            "target_modules": "all-linear" if given == "all" else targets,
            "target_parameters": None,
            "modules_to_save": peft.names("modules_to_save"),
            "bias": "none",
            "use_dora": peft.flag("use_dora"),
            "use_rslora": peft.flag("use_rslora"),
            "init_lora_weights": True,
            "task_type": "TOKEN_CLS" if classifies else "CAUSAL_LM",
        },
        target_rule=TargetRule(name="llamafactory", settings={"targets": ["all"], "skip": skip})
        if given == "all"
        else None,
        base=keys.values.get("model"),
        quantization=quantization,
        batch_size=keys.integer("micro_batch_size"),
        sequence_length=keys.integer("cutoff_len"),
        gradient_checkpointing=keys.flag("enable_activation_checkpointing"),
        gradient_accumulation=1,
        optimizer="torch.optim.AdamW",
        num_labels=1 if classifies else None,
        defaulted=(*keys.defaulted, *peft.defaulted),
        source="LLaMA-Factory 0.9.6.dev0, v1/config",
        notes=tuple(keys.notes),
    )
