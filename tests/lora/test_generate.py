"""The tables are what the installed PEFT and transformers say; always: what must hold of them."""

from __future__ import annotations

import json

import pytest

from estimator.lora.facts import (
    FILE,
    containers,
    conv_classes,
    default_targets,
    generates,
    mamba_types,
    moe_fused,
    moe_pattern,
    moe_targets,
)

TABLES = json.loads(FILE.read_text())


def test_the_stamp_names_what_wrote_it():
    assert TABLES["_generated_by"] == "python -m estimator.lora.generate"
    assert set(TABLES["_versions"]) == {"peft", "transformers", "torch"}


@pytest.mark.parametrize("peft_type", ["LORA", "ADALORA"])
def test_default_targets_are_names_or_an_expression(peft_type):
    for targets in default_targets(peft_type).values():
        assert isinstance(targets, str) or all(isinstance(name, str) and name for name in targets)


def test_every_moe_family_converts_to_what_it_fuses():
    for pattern in set(TABLES["moe_patterns"].values()):
        assert set(moe_targets(pattern).values()) >= set(moe_fused(pattern))
        for parameter, names in moe_fused(pattern).items():
            assert {moe_targets(pattern)[name] for name in names} == {parameter}


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        pytest.param("LlamaForCausalLM", True, id="by its name"),
        pytest.param("MarianMTModel", True, id="although its name does not say so"),
        pytest.param("LlamaForSequenceClassification", False, id="a classifier"),
        pytest.param("PI0ForConditionalGeneration", False, id="although its name says so"),
    ],
)
def test_which_classes_generate(cls, said):
    assert generates(cls) is said


def test_what_is_known_of_single_names():
    assert moe_pattern("qwen3_moe")
    assert moe_pattern("llama") is None
    assert "out_proj" in mamba_types()["modules"]
    assert {"ModuleList", "ParametrizationList"} <= containers()
    assert all(isinstance(fault, str) and fault for fault in conv_classes().values())


@pytest.mark.judges
def test_the_file_is_what_the_installed_libraries_say():
    for name in ("torch", "transformers", "peft"):
        pytest.importorskip(name)
    from estimator.lora.generate import text

    assert FILE.read_text() == text()
