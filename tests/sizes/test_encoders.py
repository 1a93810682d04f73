"""Encoders, encoders with decoders, and a mixture whose shared expert has a gate, against steps of real models,
counted storage by storage (fixtures/memory)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from estimator.architecture.from_config import from_config
from estimator.sizes.activations.matrix import Setting
from estimator.sizes.activations.step import training_step
from estimator.sizes.shape import shape_of
from estimator.sizes.training import Adapter, Training
from tests.sizes.on_cpu import CPU

RUNS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "fixtures" / "memory" / "encoders.jsonl").read_text().splitlines()
]
HEADS = ("lm_head", "classifier")  # not adapted, as PEFT leaves them out of all-linear


def name(row: dict) -> str:
    return f"{row['config']['architectures'][0]}-{row['attention']}-{'checkpointed' * row['gradient_checkpointing']}"


@pytest.mark.parametrize("row", RUNS, ids=name)
def test_peak_is_within_two_percent(row: dict) -> None:
    tree = from_config(row["config"])
    linear = [m for m in tree.modules if m.kind == "Linear" and m.name not in HEADS]
    parameters = sum(row["r"] * sum(m.parameters[0].shape) for m in linear)
    adapter = Adapter(
        ranks={m.name: row["r"] for m in linear}, parameters=parameters, parameter_bytes=4 * parameters
    )  # fmt: skip
    training = Training(
        batch_size=row["batch_size"],
        sequence_length=row["sequence_length"],
        gradient_checkpointing=row["gradient_checkpointing"],
        attention=row["attention"],
    )
    setting = Setting(shape=shape_of(tree), training=training, adapter=adapter, base_width=2, software=CPU)
    step = training_step(setting, 4 * parameters)
    assert max(step.forward, step.loss, step.backward) == pytest.approx(row["peak_bytes"], rel=0.02)
