"""Ceilings and floors against steps of real models of odd shapes, most with dropout of LoRA (fixtures/memory/ceilings.jsonl)."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import pytest

from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate
from estimator.jobs.planning.memory import Loaded, loaded_of
from estimator.request.request import Request
from estimator.sizes.memory.activations.matrix import Setting
from estimator.sizes.memory.activations.step import training_step
from estimator.sizes.memory.peak import WORKSPACE_BYTES, training_memory
from estimator.sizes.memory.training import Training
from tests.sizes.on_cpu import CPU

FILE = Path(__file__).parents[2] / "fixtures" / "memory" / "ceilings.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text().splitlines()]
RUNS = [(row, run) for row in ROWS for run in row["runs"]]
BASES = BaseCache()


def name(value: dict) -> str:
    if "config" in value:
        return value["config"]["architectures"][0]
    checkpointed = "checkpointed" if value["gradient_checkpointing"] else "whole"
    saved = "-".join(value.get("modules_to_save", ()))
    return f"{len(value['targets'])}-{value['attention']}-{checkpointed}{saved and '-'}{saved}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with config.json for each architecture."""
    paths = {name(row): tmp_path_factory.mktemp("model") for row in ROWS}
    for row in ROWS:
        (paths[name(row)] / "config.json").write_text(json.dumps(row["config"]))
    return paths


def planned(model: Path, run: dict) -> tuple[Loaded, Training, int]:
    lora = {"r": run.get("r", 4), "lora_dropout": run.get("lora_dropout", 0.05), "target_modules": run["targets"]}
    lora["modules_to_save"] = run.get("modules_to_save")
    answer = estimate(Request(model=str(model), offline=True, dtype="bf16", lora=lora), bases=BASES)
    training = Training(
        batch_size=2,
        sequence_length=192,
        packing=True,
        gradient_checkpointing=run["gradient_checkpointing"],
        attention=run["attention"],
        mixed_precision=run.get("mixed_precision", "no"),
    )
    return loaded_of(answer, BASES), training, answer.adaptation.trainable_parameters


@pytest.mark.parametrize(("row", "run"), RUNS, ids=name)
def test_the_real_step_is_within_the_bounds(row: dict, run: dict, models: dict[str, Path]) -> None:
    loaded, training, parameters = planned(models[name(row)], run)
    assert parameters == run["parameters"]
    states = 2 * sum(prod(part.shape) * part.width for part in loaded.trained)
    resident = loaded.base.weight_bytes + loaded.adapter.added_bytes + states
    memory = training_memory(*loaded, training)
    assert memory.allocated.lower <= resident + run["peak_bytes"] <= memory.allocated.upper - WORKSPACE_BYTES
    if row["is_near"]:
        setting = Setting(shape=loaded.shape, training=training, adapter=loaded.adapter, base_width=2, software=CPU)
        step = training_step(setting, states // 2)
        assert max(step.forward, step.loss, step.backward) == pytest.approx(run["peak_bytes"], rel=0.03)
