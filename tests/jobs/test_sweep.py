"""Sweeps: what is crossed, what fails, and the frontier of what fits."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from estimator.cli.sweep import command
from estimator.errors import LoraSizeError
from estimator.jobs.plan import plan
from estimator.jobs.sweep import Case, frontier
from estimator.request.request import Request
from estimator.sizes.training import Training


def run(*options: str):
    return CliRunner().invoke(command, ["--model", "llama-3.1-8b", *options], standalone_mode=False)


def test_a_failed_case_says_its_code_and_the_rest_is_answered() -> None:
    result = run("--r", "8", "--targets", "nope", "--targets", "qv", "--json")
    failed, answered = json.loads(result.stdout)["sweep"]
    assert failed["error"]["code"] == "no_target_modules"
    assert (answered["error"], answered["parameters"]) == (None, 3_407_872)
    assert result.return_value == 1


def test_where_every_case_fails_nothing_is_printed() -> None:
    result = run("--r", "8,16", "--targets", "nope")
    assert isinstance(result.exception, LoraSizeError)
    assert result.stdout == ""


def test_quiet_is_a_case_a_line() -> None:
    assert run("--r", "8,16", "--targets", "qv", "-q").stdout == "3407872\t13648432\n6815744\t27280152\n"


def test_ranks_and_model_of_a_config_file(tmp_path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"],
                                "base_model_name_or_path": "meta-llama/Llama-3.1-8B"}))  # fmt: skip
    result = CliRunner().invoke(command, ["--config", str(path), "--json"], standalone_mode=False)
    case = json.loads(result.stdout)["sweep"][0]
    assert (case["r"], case["parameters"]) == (4, 32 * 4 * 8192)


@pytest.mark.parametrize("path", ["chart.gif", "chart", "nowhere/chart.svg"])
def test_a_chart_that_cannot_be_written_is_refused_before_the_sweep(path: str) -> None:
    result = run("--r", "8", "--plot", path)
    assert isinstance(result.exception, LoraSizeError)
    assert result.stdout == ""


@pytest.mark.parametrize("columns", ["30", "60", "200"])
def test_bars_keep_within_the_terminal(monkeypatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = run("--r", "8,16", "--targets", "qv").stdout.splitlines()
    bars = [line for line in lines if "█" in line]
    assert bars
    assert all(len(line) <= max(int(columns), 40) for line in bars)


def case(parameters: int, upper: int, fits: str = "yes") -> Case:
    return Case(
        model="m", targets=None, base_precision=None, r=1, parameters=parameters, device_upper_bytes=upper, fits=fits
    )


def test_the_frontier_leaves_out_what_is_beaten() -> None:
    small, beaten, large, over = case(10, 100), case(10, 150), case(30, 200), case(90, 500, "maybe")
    assert frontier([small, beaten, large, over]) == (large, small)


def test_a_dtype_that_nothing_says_is_assumed_as_plan_does() -> None:
    result = CliRunner().invoke(
        command, ["--model", "openai-community/gpt2", "--r", "8", "--json"], standalone_mode=False
    )
    case = json.loads(result.stdout)["sweep"][0]
    assert case["assumed_dtype"] == "bf16"
    assert case["device_bytes"] == plan(Request(model="openai-community/gpt2", r=8), Training()).memory.device.expected
