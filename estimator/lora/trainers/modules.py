"""Trainers that build modules of their own: torchtune, litgpt, Megatron.

Where these are split or fused otherwise than the published class's, the tree is handed on as the trainer builds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator.architecture.module import Module, ModuleTree
from estimator.lora.trainers.rule import (
    Resolved,
    experts_side_by_side,
    has_experts,
    has_part,
    leaf,
    linear,
    refused,
    uncounted,
)
from estimator.lora.trainers.torchtune import TOWERS, torchtune_towers
from estimator.notes import Note


def torchtune(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """torchtune's builders: every projection a module of its own, also where the published class fuses them.

    Raises UsageError for LoRA on an output that shares the embedding's weight, which the builders refuse.
    """
    if tree.config.get("model_type") in TOWERS:
        return torchtune_towers(settings, tree, lora)
    if settings.get("fusion") or has_experts(tree):
        raise uncounted("torchtune builds this model of modules of its own", "name the base of its builder")
    if settings.get("apply_lora_to_output") and f"{tree.output_embedding}.weight" in tree.tied:
        what = "the output shares the embedding's weight: torchtune's builders refuse LoRA on it"
        raise refused(what, "apply_lora_to_output", "set apply_lora_to_output: false")
    return _split_fused(tree, lora)


def litgpt(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """litgpt's lora.py: A and B for each of q, k and v that is on, in one module: as many as apart.

    Of a model with towers it builds the text model. lora_mlp means each expert and the router too (LLaMAMoE).
    Its GPT never ties the head: convert_hf_checkpoint.py copies the embeddings to it.
    """
    head = f"{tree.output_embedding}.weight"
    notes = (_own_head(tree),) if head in tree.tied else ()
    tree = tree._replace(tied={name: source for name, source in tree.tied.items() if name != head})
    resolved = _split_fused(tree, lora)
    modules = resolved.tree.modules
    experts = tuple(experts_side_by_side(tree, ("fc_1", "fc_2", "proj")))
    if experts:
        modules = (*(_router_as_linear(module) for module in modules), *experts)
    elif has_experts(tree):
        raise uncounted("litgpt holds experts in modules of its own", "name a dense base")
    wanted = {name for switch, names in _LITGPT_NAMES.items() if settings.get(switch) for name in names}
    text = [m for m in modules if not tree.is_composite or has_part(m.name, ("language_model", "lm_head"))]
    names = [m.name for m in text if m.kind == "Linear" and leaf(m.name) in wanted]
    lora = {**resolved.lora, "target_modules": names}
    return Resolved(resolved.tree._replace(modules=modules), lora, (*notes, *resolved.notes))


def _own_head(tree: ModuleTree) -> Note:
    packed = ", quantised too" if tree.output_embedding in tree.quantised else ""
    message = f"litgpt's model has a head of its own beside the embeddings{packed}: more is loaded than is shown."
    return Note("own_head", message)


def _router_as_linear(module: Module) -> Module:
    """A Linear under a name that PEFT does not take for one of transformers 4, as it does `gate`."""
    router = leaf(module.name) == "gate" and module.kind == "other" and len(module.parameters) == 1
    name = module.name.removesuffix("gate") + "router"
    return module._replace(name=name, cls="Linear", kind="Linear") if router else module


_LITGPT_NAMES = {
    "lora_query": ("q_proj",),
    "lora_key": ("k_proj",),
    "lora_value": ("v_proj",),
    "lora_projection": ("o_proj", "dense"),
    "lora_mlp": (
        "gate_proj",
        "up_proj",
        "down_proj",
        "fc1",
        "fc2",
        "dense_h_to_4h",
        "dense_4h_to_h",
        "router",
        "fc_1",
        "fc_2",
        "proj",
    ),
    "lora_head": ("lm_head", "embed_out"),
}


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
    return Resolved(tree._replace(modules=tuple(modules)) if split else tree, lora, notes)


def _parts(module: Module, config: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Name and rows of each projection in a fused one; () for any other module."""
    rows = next((p.shape[0] for p in module.parameters if p.name == "weight"), 0)
    name = leaf(module.name)
    if name == "gate_up_proj":
        return ("gate_proj", rows // 2), ("up_proj", rows // 2)
    if name not in ("qkv_proj", "query_key_value", "W_pack", "qkv"):
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


def megatron(tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """Megatron-Core's dense layers: q, k and v in one Linear, gate and up in one; one adapter each."""
    leaves = {leaf(module.name) for module in linear(tree)}
    known = {name for names in _MEGATRON.values() for name in names}
    if tree.is_composite or has_experts(tree) or not known <= leaves <= known | {"lm_head"}:
        raise uncounted("Megatron builds this model of modules of its own", "use swift sft in place of megatron sft")
    lora["target_modules"] = _megatron_targets(lora)
    rows: dict[str, int] = {}
    for module in linear(tree):
        fused = _fused_name(module)
        if fused:
            rows[fused] = rows.get(fused, 0) + module.parameters[0].shape[0]
    modules = []
    for module in tree.modules:
        fused = _fused_name(module) if module.kind == "Linear" else None
        if fused is None:
            modules.append(module)
        elif fused in rows:
            modules.append(_piece(module, leaf(fused), rows.pop(fused)))
    message = (
        "One adapter serves the fused q, k, v and one the fused gate, up: PEFT on the published class trains more."
    )
    return Resolved(tree._replace(modules=tuple(modules)), lora, (Note("trainer_modules", message),))


def _megatron_targets(lora: Mapping[str, Any]) -> list[str]:
    """ms-swift 4.6.0.dev0, megatron/utils/utils.py, get_target_modules; a dense model has no router to find.

    Raises UnsupportedError for regular expressions, for names beside the four, and for modules that train whole.
    """
    given = lora.get("target_modules")
    targets = [given] if given == "all-linear" else given
    known = {*_MEGATRON, "all-linear", "all-router"}
    if not isinstance(targets, list) or not known.issuperset(targets) or lora.get("modules_to_save"):
        way_out = "target all-linear, or some of " + ", ".join(sorted(_MEGATRON)) + ", and save no module whole"
        raise uncounted("Megatron names its modules in its own way", way_out)
    return sorted(_MEGATRON) if "all-linear" in targets else sorted({*targets} & {*_MEGATRON})


def _fused_name(module: Module) -> str | None:
    outer, _, last = module.name.rpartition(".")
    return next((f"{outer}.{fused}" for fused, names in _MEGATRON.items() if last in names), None)
