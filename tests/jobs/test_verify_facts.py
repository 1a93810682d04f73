"""Two sides compared: what differs is named, what one side cannot say is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from estimator.jobs.verifying.facts import AdaptedModule, BuiltModule, Facts, SavedTensor, compare, tie_groups

LINEAR = BuiltModule("Linear", (("weight", (8, 4)),))
FACTS = Facts(
    architecture="LlamaForCausalLM",
    modules={"": BuiltModule("LlamaForCausalLM", ()), "layers.0.q_proj": LINEAR},
    tied={"embed.weight": ("embed.weight", "head.weight")},
    base_parameters=32,
    base_bytes={"BF16": 64},
    footprint=64,
    converted={"layers.0.q_proj": "Linear4bit"},
    adapted={"layers.0.q_proj": (AdaptedModule(4, 8, 2),)},
    trainable=24,
    all_parameters=56,
    tensors={"layers.0.q_proj.lora_A.weight": SavedTensor("F32", (2, 4))},
    file_bytes=200,
)
BROKEN = [
    pytest.param("architecture", "LlamaModel", "class of the model", None, id="another class"),
    pytest.param(
        "modules",
        {**FACTS.modules, "layers.0.q_proj": BuiltModule("Conv1D", (("weight", (4, 8)),))},
        "modules of the base",
        "layers.0.q_proj",
        id="another class and shape of one module",
    ),
    pytest.param(
        "modules", {"": FACTS.modules[""]}, "modules of the base", "layers.0.q_proj", id="a module is missing"
    ),
    pytest.param("modules", {**FACTS.modules, "extra": LINEAR}, "modules of the base", "extra", id="one too many"),
    pytest.param("tied", {}, "tied parameters", "embed.weight", id="a tie that is none"),
    pytest.param("base_parameters", 33, "parameters of the base", None, id="a count"),
    pytest.param("base_bytes", {"F32": 64}, "bytes of the base's parameters by dtype", "BF16", id="another dtype"),
    pytest.param("footprint", 128, "get_memory_footprint() in bytes", None, id="the footprint"),
    pytest.param("converted", {}, "quantised modules", "layers.0.q_proj", id="a layer that was not converted"),
    pytest.param(
        "adapted",
        {"layers.0.q_proj": (AdaptedModule(4, 8, 3),)},
        "adapted modules",
        "layers.0.q_proj",
        id="another rank",
    ),
    pytest.param("trainable", 25, "trainable parameters", None, id="one parameter more"),
    pytest.param("all_parameters", 57, "all parameters", None, id="one more in all"),
    pytest.param(
        "tensors",
        {"layers.0.q_proj.lora_A.weight": SavedTensor("BF16", (2, 4))},
        "tensors of the adapter file",
        "layers.0.q_proj.lora_A.weight",
        id="a tensor of another dtype",
    ),
    pytest.param("file_bytes", 201, "bytes of the adapter file", None, id="one byte"),
    pytest.param("refusal", "ValueError: no", "PEFT's refusal", None, id="PEFT refuses"),
]


def test_equal_sides_have_no_difference():
    comparisons, differences = compare(FACTS, FACTS)
    assert all(comparison.equal for comparison in comparisons)
    assert not differences
    assert len(comparisons) == 12


@pytest.mark.parametrize(("fact", "value", "what", "name"), BROKEN)
def test_a_broken_fact_is_named(fact, value, what, name):
    comparisons, differences = compare(FACTS, replace(FACTS, **{fact: value}))
    assert [comparison.what for comparison in comparisons if not comparison.equal] == [what]
    assert name is None or name in [difference.name for difference in differences]


def test_what_one_side_cannot_say_is_not_compared():
    comparisons, _ = compare(FACTS, Facts(trainable=24))
    assert [comparison.what for comparison in comparisons] == ["trainable parameters"]


def test_ties_are_groups_whatever_their_order():
    assert tie_groups({1: ["b", "a"], 2: ["c"]}) == {"a": ("a", "b")}
