"""The command `plan`: its forms, its refusals, what it says of limits and cost."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from click.testing import CliRunner

from estimator.cli.group import cli
from estimator.cli.plan import command
from estimator.cli.sweep import command as sweep_command
from estimator.errors import UsageError

TOWER = ("--targets", r"re:.*visual.*\.qkv")
MODEL = ("--model", "llama-3.1-8b", "--r", "16", "--targets", "qkvo")


def run(*options: str):
    return CliRunner().invoke(command, [*MODEL, *options], standalone_mode=False)


def test_quiet_is_that_of_an_estimate() -> None:
    assert run("-q").stdout == "13631488\t54560368\n"


def test_csv_is_flat_and_in_bytes() -> None:
    rows = list(csv.DictReader(io.StringIO(run("--format", "csv", "--gpu", "h100").stdout)))
    by_name = {(row["section"], row["name"]): row for row in rows}
    assert by_name["memory_bytes", "gradients"]["lower"] == str(4 * 13_631_488)
    assert by_name["peak_bytes", "device"]["expected"].isdigit()
    assert {"largest", "disk_bytes", "gpu_memory_bytes"} <= {row["section"] for row in rows}


def test_markdown_has_two_tables() -> None:
    text = run("--format", "markdown").stdout
    estimate, _, table = text.partition("| section")
    assert re.search(r"^\| trainable parameters +\| 13,631,488 +\|$", estimate, re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in ("| section" + table).splitlines()]
    assert rows[0] == ["section", "name", "lower", "expected", "upper", "remark"]
    gradients = f"{4 * 13_631_488:,}"
    assert ["memory_bytes", "gradients", gradients, "", gradients, "exact"] in rows


@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        pytest.param(["--gpu-memory", "24"], "24GB", id="24 of what"),
        pytest.param(["--gpu", "rtx4091"], "rtx4090", id="no such GPU"),
        pytest.param(["--adapters", "4"], "--infer", id="serving without --infer"),
        pytest.param(["--infer", "--loss", "fused"], "--infer", id="training with --infer"),
        pytest.param(["--infer", "--max-lora-rank", "24"], "32", id="a rank that vLLM does not take"),
        pytest.param(["--price", "2"], "--tokens", id="a price without hours"),
        pytest.param(["--infer", "--attention", "eager"], "--infer", id="attention of training with --infer"),
        pytest.param(["--gpu", "nonsense", "--gpu-memory", "80GB"], "leave --gpu or", id="two GPUs"),
        pytest.param(["--gpu-memory", ""], "24GB", id="an empty size"),
        pytest.param(["--max-file-size", ""], "24GB", id="an empty limit"),
        pytest.param(["--optimizer", "adamw"], "adamw", id="no such optimizer"),
    ],
)
def test_refusals_show_the_way_out(options, way_out: str) -> None:
    result = run(*options)
    assert isinstance(result.exception, UsageError)
    assert way_out in result.exception.way_out
    assert result.stdout == ""


def test_limits_name_ranks_and_targets() -> None:
    plan = json.loads(run("--max-file-size", "100MB", "--json").stdout)["plan"]
    assert plan["largest_r_within_limits"] == 29  # 29 x 4 x 851,968 and a header of 32 kB
    assert plan["within_limits"][0] == {
        "targets": None,
        "r": 29,
        "parameters": 24_707_072,
        "file_bytes": plan["within_limits"][0]["file_bytes"],
    }
    assert all(row["file_bytes"] <= 100_000_000 for row in plan["within_limits"])


@pytest.mark.parametrize(("mode", "peaks"), [([], 3), (["--infer"], 4)], ids=["training", "vLLM's and PEFT's"])
def test_a_peak_says_which_number_is_the_middle(mode: list[str], peaks: int) -> None:
    said = re.findall(r"^  peak \w+ +[\d.]+ .B  likely, within [\d.]+ .B", run(*mode).stdout, re.MULTILINE)
    assert len(said) == peaks


def test_bounds_of_time_and_money_are_ordered() -> None:
    cost = json.loads(run("--tokens", "1000000", "--gpu", "h100", "--price", "2", "--json").stdout)["plan"]["cost"]
    assert set(cost["bounds"]) == {"flops", "hours", "price"}
    assert all(0 < bounds["lower"] <= bounds["upper"] for bounds in cost["bounds"].values())
    # forward and backward through 7.5 billion weights (without the embedding) are 4 each, the adapters 6
    matrices = 8_030_261_248 - 128_256 * 4096 - 65 * 4096
    scores = 4 * 32 * 4096 * 1024 // 2 * 3
    assert cost["bounds"]["flops"]["lower"] == 1_000_000 * (4 * matrices + 6 * 13_631_488 + scores)


def test_a_price_of_minus_nothing_is_nothing() -> None:
    assert re.search("price +0 to 0\n", run("--tokens", "100", "--gpu", "h100", "--price", "-0").stdout)


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        pytest.param("gpt2", ["--gpu-memory", "30GB"], "yes", id="surely"),
        pytest.param("gpt2", ["--gpu-memory", "14GB"], "maybe (the likely peak, N GB, does)", id="the middle does"),
        pytest.param("gpt2", ["--gpu-memory", "8GB"], "maybe (the likely peak, N GB, does not)", id="it does not"),
        pytest.param("gpt2", ["--gpu-memory", "100MB"], "no", id="surely not"),
        pytest.param("qwen2-vl-2b", [*TOWER, "--gpu-memory", "400GB"], "maybe", id="images have no ceiling"),
        pytest.param("qwen2-vl-2b", [*TOWER, "--gpu-memory", "12GB"],
                     "maybe (the likely peak, N GB, does not)", id="too large without them"),
        pytest.param("gpt2", ["--infer", "--gpu-memory", "2GB"],
                     "maybe (the likely peak, N GB, does not in 92% of it)", id="the share that vLLM takes"),
    ],
)  # fmt: skip
def test_an_open_verdict_says_where_the_middle_lies(model: str, options: list[str], said: str) -> None:
    output = CliRunner().invoke(command, ["--model", model, *options], standalone_mode=False).output
    shown = re.search(r"^fits [\d.]+ .B: (.*)$", output, re.MULTILINE)
    assert shown
    assert re.sub(r"[\d.]+ GB", "N GB", shown[1]) == said


def test_a_change_says_where_the_middle_would_lie() -> None:
    shown = run("--gpu-memory", "40GB").output
    assert re.search(r"--gradient-checkpointing .*GB  likely fits\n", shown)
    assert re.search(r"--r 8 .*MB  likely not\n", shown)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        pytest.param("40GB", "surely fits with --", id="changes that make it fit"),
        pytest.param("2GB", "all of them together do not surely fit", id="the base alone is larger"),
    ],
)
def test_what_would_make_it_fit_ends_with_a_verdict(size: str, said: str) -> None:
    assert said in run("--gpu-memory", size).output


def test_serving_in_json_keeps_the_contracts_fields() -> None:
    plan = json.loads(run("--infer", "--adapters", "4", "--gpu", "l40s", "--json").stdout)["plan"]
    assert {"components", "peak", "fits", "largest", "disk", "gpu_memory", "serving"} <= set(plan)
    assert plan["serving"]["adapters"] == 4
    assert plan["serving"]["refused"] == []
    assert plan["serving"]["kv_cache"]["tokens"]["lower"] > 0


def test_the_table_of_serving_says_what_is_refused() -> None:
    text = run("--infer", "--dora").stdout
    assert "vLLM does not serve it: DoRA is not supported." in text


def test_a_precision_of_training_is_said_where_it_is_served(tmp_path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text("base_model: meta-llama/Llama-3.1-8B\nadapter: qlora\nload_in_4bit: true\nlora_r: 16\n"
                    "lora_target_linear: true\n")  # fmt: skip
    said = {}
    for options in ((), ("--base-precision", "nf4"), ("--base-precision", "stored")):
        asked = ["--config", str(path), "--infer", "--json", *options]
        notes = json.loads(CliRunner().invoke(command, asked, standalone_mode=False).stdout)["notes"]
        said[options[1:]] = [note["message"] for note in notes if note["code"] == "base_precision_from_config"]
    assert "nf4" in said[()][0]
    assert said["nf4",] == said["stored",] == []


@pytest.mark.parametrize("shown", [cli, command, sweep_command], ids=["estimate", "plan", "sweep"])
def test_help_shows_every_option_once_and_under_a_heading(shown) -> None:
    text = CliRunner().invoke(shown, ["--help"]).stdout
    head, _, rest = text[re.search(r"^[A-Z].*:$", text, re.MULTILINE).end() :].rpartition("\nOptions:\n")
    assert rest.split()[0] in ("-h,", "--help", "--version")
    assert max(map(len, text.splitlines())) <= 80
    for name in (
        name for param in shown.params for name in param.opts if name.startswith("--") and name != "--version"
    ):
        assert len(re.findall(rf"^  (?:-\w, )?{name}\b(?!-)", head, re.MULTILINE)) == 1, name


def test_serving_needs_no_more_than_a_narrow_terminal() -> None:
    lines = run("--infer", "--gpu", "l40s").stdout.splitlines()
    assert max(len(line) for line in lines if "GB" in line) <= 100
