"""OpenRLHF's command line (0.11.0: openrlhf/cli, models/actor.py; the names of its options before 0.10.2 as well).

DeepSpeed casts the whole model, adapter included, to --ds.param_dtype.
"""

from __future__ import annotations

from typing import Any

from estimator.errors import NoTargetModulesError, UnsupportedError
from estimator.request.trainers.keys import Keys, bnb4, dtype_name, stored_quantization
from estimator.request.trainers.preferences import compared, method_of
from estimator.request.trainers.run_settings import attention_of, filled_batch, offload_note, tokens_note
from estimator.request.training_config import TrainingConfig

SOURCE = "OpenRLHF 0.11.0, openrlhf/cli"
DEFAULTS: dict[str, Any] = {
    "lora.rank": 0,
    "lora.alpha": 16,
    "lora.dropout": 0,
    "lora.target_modules": "all-linear",
    "param_dtype": "bf16",
    "zero_stage": 2,
    "max_len": 2048,
    "batch": 8,
}
DPO_DEFAULTS = {**DEFAULTS, "max_len": 512}
_RAY_DEFAULTS = {
    **DEFAULTS, "batch": 1, "nodes": 1, "gpus": 8, "max_tokens": 16192, "train_batch": 128, "ring": 1, "parallel": 1,
}  # fmt: skip
# What an option is called, the newest name first.
_NAMES = {
    "base": ("model.model_name_or_path", "actor.model_name_or_path", "pretrain"),
    "lora.rank": ("ds.lora.rank", "lora_rank"),
    "lora.alpha": ("ds.lora.alpha", "lora_alpha"),
    "lora.dropout": ("ds.lora.dropout", "lora_dropout"),
    "lora.target_modules": ("ds.lora.target_modules", "target_modules"),
    "load_in_4bit": ("ds.load_in_4bit", "load_in_4bit"),
    "param_dtype": ("ds.param_dtype", "param_dtype"),
    "zero_stage": ("ds.zero_stage", "zero_stage"),
    "attention": ("ds.attn_implementation", "attn_implementation"),
    "packing": ("ds.packing_samples", "packing_samples"),
    "checkpointing": (
        "model.gradient_checkpointing_enable", "actor.gradient_checkpointing_enable", "gradient_checkpointing",
    ),
    "batch": ("train.micro_batch_size", "micro_train_batch_size"),
    "max_len": ("data.max_len", "max_len"),
    "prompt": ("prompt_max_len",),  # PPO's before 0.10
    "answer": ("generate_max_len",),
    "dynamic": ("train.dynamic_batch_enable", "use_dynamic_batch"),
    "max_tokens": ("train.max_tokens_per_gpu", "train_max_tokens_per_gpu"),
    "train_batch": ("train.batch_size", "train_batch_size"),
    "nodes": ("actor.num_nodes", "actor_num_nodes"),
    "gpus": ("actor.num_gpus_per_node", "actor_num_gpus_per_node"),
    "ring": ("ds.ring_attn_size", "ring_attn_size"),
    "parallel": ("ds.tensor_parallel_size", "ds_tensor_parallel_size"),
    "offload": ("ds.adam_offload", "adam_offload"),
}  # fmt: skip
_WITH_HEADS = ("train_rm", "train_prm")


