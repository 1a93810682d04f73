"""Sweeps: what is crossed, what fails, and the frontier of what fits."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from estimator.cli.sweep import command
from estimator.errors import LoraSizeError
from estimator.jobs.estimate import estimate
from estimator.jobs.planning.plan import plan
from estimator.jobs.sweep import Case, frontier
from estimator.request.request import Request
from estimator.sizes.memory.training import Training
from tests.hub.models import safetensors


def run(*options: str):
    return CliRunner().invoke(command, ["--model", "llama-3.1-8b", *options], standalone_mode=False)


def test_a_failed_case_says_its_code_and_the_rest_is_answered() -> None:
    result = run("--r", "8", "--targets", "nope", "--targets", "qv", "--json")
    failed, answered = json.loads(result.stdout)["sweep"]
    assert failed["error"]["code"] == "no_target_modules"
    assert (answered["error"], answered["parameters"]) == (None, 3_407_872)
    assert result.return_value == 1


def test_where_every_case_fails_each_error_is_said_once_and_the_first_decides() -> None:
    result = run("--r", "8,16", "--targets", "nope", "--targets", "norm")
    assert isinstance(result.exception, LoraSizeError)
    assert result.exception.code == "no_target_modules"  # raised, so that the command prints it with its way out
    assert result.stdout == ""
    (other,) = result.stderr.splitlines()
    assert other.startswith("Error: ")
    assert "norm" in other


def test_where_every_case_fails_json_has_the_errors() -> None:
    result = run("--r", "8", "--targets", "nope", "--targets", "norm", "--json")
    cases = json.loads(result.stdout)["sweep"]
    assert [case["error"]["code"] for case in cases] == ["no_target_modules", "unsupported_module"]
    assert result.exception.code == "no_target_modules"


@pytest.fixture
def unknown_class(tmp_path) -> str:
    """A folder whose class nobody knows: kinds are inferred from names and shapes."""
    (tmp_path / "model.safetensors").write_bytes(safetensors({"encoder.proj.weight": ("F32", (4, 8))}))
    (tmp_path / "config.json").write_text(
        '{"architectures": ["NobodyKnows"], "model_type": "nobody_knows", "hidden_size": 8}'
    )
    return str(tmp_path)


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_what_is_inferred_says_so_and_its_notes_come_once(unknown_class: str, form: str) -> None:
    options = ["--model", unknown_class, "--r", "2,4", "--targets", "proj", "--format", form]
    text = CliRunner().invoke(command, options, standalone_mode=False).stdout
    noted = [note.message for note in estimate(Request(model=unknown_class, r=2, targets="proj")).notes]
    assert noted
    if form == "json":
        cases = json.loads(text)["sweep"]
        assert [case["basis"] for case in cases] == ["inferred"] * 2
        assert [[note["message"] for note in case["notes"]] for case in cases] == [noted] * 2
    elif form == "csv":
        assert [row["basis"] for row in csv.DictReader(io.StringIO(text))] == ["inferred"] * 2
    else:
        assert text.count(" inferred ") + text.count(" inferred\n") >= 2
        assert [text.count(message) for message in noted] == [1] * len(noted)


def test_a_width_that_nothing_says_leaves_the_memory_open(unknown_class: str) -> None:
    path = Path(unknown_class, "config.json")
    path.write_text(path.read_text().replace("hidden_size", "no_such_size"))
    options = ["--model", unknown_class, "--r", "2", "--targets", "proj", "--json"]
    (case,) = json.loads(CliRunner().invoke(command, options, standalone_mode=False).stdout)["sweep"]
    assert (case["parameters"], case["device_bytes"], case["error"]["code"]) == (24, None, "unsupported")


def test_notes_on_the_run_are_kept(tmp_path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text("base_model: meta-llama/Llama-3.1-8B\nadapter: lora\nmicro_batch_size: 2\nlora_r: 16\n"
                    "lora_target_linear: true\n")  # fmt: skip
    text = CliRunner().invoke(command, ["--config", str(path), "--json"], standalone_mode=False).stdout
    assert [note["code"] for note in json.loads(text)["notes"]] == ["training_from_config"]


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


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_every_text_says_which_dtype_is_assumed(form: str) -> None:
    options = ["--model", "openai-community/gpt2", "--r", "8", "--format", form]
    text = CliRunner().invoke(command, options, standalone_mode=False).stdout
    assert text.count("is that of bf16") == 1


def test_what_is_named_twice_is_answered_once() -> None:
    assert run("--r", "8,8", "--targets", "qv", "--targets", "qv", "-q").stdout == "3407872\t13648432\n"


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_a_sweep_crosses_what_it_is_given(form: str) -> None:
    options = ["--model", "llama-3.1-8b", "--r", "4,8", "--targets", "qv", "--targets", "qkvo", "--format", form]
    text = CliRunner().invoke(command, options, catch_exceptions=False).stdout
    rows = [(row["targets"], row["r"], row["parameters"]) for row in sweep_rows(form, text)]
    # by hand: 32 layers, r x (4,096 + 4,096) of q and o, r x (4,096 + 1,024) of k and v
    wanted = [("qv", "4", 1_703_936), ("qv", "8", 3_407_872), ("qkvo", "4", 3_407_872), ("qkvo", "8", 6_815_744)]
    assert rows == [(targets, r, str(parameters)) for targets, r, parameters in wanted]


def sweep_rows(form: str, text: str) -> list[dict[str, str]]:
    """The cases by the names of their columns, numbers without separators."""
    if form == "json":
        return [{name: str(value) for name, value in case.items()} for case in json.loads(text)["sweep"]]
    if form == "csv":
        return list(csv.DictReader(io.StringIO(text)))
    lines = [line for line in text.split("\n\n")[0].splitlines() if "---" not in line]
    split = [re.split(r" *\| *|  +", line.strip("| ")) for line in lines]
    return [dict(zip(split[0], [cell.replace(",", "") for cell in row], strict=False)) for row in split[1:]]
