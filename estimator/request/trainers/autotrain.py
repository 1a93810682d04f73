"""Hugging Face AutoTrain's YAML and command line (0.8.37.dev0: trainers/*/params.py, trainers/clm/utils.py)."""

from __future__ import annotations

from typing import Any

from estimator.errors import UnsupportedError
from estimator.request.trainers.keys import BNB8, Keys, bnb4
from estimator.request.trainers.preferences import compared
from estimator.request.training_config import Freezing, TrainingConfig

SOURCE = "AutoTrain 0.8.37.dev0, trainers/clm/params.py"
DEFAULTS = {
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "target_modules": "all-linear",
    "quantization": "int4",
    "batch_size": 2,
    "gradient_accumulation": 4,
    "optimizer": "adamw_torch",
    "block_size": 1024,
}
CAUSAL = ("llm", "clm", "lm_training")
SEQ2SEQ = {"quantization": "int8", "gradient_accumulation": 1}  # where its defaults are others

VLM_FROZEN = ("vision_tower", "multi_modal_projector")  # trainers/vlm/utils.py, once the adapter is made


def read(keys: Keys) -> TrainingConfig:
    """Raises UnsupportedError for a task that is read by none of the trainers named above."""
    outer = _as_yaml(keys)
    task = str(outer.values.get("task") or "")
    keys = Keys(outer.section("params"), outer.where, {**DEFAULTS, **SEQ2SEQ} if task == "seq2seq" else DEFAULTS)
    keys.notes = outer.notes
    if not keys.flag("peft"):
        raise outer.no_lora("params.peft is not set: this config trains no LoRA.", "set params.peft: true")
    if not task.startswith((*CAUSAL, "seq2seq", "vlm")):
        what = f"{task[:60]!r} is a task whose LoRA is not read here."
        raise UnsupportedError(what, where=f"task in {outer.where}", way_out="llm, seq2seq and vlm are read")
    # Given as null, quantization is off; left out, it is the task's default.
    quantized = keys.values["quantization"] if "quantization" in keys.values else keys.get("quantization")
    if task == "seq2seq" and quantized == "int4":
        raise keys.odd("quantization", quantized, "int8 or none: AutoTrain's seq2seq refuses int4")
    quantization = {"int4": bnb4("float16", False), "int8": dict(BNB8)}.get(str(quantized))
    if task.startswith(CAUSAL) and not keys.flag("unsloth"):
        keys.note(
            "vocabulary_may_grow",
            "AutoTrain resizes the embeddings to the tokenizer's length, to fewer rows as well: PEFT saves them along "
            "where that changes their number. --tokenizer or --vocab-size says how many there are.",
        )
    return TrainingConfig(
        trainer="autotrain",
        lora=_lora(keys, task),
        freezing=Freezing(parts=VLM_FROZEN) if task.startswith("vlm") else None,
        base=outer.values.get("base_model"),
        base_precision="float16" if quantization else "float32",
        quantization=quantization,
        prepare_kbit=None if keys.flag("unsloth") else quantization is not None,
        batch_size=keys.integer("batch_size"),
        gradient_accumulation=keys.integer("gradient_accumulation"),
        sequence_length=keys.integer("block_size") if task.startswith(CAUSAL) else None,
        **compared(_method(keys, task)),
        gradient_checkpointing=not keys.flag("disable_gradient_checkpointing"),
        optimizer=keys.get("optimizer"),
        mixed_precision=str(keys.values.get("mixed_precision") or "no"),
        defaulted=tuple(keys.defaulted),
        source=SOURCE,
        notes=tuple(keys.notes),
    )


def _as_yaml(keys: Keys) -> Keys:
    """A command's options in the places that its YAML has for them."""
    program, options = str(keys.values.get("_program") or ""), keys.values
    if not program:
        return keys
    for alias, name in (("use_peft", "peft"), ("train_batch_size", "batch_size")):
        if alias in options:
            options.setdefault(name, options[alias])
    values = {"task": program.rpartition(" ")[2], "base_model": options.get("model"), "params": options}
    outer = Keys(values, keys.where, {})
    outer.notes = keys.notes
    return outer


def _lora(keys: Keys, task: str) -> dict[str, Any]:
    """Targets given as null or empty are PEFT's own for the model (trainers/clm/utils.py, get_target_modules)."""
    given = keys.values.get("target_modules", "all-linear") or ""
    if not isinstance(given, str):
        raise keys.odd("target_modules", given, "text, with commas between the names")
    targets: Any = given.split(",") if given.strip() else None  # a blank beside a comma stays in its name
    if task == "seq2seq":
        targets = keys.names("target_modules")
    # Unsloth's seven names are all that Llama, Mistral, Gemma and Qwen 2 have.
    if given.strip().lower() == "all-linear":
        targets = "all-linear"
    rewards = _method(keys, task) == "reward"
    return {
        "r": keys.integer("lora_r"),
        "lora_alpha": keys.number("lora_alpha"),
        "lora_dropout": keys.number("lora_dropout"),
        "target_modules": targets,
        "target_parameters": None,
        "modules_to_save": None,
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "task_type": "SEQ_2_SEQ_LM" if task == "seq2seq" else "SEQ_CLS" if rewards else "CAUSAL_LM",
        "init_lora_weights": True,
    }


def _method(keys: Keys, task: str) -> str:
    """The task's own (`llm-dpo`, `llm:dpo`), else params.trainer."""
    return task.replace(":", "-").partition("-")[2] or str(keys.values.get("trainer"))
