"""Towers of images and sound against steps of real models, counted storage by storage (fixtures/memory/towers.jsonl)."""

import json
from pathlib import Path

import pytest

from estimator.architecture.from_config import from_config
from estimator.sizes.memory.activations.matrix import Setting
from estimator.sizes.memory.activations.step import training_step
from estimator.sizes.memory.shape import shape_of
from estimator.sizes.memory.training import Adapter, Training
from tests.sizes.on_cpu import CPU

LINES = (Path(__file__).parents[2] / "fixtures" / "memory" / "towers.jsonl").read_text().splitlines()
RUNS = [(row, *run) for row in map(json.loads, LINES) for run in row["runs"]]
HEADS = ("classifier", "lm_head", "proj_out")


def name(value: object) -> str:
    return value["config"]["architectures"][0] if isinstance(value, dict) else str(value)


@pytest.mark.parametrize(("row", "attention", "checkpointing", "peak_bytes"), RUNS, ids=name)
def test_peak_is_within_two_percent(row: dict, attention: str, checkpointing: bool, peak_bytes: int) -> None:
    tree = from_config(row["config"])
    linear = [m for m in tree.modules if m.kind == "Linear" and m.name.rpartition(".")[2] not in HEADS]
    parameters = sum(row["r"] * sum(m.parameters[0].shape) for m in linear)
    setting = Setting(
        shape=shape_of(tree),
        training=Training(
            batch_size=row["batch_size"],
            sequence_length=row["sequence_length"],
            gradient_checkpointing=checkpointing,
            attention=attention,
        ),
        adapter=Adapter(
            ranks={m.name: row["r"] for m in linear}, parameters=parameters, parameter_bytes=4 * parameters
        ),
        base_width=2,
        software=CPU,
    )
    step = training_step(setting, 4 * parameters)
    assert max(step.forward, step.loss, step.backward) == pytest.approx(peak_bytes, rel=0.02)


@pytest.mark.parametrize(
    ("architecture", "pieces"),
    [
        pytest.param("ViTModel", 197, id="a table of the model's own"),
        pytest.param("SiglipVisionModel", 196, id="no token for the class"),
        pytest.param("Dinov2WithRegistersModel", 201, id="registers are added to the table"),
        pytest.param("SwinModel", None, id="no table"),
        pytest.param("PvtModel", None, id="a table for each stage"),
    ],
)
def test_pieces_are_the_rows_of_the_table(architecture: str, pieces: int | None) -> None:
    assert shape_of(from_config({"architectures": [architecture]})).pieces == pieces


@pytest.mark.parametrize(
    ("config", "uncounted"),
    [
        pytest.param({"architectures": ["CLIPModel"]}, False, id="an image beside each text"),
        pytest.param({"architectures": ["LlavaForConditionalGeneration"]}, True, id="any number of images"),
        pytest.param({"architectures": ["WhisperForConditionalGeneration"]}, False, id="a decoder reads one sound"),
        pytest.param({"architectures": ["Wav2Vec2ForCTC"]}, True, id="sounds of any length"),
    ],
)
def test_layers_whose_inputs_are_not_counted(config: dict, uncounted: bool) -> None:
    assert bool(shape_of(from_config(config)).uncounted) == uncounted
