"""Parts that an Auto class chooses by the model type in a section: the facts of that type's class take their place."""

from __future__ import annotations

import pytest

from estimator.architecture.facts import class_facts
from estimator.architecture.towers import opened, with_towers

PALIGEMMA = class_facts("PaliGemmaForConditionalGeneration")


def class_at(root, path):
    for name in path.split("."):
        (root,) = {option for child in root.children if child.name == name for _, option in child.options}
    return root.cls


@pytest.mark.parametrize(
    ("section", "path", "cls"),
    [
        pytest.param({}, "model.language_model", "GemmaModel", id="nothing said: the default"),
        pytest.param(
            {"text_config": {"model_type": "gemma"}}, "model.language_model", "GemmaModel", id="the default by name"
        ),
        pytest.param({"text_config": {"model_type": "gemma2"}}, "model.language_model", "Gemma2Model", id="another"),
        pytest.param(
            {"vision_config": {"model_type": "clip_vision_model"}}, "model.vision_tower", "CLIPVisionModel", id="vision"
        ),
    ],
)
def test_the_part_that_config_names(section, path, cls):
    facts, unknown = with_towers(PALIGEMMA, section)
    assert class_at(facts.root, path) == cls
    assert not unknown


def test_fields_of_the_part_are_looked_up_in_its_section():
    facts, _ = with_towers(PALIGEMMA, {"text_config": {"model_type": "gemma2"}})
    assert facts.defaults["text_config.num_hidden_layers"] == class_facts("Gemma2Model").defaults["num_hidden_layers"]
    layers = next(c for c in facts.root.children if c.name == "model").options[0][1].children
    language_model = next(c for c in layers if c.name == "language_model").options[0][1]
    (layer_list,) = [c.options[0][1] for c in language_model.children if c.name == "layers"]
    assert layer_list.children[0].when == "n:text_config.num_hidden_layers"


def test_what_the_part_works_out_is_no_constant_of_it():
    """T5Config(num_layers=24).num_decoder_layers is 24; without any it is 6."""
    facts, _ = with_towers(
        class_facts("Blip2ForConditionalGeneration"), {"text_config": {"model_type": "t5", "num_layers": 24}}
    )
    assert facts.defaults["text_config.num_decoder_layers"] == 24


def test_a_model_type_without_facts_is_said_and_left_open():
    facts, unknown = with_towers(PALIGEMMA, {"text_config": {"model_type": "no-such-type"}})
    assert unknown == ("model.language_model",)
    assert class_at(facts.root, "model.language_model") == "GemmaModel"
    part = opened(facts, "model.language_model").root
    for name in ("model", "language_model"):
        part = next(child for child in part.children if child.name == name).options[0][1]
    assert part.is_open
