"""What trainers make of their own ways to name targets, on the modules of a model.

Each rule hands on fields of a LoraConfig and, where the trainer's own modules are split or fused otherwise than the
published class's, the tree as the trainer builds it: the count is then the trainer's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.errors import UnsupportedError
from estimator.notes import Note

VISION = (
    "visual",
    "vision_tower",
    "vision_model",
    "vision_encoder",
    "audio_tower",
    "audio_model",
    "vit_large_projector",
)
PROJECTOR = (
    "multi_modal_projector",
    "merger",
    "aligner",
    "connector",
    "mlp1",
    "embed_vision",
    "embed_audio",
    "projector",
)
LANGUAGE = ("language_model", "text_model", "llm", "thinker.model")


class Resolved(NamedTuple):
    tree: ModuleTree
    lora: dict[str, Any]
    notes: tuple[Note, ...] = ()


def apply_rule(name: str, settings: Mapping[str, Any], tree: ModuleTree, lora: Mapping[str, Any]) -> Resolved:
    """Raises UnsupportedError where the trainer's own modules are not known here."""
    return _RULES[name](settings, tree, dict(lora))


def _linear(tree: ModuleTree) -> list[Module]:
    return [module for module in tree.modules if module.kind == "Linear"]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _has_part(name: str, parts: Sequence[str]) -> bool:
    return any(part in name for part in parts)


