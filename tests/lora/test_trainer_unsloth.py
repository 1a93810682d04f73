"""Which modules Unsloth adapts, from the parts of a model and the kinds of layers that a config chooses."""

from __future__ import annotations

from typing import Any

import pytest

from estimator.architecture.module import Module, ModuleTree
from estimator.errors import UnsupportedError, UsageError
from estimator.lora.trainers.targets import apply_rule
from tests.lora.small import MOE, WIDTH, linear, model

VISION = "model.visual.blocks.0"
TEXT = "model.language_model.layers.0"
LINEARS = [
    *(f"{VISION}.{name}" for name in ("attn.qkv", "attn.q_proj", "mlp.fc1", "mlp.fc2")),
    *(f"{TEXT}.{name}" for name in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "q_proj")),
    *(f"model.language_model.layers.1.{name}" for name in ("self_attn.v_proj", "mlp.up_proj")),
    *(f"model.visual.blocks.1.{name}" for name in ("attn.qkv", "mlp.fc1", "mlp.fc2")),
    "model.visual.merger.proj",
]
SEES = model(*(linear(name, 4, WIDTH) for name in LINEARS))._replace(is_composite=True)
PLAIN = model(
    *(linear(f"model.layers.0.{name}", 4, WIDTH) for name in ("self_attn.q_proj", "mlp.up_proj", "conv.in_proj")),
    model_type="lfm2",
)

TOWER, SOUND = "model.vision_tower.encoder.layers.0.self_attn", "model.audio_tower.layers.0"
HEARS = model(
    *(Module(name, "Gemma4ClippableLinear", "other") for name in (f"{TOWER}.q_proj", f"{SOUND}.self_attn.q_proj")),
    *(linear(f"{name}.linear", 4, WIDTH) for name in (f"{TOWER}.q_proj", f"{SOUND}.self_attn.q_proj")),
    *(linear(name, 4, WIDTH) for name in (f"{TEXT}.self_attn.q_proj", f"{SOUND}.ffw_layer_1", f"{SOUND}.conv.x",
                                          "model.embed_vision.embedding_projection")),
)._replace(is_composite=True, config={"model_type": "gemma4", "audio_config": {"a": 1}})  # fmt: skip
OMNI = model(linear("model.text_mlp_q_proj.x", 4, WIDTH), linear("code.layers.0.mlp.q_proj", 4, WIDTH))


def off(*names: str) -> dict[str, Any]:
    kinds = {"vision": "layers", "language": "layers", "attention": "modules", "mlp": "modules"}
    return {"scopes": {f"finetune_{name}_{kinds[name]}": False for name in names}}


@pytest.mark.parametrize(
    ("tree", "settings", "given", "found"),
    [
        pytest.param(SEES, {}, ["q_proj"], ["q_proj"], id="images: a list, as it is"),
        pytest.param(SEES, off("vision"), ["q_proj", "v_proj"],
                     [f"{TEXT}.self_attn.q_proj", f"{TEXT}.self_attn.v_proj",
                      "model.language_model.layers.1.self_attn.v_proj"], id="within attention of the text alone"),
        pytest.param(SEES, off("language", "mlp"), ["q_proj", "qkv", "fc1"],
                     [f"{VISION}.attn.qkv", f"{VISION}.attn.q_proj", "model.visual.blocks.1.attn.qkv"],
                     id="attention of the tower"),
        pytest.param(SEES, {**off("vision"), "all_linear": True}, ["all-linear"],
                     [name for name in LINEARS if name not in (f"{TEXT}.q_proj", "model.visual.merger.proj")],
                     id="all-linear, whatever is chosen, but what there is one of"),
        pytest.param(SEES, {"text_names": True}, ["v_proj"],
                     ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
                     id="names of the command line are not for models that see"),
        pytest.param(HEARS, {}, ["q_proj"],
                     [f"{TOWER}.q_proj.linear", f"{SOUND}.self_attn.q_proj.linear", f"{TEXT}.self_attn.q_proj"],
                     id="Gemma 4: the Linear inside a clippable one"),
        pytest.param(HEARS, off("attention"), ["q_proj", "embedding_projection", "ffw_layer_1"],
                     ["model.embed_vision.embedding_projection"], id="Gemma 4: what it sees with, if it is named"),
        pytest.param(HEARS, {"all_linear": True}, ["all-linear"],
                     [f"{TOWER}.q_proj.linear", f"{SOUND}.self_attn.q_proj.linear", f"{SOUND}.ffw_layer_1",
                      "model.embed_vision.embedding_projection"], id="Gemma 4: all-linear hears too"),
        pytest.param(OMNI._replace(is_composite=True), off("vision"), ["q_proj"], [],
                     id="a name that goes on behind a leaf keeps the parts asked for"),
        pytest.param(PLAIN, {}, ["q_proj", "up_proj", "in_proj"],
                     ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"],
                     id="text without fast code: attention and MLP alone"),
        pytest.param(PLAIN._replace(config={"model_type": "bert", "architectures": ["TinyModel"]}), {},
                     ["q_proj", "in_proj"], ["q_proj", "in_proj"], id="an encoder of sentences: as it is"),
        pytest.param(PLAIN._replace(config={"model_type": "qwen2"}), {}, ["q_proj", "in_proj"], ["q_proj", "in_proj"],
                     id="text with fast code: as it is"),
    ],
)  # fmt: skip
def test_what_is_adapted(tree: ModuleTree, settings: dict[str, Any], given: list[str], found: list[str]) -> None:
    assert apply_rule("unsloth", settings, tree, {"target_modules": given}).lora["target_modules"] == found


def test_embeddings_among_the_targets_train_in_full() -> None:
    given = {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}
    lora = apply_rule("unsloth", {}, PLAIN._replace(config={"model_type": "llama"}), given).lora
    assert lora == {"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["embed_tokens"]}


def test_images_are_said_to_be_assumed_where_they_decide() -> None:
    codes = [
        [note.code for note in apply_rule("unsloth", settings, SEES, {"target_modules": ["q_proj"]}).notes]
        for settings in ({}, off("vision"))
    ]
    assert codes == [["images_assumed"], []]


@pytest.mark.parametrize(
    ("tree", "settings", "given", "error"),
    [
        pytest.param(SEES, off("vision", "language"), ["q_proj"], UsageError, id="no part"),
        pytest.param(SEES, off("attention", "mlp"), ["q_proj"], UsageError, id="no kind of layer"),
        pytest.param(SEES, off("vision"), ["odd"], UsageError, id="nothing of that name"),
        pytest.param(model(Module("model.layers.0.mlp.c_fc", "Conv1D", "Conv1D"), model_type="gpt2"), {}, ["c_fc"],
                     UsageError, id="no Linear"),
        pytest.param(PLAIN, {"all_linear": True}, ["all-linear"], UnsupportedError, id="all-linear on text"),
        pytest.param(MOE, {}, ["q_proj"], UnsupportedError, id="experts"),
        pytest.param(SEES._replace(config={"audio_config": {"a": 1}}), {}, ["q_proj"], UnsupportedError, id="hears"),
    ],
)  # fmt: skip
def test_refused(tree: ModuleTree, settings: dict[str, Any], given: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        apply_rule("unsloth", settings, tree, {"target_modules": given})
