"""torchtune's YAML (main of April 2026: models/*/_component_builders.py, modules/peft).

Its builders have modules of their own, all separate: q_proj, k_proj, v_proj, output_proj; gate w1, up w3, down w2.
"""

from __future__ import annotations

import re
from typing import Any

from estimator.errors import UnsupportedError, UsageError
from estimator.request.trainers.keys import Keys, dtype_name
from estimator.request.trainers.preferences import compared
from estimator.request.training_config import TargetRule, TrainingConfig

SOURCE = "torchtune of April 2026, the model builders"
DEFAULTS = {
    "lora_rank": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "batch_size": 1,
    "gradient_accumulation_steps": 1,
}
ATTENTION = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "output_proj": "o_proj"}
MLP = ("gate_proj", "up_proj", "down_proj")
CHUNKED_LOSS = ("LinearCrossEntropyLoss", "CEWithChunkedOutputLoss")
PAIR_LOSS = ("DPOLoss", "RSOLoss")  # rlhf/loss/dpo.py; each has a reference (lora_dpo_single_device.py)
TOWERS = ("decoder_trainable", "encoder_trainable", "fusion_trainable")
FUSION = ("llama3_2_vision", "llama4")  # families of several towers


def read(keys: Keys) -> TrainingConfig:
    """Raises NoLoraError for a builder without LoRA, UnsupportedError where the config is in another file."""
    if "_program" in keys.values:
        config = keys.names("config") or ["its --config"]  # overrides stand behind it
        what = f"the command takes its options from {config[0][:200]}."
        way_out = "name that file (`tune cp` copies one of torchtune's own), with the command's overrides in it"
        raise UnsupportedError(what, where=keys.where, way_out=way_out)
    model = Keys(keys.section("model"), keys.where, DEFAULTS)
    builder = str(model.values.get("_component_") or "")
    name = builder.rpartition(".")[2]
    if "lora" not in name:
        raise keys.no_lora(f"the builder {name} has no LoRA.", "name a lora_ or qlora_ builder in model._component_")
    dtype = dtype_name(keys.values.get("dtype")) or "bfloat16"
    own = _switches(model)
    fusion = any(family in builder for family in FUSION)
    _refuse(model, own, builder)
    dataset = Keys(keys.section("dataset"), keys.where, {})
    tokenizer = Keys(keys.section("tokenizer"), keys.where, {})
    loss = str(keys.section("loss").get("_component_")).rpartition(".")[2]
    quantized = name.startswith("qlora") or model.flag("quantize_base")
    if quantized:
        message = "torchtune's NF4 is torchao's: the base is sized as bitsandbytes' with double quantisation."
        keys.note("sized_as_bitsandbytes", message)
    return TrainingConfig(
        trainer="torchtune",
        lora=_lora(model, own),
        own=own,
        target_rule=TargetRule(name="torchtune", settings={**own, "fusion": fusion}),
        base=base_of(keys, builder),
        base_precision=dtype,
        quantization={"method": "torchao", "bits": 4, "quant_type": "nf4", "double_quant": True} if quantized else None,
        adapter_dtype=dtype,
        batch_size=keys.integer("batch_size"),
        gradient_accumulation=keys.integer("gradient_accumulation_steps"),
        sequence_length=tokenizer.integer("max_seq_len"),
        packing=None if "packed" not in dataset.values and any(t in own for t in TOWERS) else dataset.flag("packed"),
        gradient_checkpointing=keys.flag("enable_activation_checkpointing"),
        offloads_inputs=keys.flag("enable_activation_offloading"),
        optimizer=keys.section("optimizer").get("_component_"),
        mixed_precision="no",
        **(compared("dpo") if loss in PAIR_LOSS else {}),
        loss="chunked" if loss in CHUNKED_LOSS else None,
        saved_by_peft=False,
        defaulted=(*keys.defaulted, *model.defaulted),
        source=SOURCE,
        notes=tuple(keys.notes),
    )


def _refuse(model: Keys, own: dict[str, Any], builder: str) -> None:
    """Raises UsageError for what the builders refuse."""
    if not own["lora_attn_modules"]:
        why = "lora_attn_modules is empty: torchtune's builders refuse that."
        raise UsageError(why, where=f"lora_attn_modules in {model.where}", way_out="name q_proj, v_proj or others")
    if "llama4" in builder and str(own.get("encoder_trainable")).lower() == "lora":
        why = "encoder_trainable is lora: torchtune's Llama 4 builder fails on it."
        raise UsageError(why, where=f"encoder_trainable in {model.where}", way_out="give frozen")
    full = next((tower for tower in TOWERS if str(own.get(tower)).lower() == "full"), None)
    if full:
        why = f"{full} is full: torchtune's {builder.rpartition('.')[2]} takes lora or frozen."
        raise UsageError(why, where=f"{full} in {model.where}", way_out="give lora or frozen")


def _switches(model: Keys) -> dict[str, Any]:
    return {
        "lora_attn_modules": model.names("lora_attn_modules") or [],
        "apply_lora_to_mlp": model.flag("apply_lora_to_mlp"),
        "apply_lora_to_output": model.flag("apply_lora_to_output"),
        **{tower: model.values[tower] for tower in TOWERS if tower in model.values},
    }


def _lora(model: Keys, own: dict[str, Any]) -> dict[str, Any]:
    names = [ATTENTION.get(name, name) for name in own["lora_attn_modules"]]
    names += MLP if own["apply_lora_to_mlp"] else ()
    names += ("lm_head",) if own["apply_lora_to_output"] else ()
    towers = any(tower in own for tower in TOWERS)
    return {
        "r": model.integer("lora_rank"),
        "lora_alpha": model.number("lora_alpha"),
        "lora_dropout": model.number("lora_dropout"),
        "target_modules": None if towers else sorted(names),
        "bias": "none",
        "modules_to_save": None,
        "use_dora": model.flag("use_dora"),
        "use_rslora": False,
    }


def base_of(keys: Keys, builder: str) -> str | None:
    """The repository that the checkpoint folder is named for; torchtune's download puts it there under its own name."""
    folder = str(keys.section("checkpointer").get("checkpoint_dir") or "")
    leaf = next((part for part in reversed(folder.split("/")) if part and part not in ("original", "snapshots")), "")
    family = builder.split(".models.")[-1].split(".")[0]
    owner = next((owner for prefix, owner in OWNERS if re.match(prefix, family)), None)
    if not leaf or leaf.startswith("$") or owner is None:
        return None
    return f"{owner}/{leaf.replace('Meta-Llama-3.1', 'Llama-3.1')}"  # renamed on the Hub


# The owner that `tune download` names in each family's recipes.
OWNERS = (
    ("llama|code_llama", "meta-llama"),
    ("gemma", "google"),
    ("mistral", "mistralai"),
    ("phi", "microsoft"),
    ("qwen", "Qwen"),
)