def read(keys: Keys) -> TrainingConfig:
    """Raises UsageError where the rank is 0, UnsupportedError for reward models, whose heads are OpenRLHF's own, and
    NoTargetModulesError for all-linear in a list.
    """
    program = str(keys.values.get("_program"))
    ray = program.endswith("_ray")
    said = _said(keys, program)
    if not said.integer("lora.rank"):
        raise keys.no_lora("the rank of LoRA is 0: this command trains none.", "give --ds.lora.rank")
    if program.endswith(_WITH_HEADS):
        what = f"{program} puts a head of its own on the model: not counted."
        raise UnsupportedError(what, where=keys.where, way_out="count the base with --model and the targets")
    if "ppo" in program:
        said.note("critic", "A critic gets an adapter of its own: what is counted is the actor's.")
    comparing = compared(method_of(program.rpartition(".")[2]))
    if comparing:
        said.note(
            "reference_apart",
            "The reference is a model of its own, loaded beside: its weights are not in a plan, unless --ref.offload "
            "keeps them on the CPU.",
        )
    dtype = dtype_name(said.get("param_dtype"))
    four = said.flag("load_in_4bit")
    base = said.values.get("base")
    length, gpus = _length(said, program), _gpus(said) if ray else None
    batch = _batch(said, length, gpus) if ray else said.integer("batch")
    offloads = frozenset({"optimizer"} if said.flag("offload") else ())
    if offloads:
        said.notes.append(offload_note("adam_offload", offloads))
    return TrainingConfig(
        trainer="openrlhf",
        lora=_lora(said),
        base=base,
        base_precision=dtype,
        quantization=stored_quantization(base) or (bnb4("bfloat16", True) if four else None),
        adapter_dtype=dtype,
        batch_size=batch,
        sequence_length=length,
        packing=said.flag("packing"),
        **comparing,
        gradient_checkpointing=said.flag("checkpointing"),
        optimizer="adamw_torch",
        mixed_precision="no",
        attention=attention_of(said.values.get("attention")) or "flash_attention_2",
        gpus=gpus,
        strategy=f"zero{said.integer('zero_stage')}" if said.integer("zero_stage") else None,
        offloads=offloads,
        defaulted=tuple(said.defaulted),
        source=SOURCE,
        notes=(*keys.notes, *said.notes),
    )


def _said(keys: Keys, program: str) -> Keys:
    """The options by one name each, with the defaults of their program and release."""
    found = {
        name: keys.values[known]
        for name, names in _NAMES.items()
        if (known := next((one for one in names if one in keys.values), None)) is not None
    }
    defaults = _RAY_DEFAULTS if program.endswith("_ray") else DPO_DEFAULTS if "dpo" in program else DEFAULTS
    older = "ppo" in program and bool({"prompt", "answer"} & found.keys())
    return Keys(found, keys.where, {**defaults, "batch": 4, "prompt": 1024, "answer": 1024} if older else defaults)


def _length(said: Keys, program: str) -> int | None:
    """max_len where it is given; PPO before 0.10 (cli/train_ppo_ray.py) else takes prompt and answer together."""
    if "ppo" not in program or "max_len" in said.values or not {"prompt", "answer"} & said.values.keys():
        return said.integer("max_len")
    prompt, answer = said.integer("prompt"), said.integer("answer")
    return None if prompt is None or answer is None else prompt + answer


def _gpus(said: Keys) -> int | None:
    each, nodes = said.integer("gpus"), said.integer("nodes")
    return each * nodes if each and nodes else None


def _batch(said: Keys, length: int | None, gpus: int | None) -> int | None:
    """trainer/ppo_utils/replay_buffer.py: a dynamic batch is filled by tokens, at most a step's examples."""
    if not said.flag("dynamic"):
        return said.integer("batch")
    limit, step = said.integer("max_tokens"), said.integer("train_batch")
    groups = (gpus or 1) // ((said.integer("ring") or 1) * (said.integer("parallel") or 1))
    batch = filled_batch(limit, length, step and max(1, step // max(1, groups)))
    if limit and length and batch:
        said.notes.append(tokens_note(limit, length, batch))
    return batch


def _lora(said: Keys) -> dict[str, Any]:
    """--target_modules takes a list: all-linear, given, is a name in it, which PEFT does not find."""
    targets = said.get("lora.target_modules")
    given = "lora.target_modules" in said.values
    targets = [targets] if given and not isinstance(targets, list) else targets
    if targets == ["all-linear"]:
        what = "--target_modules makes a list of all-linear, in which it is a name: PEFT finds no such module."
        raise NoTargetModulesError(what, where=said.where, way_out="leave it out: all-linear is the default")
    return {
        "r": said.integer("lora.rank"),
        "lora_alpha": said.number("lora.alpha"),
        "lora_dropout": said.number("lora.dropout"),
        "target_modules": targets,
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
