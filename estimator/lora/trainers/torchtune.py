"""torchtune's models of several towers (main of April 2026: models/llama3_2_vision and models/llama4,
_component_builders.py): which of the published class's modules stand for the parts that its switches name.

`encoder_trainable`, `fusion_trainable` and `decoder_trainable` are "lora" or "frozen"; the fusion is the projection
head behind the encoder and, in Llama 3.2, the layers of cross attention. `apply_lora_to_output` means the head of the
decoder and the last layers of the projection head. Llama 4's experts have an adapter each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from estimator.architecture.module import ModuleTree
from estimator.lora.trainers.rule import Resolved, experts_side_by_side, linear, uncounted
from estimator.notes import Note

_ATTENTION = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "o_proj": "output_proj"}
_MLP = frozenset({"fc1", "fc2", "gate_proj", "up_proj", "down_proj"})


class Place(NamedTuple):
    switch: str  # which of the three switches trains it
    pattern: re.Pattern[str]  # of names; the first that fits counts
    role: str | None = None  # "output", or by the last part of the name


def _places(*rows: tuple[str, str, str | None]) -> tuple[Place, ...]:
    return tuple(Place(switch, re.compile(pattern), role) for switch, pattern, role in rows)


TOWERS: Mapping[str, tuple[Place, ...]] = {
    "mllama": _places(
        ("fusion", r"(.*\.)?multi_modal_projector$", "output"),
        ("fusion", r"(.*\.)?vision_model\.global_transformer\.", None),
        ("encoder", r"(.*\.)?vision_model\.transformer\.", None),
        ("fusion", r".*\.cross_attn\.", None),
        ("decoder", r"(.*\.)?lm_head$", "output"),
        ("decoder", r"(.*\.)?language_model\.", None),
    ),
    "llama4": _places(
        ("fusion", r"(.*\.)?multi_modal_projector\.", "output"),
        ("fusion", r"(.*\.)?vision_model\.vision_adapter\.", "output"),
        ("encoder", r"(.*\.)?vision_model\.", None),
        ("decoder", r"(.*\.)?lm_head$", "output"),
        ("decoder", r"(.*\.)?language_model\.", None),
    ),
}
DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "mllama": {"decoder": "frozen", "encoder": "lora", "fusion": "lora"},
    "llama4": {"decoder": "lora", "encoder": "frozen", "fusion": "lora"},
}


def torchtune_towers(settings: Mapping[str, Any], tree: ModuleTree, lora: dict[str, Any]) -> Resolved:
    """Raises UnsupportedError for DoRA on Llama 4's experts, which the builder leaves out."""
    kind = str(tree.config["model_type"])
    trains = {
        switch: str(settings.get(f"{switch}_trainable") or default).lower() == "lora"
        for switch, default in DEFAULTS[kind].items()
    }
    experts = (
        tuple(experts_side_by_side(tree, ("gate_proj", "up_proj", "down_proj")))
        if trains["decoder"] and settings.get("apply_lora_to_mlp")
        else ()
    )
    if experts and lora.get("use_dora"):
        raise uncounted("torchtune has no DoRA for the experts of Llama 4", "set use_dora: false")
    crossing = {m.name.partition(".cross_attn.")[0] for m in linear(tree) if ".cross_attn." in m.name}
    names = [m.name for m in linear(tree) if _adapts(m.name, TOWERS[kind], crossing, trains, settings)]
    lora["target_modules"] = [*names, *(module.name for module in experts)]
    message = "torchtune's own switches choose the modules; PEFT would be given their full names."
    notes = (Note("trainer_modules", message),)
    return Resolved(tree._replace(modules=(*tree.modules, *experts)) if experts else tree, lora, notes)


def _adapts(
    name: str, places: tuple[Place, ...], crossing: set[str], trains: Mapping[str, bool], settings: Mapping[str, Any]
) -> bool:
    place = next((place for place in places if place.pattern.match(name)), None)
    if place is None:
        return False
    layer, _, last = name.rpartition(".")
    mlp = last in _MLP
    switch = "fusion" if mlp and layer.removesuffix(".mlp") in crossing else place.switch
    if place.role == "output":
        wanted = settings.get("apply_lora_to_output")
    else:
        wanted = settings.get("apply_lora_to_mlp") if mlp else _ATTENTION.get(last) in settings["lora_attn_modules"]
    return bool(trains[switch] and wanted)
