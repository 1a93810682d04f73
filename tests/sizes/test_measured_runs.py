"""The plan against peaks that were measured on A100s, one, two and four, and on a T4 (fixtures/memory)."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median

import pytest

from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate
from estimator.jobs.memory import memory_of
from estimator.report.answer import Answer
from estimator.request.request import Request
from estimator.sizes.training import Software, Training

FOLDER = Path(__file__).parents[2] / "fixtures" / "memory"
RUNS, T4_RUNS = (
    [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]
    for name in ("measured.jsonl", "measured_t4.jsonl")
)
BASES = BaseCache()


@cache
def answer_of(request: str) -> Answer:
    return estimate(Request(offline=True, **json.loads(request)), bases=BASES)


def planned(run: dict):
    """Bounds of the options alone, and the middle of the software that ran."""
    answer, training = answer_of(json.dumps(run["request"])), Training(**run["training"])
    told = replace(training, software=Software(**run["software"]))
    return memory_of(answer, training).allocated, memory_of(answer, told).allocated.expected


def error(run: dict) -> float:
    return planned(run)[1] / run["peak_allocated_bytes"] - 1


def name(run: dict) -> str:
    training = run["training"]
    words = (run["request"]["model"].rpartition("/")[2], run["request"]["base_precision"], training.get("loss"))
    return f"{'-'.join(filter(None, words))}-{training.get('batch_size', 8)}x{training.get('gpus', 1)}"


def name_of_t4(run: dict) -> str:
    return f"{name(run)}-{run['training']['sequence_length']}-{run['training']['attention']}"


@pytest.mark.parametrize("run", RUNS, ids=name)
def test_the_options_bounds_hold_and_the_softwares_middle_is_near(run: dict) -> None:
    bounds, _ = planned(run)
    assert bounds.lower <= run["peak_allocated_bytes"] <= bounds.upper
    assert error(run) == pytest.approx(0, abs=0.08)


def test_half_of_the_runs_are_within_one_percent() -> None:
    assert median(abs(error(run)) for run in RUNS) < 0.01


def test_on_one_gpu_nine_in_ten_are_within_two_percent_or_so() -> None:
    alone = [abs(error(run)) for run in RUNS if run["training"].get("gpus", 1) == 1]
    assert sorted(alone)[int(0.9 * len(alone))] < 0.025


@pytest.mark.parametrize("run", T4_RUNS, ids=name_of_t4)
def test_each_counter_of_a_t4_is_within_its_bounds(run: dict) -> None:
    """A loop that names the model's outputs, and eager attention's softmax, which CUDA walks back with a copy."""
    memory = memory_of(answer_of(json.dumps(run["request"])), Training(**run["training"]))
    for counter, measured in (
        (memory.allocated, run["peak_allocated_bytes"]),
        (memory.reserved, run["peak_reserved_bytes"]),
        (memory.device, run["device_bytes"]),
    ):
        assert counter.lower <= measured <= counter.upper
    assert error(run) == pytest.approx(0, abs=0.015)


def test_half_of_a_t4_s_runs_are_within_half_a_percent() -> None:
    assert median(abs(error(run)) for run in T4_RUNS) < 0.005
