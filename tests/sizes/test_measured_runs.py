"""The plan against peaks that were measured on A100s: LoRA and QLoRA, one, two and four GPUs (fixtures/memory)."""

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

FILE = Path(__file__).parents[2] / "fixtures" / "memory" / "measured.jsonl"
RUNS = [json.loads(line) for line in FILE.read_text().splitlines()]
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