def _axolotl_linear(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """axolotl 0.18.0, loaders/adapter.py, find_all_linear_names: no part of a model is left out but the head."""
    head = "embed_out" if tree.config.get("model_type") == "gpt_neox" else "lm_head"
    names = {_leaf(module.name) for module in _linear(tree)} - {head}
    lora["target_modules"] = sorted(names | set(settings.get("and") or ()))
    return Resolved(tree, lora)


def _llamafactory(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """LLaMA-Factory 0.9.6.dev0, model/model_utils/misc.py find_all_linear_modules, visual.py patch_target_modules."""
    given = settings.get("targets") or ["all"]
    frozen = _frozen(settings) if tree.is_composite else ()
    if given == ["all"]:
        skip = (*settings["skip"], *frozen, *(PROJECTOR if tree.is_composite else ()))
        given = sorted({_leaf(module.name) for module in _linear(tree) if not _has_part(module.name, skip)})
    if tree.is_composite:
        given = [m.name for m in _linear(tree) if _has_part(m.name, given) and not _has_part(m.name, frozen)]
    lora["target_modules"] = given
    if settings.get("embeddings"):
        embeddings = (tree.input_embedding, tree.output_embedding)
        lora["modules_to_save"] = [_leaf(name) for name in embeddings if name]
    return _with_value_head(tree, lora) if settings.get("value_head") else Resolved(tree, lora)


def _frozen(settings: Mapping[str, Any]) -> tuple[str, ...]:
    parts = (("freeze_vision_tower", VISION), ("freeze_projector", PROJECTOR), ("freeze_language_model", LANGUAGE))
    return tuple(part for key, names in parts if settings.get(key) for part in names)


def _with_value_head(tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """TRL's AutoModelForCausalLMWithValueHead: a Linear of one output, bias included, that trains in full."""
    config = tree.config.get("text_config") or tree.config
    width = config.get("hidden_size") or config.get("n_embd")
    if not isinstance(width, int):
        raise UnsupportedError("the width of the value head is not known.", where="hidden_size", way_out="stage: sft")
    summary = (Parameter("weight", (1, width), "F32"), Parameter("bias", (1,), "F32"))
    head = (Module("v_head", "ValueHead", "other"), Module("v_head.summary", "Linear", "Linear", summary))
    lora["modules_to_save"] = [*(lora.get("modules_to_save") or ()), "v_head"]
    message = f"The value head trains too ({width:,} + 1 parameters); the trainer saves it in a file of its own."
    return Resolved(replace(tree, modules=(*tree.modules, *head)), lora, (Note("value_head", message),))


def _swift(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """ms-swift 4.6.0.dev0, pipelines/train/tuner.py, get_multimodal_target_regex and find_all_linears."""
    if settings.get("whole_towers"):
        raise _uncounted("lora_llm trains whole towers beside the LoRA", "give --tuner_type lora")
    if settings.get("megatron"):
        return _megatron(tree, lora)
    skip = ("lm_head", "score", "v_head", "classifier", "lora_A", "lora_B", "base_layer")
    names = [module.name for module in _linear(tree) if not _has_part(module.name, skip)]
    if not tree.is_composite:
        lora["target_modules"] = sorted({_leaf(name) for name in names} | set(settings.get("and") or ()))
        return Resolved(tree, lora)
    frozen = (("freeze_vit", VISION), ("freeze_aligner", PROJECTOR), ("freeze_llm", LANGUAGE))
    kept = [name for name in names if not _has_part(name, [p for key, ps in frozen if settings.get(key) for p in ps])]
    lora["target_modules"] = kept
    return Resolved(tree, lora)


def _torchtune(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """torchtune's builders: every projection a module of its own, also where the published class fuses them."""
    if any(key.endswith("_trainable") for key in settings) or _has_experts(tree):
        raise _uncounted("torchtune builds this model of modules of its own", "ask for the text model alone")
    return _split_fused(tree, lora)


def _litgpt(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """litgpt's lora.py: A and B for each of q, k and v that is on, in one module: as many as apart."""
    if _has_experts(tree):
        raise _uncounted("litgpt holds experts in modules of its own", "name a dense base")
    resolved = _split_fused(tree, lora)
    leaves = {_leaf(module.name) for module in _linear(resolved.tree)}
    wanted = [
        name for switch, names in _LITGPT_NAMES.items() if settings.get(switch) for name in names if name in leaves
    ]
    return resolved._replace(lora={**resolved.lora, "target_modules": wanted})


_LITGPT_NAMES = {
    "lora_query": ("q_proj",),
    "lora_key": ("k_proj",),
    "lora_value": ("v_proj",),
    "lora_projection": ("o_proj", "dense"),
    "lora_mlp": ("gate_proj", "up_proj", "down_proj", "fc1", "fc2", "dense_h_to_4h", "dense_4h_to_h"),
    "lora_head": ("lm_head", "embed_out"),
}


def _nemo(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """NeMo Automodel's ModuleMatcher: wildcards over full names, the head not spared; nn.Linear alone is wrapped."""
    wanted, excluded = (
        [re.compile(re.escape(pattern).replace(r"\*", ".*")) for pattern in settings[key]]
        for key in ("target_modules", "exclude_modules")
    )

    def named(patterns: Sequence[re.Pattern[str]], name: str) -> bool:
        return any(pattern.fullmatch(name) or pattern.fullmatch(_leaf(name)) for pattern in patterns)

    every = settings.get("match_all_linear") or not wanted
    names = [m.name for m in _linear(tree) if (every or named(wanted, m.name)) and not named(excluded, m.name)]
    lora["target_modules"] = names
    notes: tuple[Note, ...] = ()
    if tree.output_embedding in names:
        notes = (
            Note("head_adapted", f"{tree.output_embedding} is adapted too; PEFT's all-linear would leave it out."),
        )
    return Resolved(tree, lora, notes)


def _has_experts(tree: ModuleTree) -> bool:
    return any(".experts" in module.name for module in tree.modules)


def _uncounted(what: str, way_out: str) -> UnsupportedError:
    return UnsupportedError(f"{what}: not counted.", where="--config", way_out=way_out)


def _split_fused(tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    modules: list[Module] = []
    split = False
    for module in tree.modules:
        parts = _parts(module, tree.config) if module.kind == "Linear" else ()
        split = split or bool(parts)
        modules.extend(_piece(module, name, rows) for name, rows in parts)
        if not parts:
            modules.append(module)
    message = "The trainer holds apart what the published class fuses: PEFT on that class would count otherwise."
    notes = (Note("trainer_modules", message),) if split else ()
    return Resolved(replace(tree, modules=tuple(modules)) if split else tree, lora, notes)


def _parts(module: Module, config: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Name and rows of each projection in a fused one; () for any other module."""
    rows = next((p.shape[0] for p in module.parameters if p.name == "weight"), 0)
    leaf = _leaf(module.name)
    if leaf == "gate_up_proj":
        return ("gate_proj", rows // 2), ("up_proj", rows // 2)
    if leaf not in ("qkv_proj", "query_key_value", "W_pack", "qkv"):
        return ()
    heads = config.get("num_attention_heads") or config.get("n_head") or 1
    width = config.get("head_dim") or (config.get("hidden_size") or 0) // heads
    query = heads * width
    return ("q_proj", query), ("k_proj", (rows - query) // 2), ("v_proj", (rows - query) // 2)


def _piece(module: Module, name: str, rows: int) -> Module:
    parameters = tuple(p._replace(shape=(rows, *p.shape[1:])) for p in module.parameters)
    outer = module.name.rpartition(".")[0]
    return module._replace(name=f"{outer}.{name}" if outer else name, parameters=parameters)


# Megatron's fused Linear -> the projections in it, in the published class.
_MEGATRON = {
    "linear_qkv": ("q_proj", "k_proj", "v_proj"),
    "linear_fc1": ("gate_proj", "up_proj"),
    "linear_proj": ("o_proj",),
    "linear_fc2": ("down_proj",),
}


def _megatron(tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """Megatron-Core's dense layers: q, k and v in one Linear, gate and up in one; one adapter each."""
    leaves = {_leaf(module.name) for module in _linear(tree)}
    known = {name for names in _MEGATRON.values() for name in names}
    if tree.is_composite or _has_experts(tree) or not known <= leaves <= known | {"lm_head"}:
        raise _uncounted("Megatron builds this model of modules of its own", "use swift sft in place of megatron sft")
    rows: dict[str, int] = {}
    for module in _linear(tree):
        fused = _fused_name(module)
        if fused:
            rows[fused] = rows.get(fused, 0) + module.parameters[0].shape[0]
    modules = []
    for module in tree.modules:
        fused = _fused_name(module) if module.kind == "Linear" else None
        if fused is None:
            modules.append(module)
        elif fused in rows:
            modules.append(_piece(module, _leaf(fused), rows.pop(fused)))
    lora["target_modules"] = sorted(_MEGATRON)
    message = (
        "One adapter serves the fused q, k, v and one the fused gate, up: PEFT on the published class trains more."
    )
    return Resolved(replace(tree, modules=tuple(modules)), lora, (Note("trainer_modules", message),))


def _fused_name(module: Module) -> str | None:
    outer, _, leaf = module.name.rpartition(".")
    return next((f"{outer}.{fused}" for fused, names in _MEGATRON.items() if leaf in names), None)


def _listed(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """The names as they are, on the class that the checkpoint names."""
    return Resolved(tree, lora)


_RULES: Mapping[str, Callable[[Mapping[str, Any], ModuleTree, dict[str, Any]], Resolved]] = {
    "listed": _listed,
    "axolotl_linear": _axolotl_linear,
    "llamafactory": _llamafactory,
    "swift_all_linear": _swift,
    "torchtune": _torchtune,
    "litgpt": _litgpt,
    "nemo": _nemo,
}
