"""One training step against what autograd keeps for real models with PEFT on them (fixtures/memory)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.sizes.memory.activations.matrix import Setting
from estimator.sizes.memory.activations.step import training_step
from estimator.sizes.memory.shape import shape_of
from estimator.sizes.memory.training import Adapter, Training
from tests.sizes.on_cpu import CPU

ROWS = Path(__file__).parents[2] / "fixtures" / "memory" / "saved_tensors.jsonl"
LINES = [json.loads(line) for line in ROWS.read_text().splitlines()]
TREES = {line["family"]: line for line in LINES if "modules" in line}
RUNS = [line for line in LINES if "saved_bytes" in line]


def tree_of(row: dict) -> ModuleTree:
    modules = tuple(
        Module(name, cls, kind, tuple(Parameter(p, tuple(shape), "BF16") for p, shape in parameters))
        for name, cls, kind, parameters in row["modules"]
    )
    return ModuleTree(
        architecture=None,
        config=row["config"],
        modules=modules,
        tied={},
        output_embedding=row["output_embedding"],
    )


@pytest.mark.parametrize(
    "row",
    RUNS,
    ids=lambda row: f"{row['family']}-{row['targets']}-{'checkpointed' if row['checkpointing'] else 'whole'}",
)
def test_kept_bytes_are_within_two_percent(row: dict) -> None:
    training = Training(
        batch_size=row["batch_size"],
        sequence_length=row["sequence_length"],
        gradient_checkpointing=row["checkpointing"],
        attention=row["attention"],
    )
    adapter = Adapter(ranks=dict.fromkeys(row["adapted"], row["r"]), parameters=0, parameter_bytes=0)
    shape = shape_of(tree_of(TREES[row["family"]]))
    setting = Setting(shape=shape, training=training, adapter=adapter, base_width=2, software=CPU)
    kept = training_step(setting, gradient_bytes=0).kept
    assert kept == pytest.approx(row["saved_bytes"], rel=0.02)


def test_twelve_families_are_held() -> None:
    assert len(TREES) >= 12


@pytest.mark.parametrize(("attention", "masks"), [("sdpa", 1), ("flash_attention_2", 0)])
def test_sdpa_keeps_the_mask_of_padded_examples_in_each_layer(attention: str, masks: int) -> None:
    """transformers 5.23.0 on a Llama of 4 layers, 2 examples of 200 tokens: autograd saves (2, 1, 200, 200) for each."""
    tree = tree_of(TREES["gpt_neox"])
    training = Training(batch_size=2, sequence_length=200, attention=attention)
    names = {m.name: 8 for m in tree.modules if m.name.endswith("query_key_value")}
    adapter = Adapter(ranks=names, parameters=0, parameter_bytes=0)
    setting = Setting(shape=shape_of(tree), training=training, adapter=adapter, base_width=2)
    whole, padded = (training_step(replace(setting, padded=p), gradient_bytes=0).kept for p in (False, True))
    assert names
    assert padded - whole == masks * len(names) * 2 * 200 * 200 * 2
