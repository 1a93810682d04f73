"""The peak of a training step against steps of real models, counted storage by storage (fixtures/memory/steps.jsonl)."""

from __future__ import annotations

import json
from functools import cache
from math import prod
from pathlib import Path
from statistics import mean, median

import pytest

from estimator.architecture.from_config import from_config
from estimator.architecture.module import ModuleTree
from estimator.sizes.memory.activations.matrix import Setting
from estimator.sizes.memory.activations.step import Step, training_step
from estimator.sizes.memory.shape import shape_of
from estimator.sizes.memory.training import Adapter, Training
from tests.sizes.on_cpu import CPU

LINES = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "fixtures" / "memory" / "steps.jsonl").read_text().splitlines()
]
CONFIGS = {line["shape"]: line["config"] for line in LINES if "config" in line}
RUNS = [line for line in LINES if "peak_bytes" in line]
QUERY_KEY_VALUE = ("q_proj", "k_proj", "v_proj", "qkv_proj", "c_attn", "query_key_value", "q_b_proj", "kv_b_proj")
TARGETS = {"none": (), "qv": ("q_proj", "v_proj", *QUERY_KEY_VALUE[3:]), "qkvo": (*QUERY_KEY_VALUE, "o_proj", "dense")}


@cache
def tree_of(shape: str) -> ModuleTree:
    return from_config(CONFIGS[shape])


def adapted(row: dict) -> tuple[list[str], dict[str, int], int]:
    """Every linear layer's name but the head's, the ranks, and LoRA's parameters beside those of experts."""
    linear = [
        m
        for m in tree_of(row["shape"]).modules
        if m.kind in ("Linear", "Conv1D") and m.name not in ("lm_head", "embed_out")
    ]
    names = TARGETS.get(row["targets"])
    layers = row.get("layers")
    chosen = [
        m
        for m in linear
        if (names is None or m.name.rpartition(".")[2] in names)
        and (layers is None or int(m.name.split(".")[2]) in layers)
    ]
    parameters = sum(row["r"] * sum(m.parameters[0].shape) for m in chosen)
    if row.get("dora"):
        parameters += sum(m.parameters[0].shape[0] for m in chosen)
    return [m.name for m in linear], {m.name: row["r"] for m in chosen}, parameters


def wrapped(row: dict) -> dict[str, tuple[int, ...]]:
    """Shapes of the experts' weights that LoRA adapts, by the name PEFT gives: the outermost is the last."""
    names = [name.rpartition(".")[2] for name in row.get("parameters", ())]
    found = {}
    for module in tree_of(row["shape"]).modules:
        shapes = [p.shape for p in module.parameters if p.name in names]
        found |= {module.name + i * ".base_layer": shape for i, shape in enumerate(reversed(shapes))}
    return found


def played(row: dict) -> tuple[Step, int]:
    """The step, and the bytes of the adapter's gradients."""
    linear, ranks, parameters = adapted(row)
    experts = wrapped(row)
    ranks |= dict.fromkeys(experts, row["r"])
    parameters += sum(row["r"] * shape[0] * sum(shape[1:]) for shape in experts.values())
    kbit = row["precision"] == "nf4-kbit"
    adapter = Adapter(
        ranks=ranks, parameters=parameters, parameter_bytes=4 * parameters, dropout=row["dropout"],
        dora=row.get("dora", False), wrapped={name: prod(shape[1:]) for name, shape in experts.items()},
    )  # fmt: skip
    setting = Setting(
        shape=shape_of(tree_of(row["shape"])),
        training=Training(
            batch_size=row["batch_size"],
            sequence_length=row["sequence_length"],
            gradient_checkpointing=row["gradient_checkpointing"],
            mixed_precision=row["mixed_precision"],
            attention={"flash": "flash_attention_2"}.get(row["attention"], row["attention"]),
        ),
        adapter=adapter,
        base_width=2,
        software=CPU,
        head_width=4 if kbit else 2,
        kbit=kbit,
        packed=frozenset(linear) if row["precision"] != "bf16" else frozenset(),
    )
    return training_step(setting, 4 * parameters), 4 * parameters


def error(row: dict) -> float:
    """How far the peak, the base included, is off."""
    step, gradients = played(row)
    peak = max(row["state_bytes"] + max(step.forward, step.loss, step.backward), 4 * gradients)
    counted = row["resident_bytes"] + max(row["peak_bytes"].values())
    return (row["resident_bytes"] + peak) / counted - 1


def name(row: dict) -> str:
    words = (row["shape"], f"{row['batch_size']}x{row['sequence_length']}", row["precision"], row["mixed_precision"])
    checkpointed = "checkpointed" if row["gradient_checkpointing"] else "whole"
    words += (checkpointed, row["targets"], row["attention"], "dora" * row.get("dora", False))
    words += (*(name.rpartition(".")[2] for name in row.get("parameters", ())), *map(str, row.get("layers", ())))
    return "-".join(filter(None, words))


@pytest.mark.parametrize("row", RUNS, ids=name)
def test_peak_is_within_two_percent(row: dict) -> None:
    assert error(row) == pytest.approx(0, abs=0.02)


def test_peaks_are_off_by_little_at_the_median_and_on_average() -> None:
    errors = [abs(error(row)) for row in RUNS]
    assert median(errors) < 0.0002
    assert mean(errors) < 0.0006
