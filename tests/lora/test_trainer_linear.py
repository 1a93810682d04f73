"""Which modules trainers take for Linear: each asks for classes, or for their names, in a way of its own."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from estimator.architecture.module import Module
from estimator.errors import NoTargetModulesError, UnsupportedError
from estimator.lora.trainers.targets import apply_rule
from tests.lora.small import WIDTH, layer, linear, model

SWIFT = {"freeze_vit": True, "freeze_aligner": True, "freeze_llm": False, "whole_towers": False, "megatron": False}
FACTORY = {"targets": ["all"], "skip": ["lm_head"]}
LAYER = "model.layers.0"


def called(cls: str, name: str) -> Module:
    """A Linear of a class of its own."""
    return linear(name, 4, WIDTH)._replace(cls=cls)


@pytest.mark.parametrize(
    ("trainer", "settings", "cls", "found"),
    [
        pytest.param("swift_all_linear", SWIFT, "TinyRouter", False, id="swift asks for the name of the class"),
        pytest.param("swift_all_linear", SWIFT, "BitLinear", True, id="swift, any class of that name"),
        pytest.param("swift_all_linear", SWIFT, "GLULinear", False, id="swift spares two classes"),
        pytest.param("llamafactory", FACTORY, "TinyRouter", False, id="LLaMA-Factory asks for the name of the class"),
        pytest.param("llamafactory", FACTORY, "BitLinear", True, id="LLaMA-Factory, any class of that name"),
        pytest.param("axolotl_linear", {}, "TinyRouter", True, id="Axolotl asks for torch's class"),
        pytest.param("axolotl_linear", {}, "KimiLinearMLP", True, id="Axolotl asks for the name as well"),
    ],
)
def test_the_class_decides(trainer: str, settings: dict[str, object], cls: str, found: bool) -> None:
    tree = model(*layer(0), called(cls, f"{LAYER}.odd"))
    targets = apply_rule(trainer, settings, tree, {"target_modules": "all-linear"}).lora["target_modules"]
    assert sorted(targets) == sorted(["q_proj", "v_proj", *["odd"] * found])


@pytest.mark.parametrize(
    ("other", "names"),
    [
        pytest.param(f"{LAYER}.proj", ["mlp.proj", "q_proj", "v_proj"], id="another module of the same last part"),
        pytest.param(f"{LAYER}.embed_proj", ["mlp.proj", "q_proj", "v_proj"], id="the end of a part is enough"),
        pytest.param("model.layers.1.mlp.proj.x", ["proj", "q_proj", "v_proj"], id="elsewhere in a name it is nothing"),
    ],
)
def test_swift_names_no_other_module(other: str, names: list[str]) -> None:
    tree = model(*layer(0), linear(f"{LAYER}.mlp.proj", 4, WIDTH), Module(other, "Conv3d", "Conv3d"))
    lora = apply_rule("swift_all_linear", SWIFT, tree, {"target_modules": "all-linear"}).lora
    assert lora["target_modules"] == names


@pytest.mark.parametrize(
    ("trainer", "settings", "key"),
    [
        ("swift_all_linear", SWIFT, "target_modules"),
        ("llamafactory", FACTORY, "lora_target"),
        ("axolotl_linear", {}, "lora_target_modules"),
    ],
)
def test_where_no_linear_is_found_the_names_that_do_are_told(trainer: str, settings: Any, key: str) -> None:
    tree = model(called("Conv1D", f"{LAYER}.c_attn")._replace(kind="Conv1D"))
    with pytest.raises(NoTargetModulesError) as caught:
        apply_rule(trainer, settings, tree, {"target_modules": "all-linear"})
    assert caught.value.way_out == f"name c_attn in {key}"


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        pytest.param("TinyForCausalLM", False, id="a head of ms-swift's own"),
        pytest.param("TinyForTokenClassification", False, id="a classifier of another kind"),
        pytest.param("TinyForSequenceClassification", True, id="transformers' class, whatever its head is called"),
        pytest.param(None, False, id="a class that nobody knows"),
    ],
)
def test_swift_counts_classifiers_of_transformers_alone(name: str | None, counted: bool) -> None:
    tree = model(*layer(0), linear("score", 1, WIDTH))._replace(architecture=name)
    given = {"target_modules": "all-linear"}
    with nullcontext() if counted else pytest.raises(UnsupportedError, match="a head of its own"):
        apply_rule("swift_all_linear", {**SWIFT, "classifies": True}, tree, given)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("trainer", "settings"), [
    ("swift_all_linear", {**SWIFT, "unsloth": True}), ("llamafactory", {**FACTORY, "unsloth": True}), ("unsloth", {}),
])  # fmt: skip
def test_unsloth_takes_names_as_they_are_on_plain_text_models(trainer: str, settings: Any, fused: bool) -> None:
    tree = model(*layer(0), *[linear(f"{LAYER}.qkv_proj", 4, WIDTH)] * fused)
    with pytest.raises(UnsupportedError, match="of its own") if fused else nullcontext():
        apply_rule(trainer, settings, tree, {"target_modules": ["q_proj"]})


@pytest.mark.parametrize(("model_type", "adapted"), [("gpt_neox", True), ("llama", False)])
def test_axolotl_says_where_it_adapts_the_head(model_type: str, adapted: bool) -> None:
    resolved = apply_rule("axolotl_linear", {}, model(*layer(0), model_type=model_type), {})
    assert ("lm_head" in resolved.lora["target_modules"]) == adapted
    assert ("head_adapted" in {note.code for note in resolved.notes}) == adapted


TOWERS = {
    "minicpmv4_6": ("model.merger", "model.vision_tower"),
    "got_ocr2": ("model.multi_modal_projector", "model.vision_tower"),
    "minimax_m3_vl": ("model.multi_modal_projector", "model.vision_tower"),
    "muse_glimmer": ("model.vision_projection", "model.vision_tower"),
    "gemma4_unified": ("model.embed_vision", "model.embed_audio"),  # two projectors, no tower
}


@pytest.mark.parametrize(("kind", "parts"), TOWERS.items())
def test_swift_leaves_projector_and_tower_alone_unless_asked(kind: str, parts: tuple[str, str]) -> None:
    text, projector, tower = (linear(f"{part}.fc", 4, WIDTH) for part in ("model.language_model", *parts))
    tree = model(text, projector, tower, model_type=kind)._replace(is_composite=True)
    found = {
        freeze: apply_rule("swift_all_linear", {**SWIFT, freeze: False}, tree, {"target_modules": ["all-linear"]}).lora
        for freeze in ("freeze_llm", "freeze_aligner", "freeze_vit")
    }
    vit = [] if kind == "gemma4_unified" else [tower.name]
    aligner = [projector.name, tower.name] if kind == "gemma4_unified" else [projector.name]
    assert [lora["target_modules"] for lora in found.values()] == [
        [text.name], [text.name, *aligner], [text.name, *vit],
    ]  # fmt: skip


def test_llamafactory_freezes_the_tower_of_minicpm_v() -> None:
    names = ("model.language_model.fc", "model.merger.fc", "model.vision_tower.fc")
    tree = model(*(linear(name, 4, WIDTH) for name in names), model_type="minicpmv4_6")
    settings = {**FACTORY, "freeze_vision_tower": True, "freeze_projector": True}
    assert apply_rule("llamafactory", settings, tree, {}).lora["target_modules"] == [names[0]]
