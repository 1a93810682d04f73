"""Encoders, encoders with decoders, and a mixture whose shared expert has a gate, against steps of real models,
counted storage by storage (fixtures/memory)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from estimator.architecture.from_config import from_config
from estimator.sizes.memory.activations.matrix import Setting
from estimator.sizes.memory.activations.step import training_step
from estimator.sizes.memory.shape import shape_of
from estimator.sizes.memory.training import Adapter, Training
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


BIASED = {
    "d_model": 320,
    "d_kv": 40,
    "d_ff": 896,
    "num_layers": 3,
    "num_heads": 8,
    "vocab_size": 4000,
    "dropout_rate": 0,
}


@pytest.mark.parametrize(
    ("family", "padded", "checkpointed", "peak"),
    [
        pytest.param("T5", False, False, 257_666_048, id="a mask of one example in each layer"),
        pytest.param("T5", True, False, 291_220_480, id="and of all where they are padded, but not what is made"),
        pytest.param("T5", True, True, 74_904_576, id="T5 checkpointed and padded"),
        pytest.param("T5", False, True, 67_826_688, id="zeros that want a gradient"),
        pytest.param("UMT5", False, False, 354_282_496, id="a bias of each layer's own"),
        pytest.param("UMT5", True, True, 86_296_576, id="UMT5 checkpointed and padded"),
    ],
)
def test_sdpa_keeps_a_bias_of_positions_as_its_mask(family: str, padded: bool, checkpointed: bool, peak: int) -> None:
    """Six examples of 256 tokens, real steps whose sdpa keeps what CUDA's efficient attention does."""
    config = {"architectures": [f"{family}ForConditionalGeneration"], "model_type": family.lower(), **BIASED}
    tree = from_config({**config, "is_encoder_decoder": True})
    ranks = {m.name: 4 for m in tree.modules if m.kind == "Linear" and m.name not in HEADS}
    parameters = sum(4 * sum(m.parameters[0].shape) for m in tree.modules if m.name in ranks)
    setting = Setting(
        shape=shape_of(tree),
        training=Training(batch_size=6, sequence_length=256, gradient_checkpointing=checkpointed),
        adapter=Adapter(ranks=ranks, parameters=parameters, parameter_bytes=4 * parameters),
        base_width=2,
        padded=padded,
        software=CPU,
    )
    step = training_step(setting, 4 * parameters)
    assert max(step.forward, step.loss, step.backward) == pytest.approx(peak, rel=0.015)
