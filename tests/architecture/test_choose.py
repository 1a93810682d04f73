"""Which class is built, and from which part of config.json: the same with headers and without."""

from __future__ import annotations

import pytest

from estimator.architecture.build import build
from estimator.architecture.choose import candidates, own_config, section_of
from estimator.architecture.class_lookup import lookup_for
from estimator.architecture.facts import class_facts
from estimator.architecture.from_config import from_config
from estimator.checkpoint.checkpoint import Checkpoint, Tensor

TEXT = {
    "model_type": "qwen3_5_text", "num_hidden_layers": 8, "hidden_size": 64, "intermediate_size": 96, "vocab_size": 101,
    "full_attention_interval": 2, "tie_word_embeddings": False,
}  # fmt: skip
WHOLE = {
    "model_type": "qwen3_5",
    "text_config": TEXT,
    "vision_config": {"model_type": "qwen3_5", "depth": 2},
    "torch_dtype": "bfloat16",
}


@pytest.mark.parametrize(
    ("named", "task", "name"),
    [
        pytest.param("Qwen3_5ForConditionalGeneration", "CAUSAL_LM", "Qwen3_5ForConditionalGeneration", id="its own"),
        pytest.param("Qwen3_5Model", "CAUSAL_LM", "Qwen3_5ForCausalLM", id="what does not generate gets a head"),
        pytest.param(None, "CAUSAL_LM", "Qwen3_5ForCausalLM", id="the Auto class's where none is named"),
        pytest.param("Qwen3_5ForCausalLM", None, "Qwen3_5ForCausalLM", id="the one that is named"),
        pytest.param("Qwen3_5ForConditionalGeneration", "FEATURE_EXTRACTION", "Qwen3_5Model", id="another task"),
    ],
)
def test_a_config_and_a_task_choose_the_class(named, task, name):
    config = {**WHOLE, "architectures": [named] if named else None}
    assert candidates(config, task)[0] == name


@pytest.mark.parametrize(
    ("config", "name", "section"),
    [
        pytest.param(WHOLE, "Qwen3_5ForCausalLM", "text_config", id="a text model of an image-and-text config"),
        pytest.param(WHOLE, "Qwen3_5ForConditionalGeneration", "", id="the whole model"),
        pytest.param(TEXT, "Qwen3_5ForCausalLM", "", id="a text config alone"),
        pytest.param({"hidden_size": 8}, "LlamaForCausalLM", "", id="no model type"),
        pytest.param({"model_type": "qwen3_5"}, "Qwen3_5ForCausalLM", None, id="no such section"),
        pytest.param({"model_type": ["odd"]}, "LlamaForCausalLM", None, id="no name at all"),
    ],
)
def test_a_class_is_built_from_the_section_that_is_its_own(config, name, section):
    assert section_of(config, name) == section


def test_what_stands_beside_a_section_holds_of_it():
    name = "Qwen3_5ForCausalLM"
    assert own_config(WHOLE, "text_config", name) == {**TEXT, "torch_dtype": "bfloat16"}
    typed = {**WHOLE, "text_config": {**TEXT, "torch_dtype": "float16"}}
    assert own_config(typed, "text_config", name)["torch_dtype"] == "float16"


@pytest.mark.parametrize(
    ("config", "name", "kind"),
    [
        pytest.param({}, "LlamaForCausalLM", "llama", id="the class's own"),
        pytest.param({"model_type": None}, "GPT2LMHeadModel", "gpt2", id="the one that the class is named for"),
        pytest.param({}, "NoSuchModel", None, id="a class that is not known"),
        pytest.param({"model_type": "qwen2"}, "LlamaForCausalLM", "qwen2", id="what config.json says"),
    ],
)
def test_the_model_type_of_a_config_that_has_none(config, name, kind):
    assert own_config(config, "", name).get("model_type") == kind


@pytest.mark.parametrize("architectures", [None, ["Qwen3_5ForCausalLM"]])
def test_headers_and_config_give_one_tree(architectures):
    whole = {**WHOLE, "architectures": architectures}
    expected = from_config(whole, task="CAUSAL_LM")
    stored = {
        f"{module.name}.{p.name}": Tensor(f"{module.name}.{p.name}", p.dtype, p.shape, "model.safetensors")
        for module in expected.modules
        for p in module.parameters
    }
    tree = build(whole, Checkpoint(tensors=stored, files=(), bytes=0), task="CAUSAL_LM")
    assert tree.modules == expected.modules
    assert tree.config == expected.config


@pytest.mark.parametrize(
    ("name", "whole", "text", "tied"),
    [
        pytest.param("Qwen2VLForConditionalGeneration", {}, True, True, id="files of transformers 4"),
        pytest.param("Qwen2VLForConditionalGeneration", {"tie_word_embeddings": False}, True, True, id="both"),
        pytest.param("Qwen2VLForConditionalGeneration", {}, False, False, id="untied"),
        pytest.param("Gemma3ForConditionalGeneration", {}, False, True, id="a class that asks the whole alone"),
    ],
)
def test_the_section_may_tie_the_words(name, whole, text, tied):
    config = {**whole, "text_config": {"tie_word_embeddings": text}}
    assert lookup_for(config, class_facts(name))("tie_word_embeddings") is tied
