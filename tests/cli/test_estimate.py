"""The main command's forms, run as a user runs them."""

from __future__ import annotations

import csv
import io
import json

import pytest

from estimator.cli.main import main

HEADLINE = ["--model", "llama-3.1-8b", "--r", "32", "--targets", "qkvo"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert (end.value.code, err) == (0, "")
    return out


def test_the_headline_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(run(capsys, *HEADLINE, "--json"))
    assert document["adapter"]["parameters"] == 27_262_976
    assert document["adapter"]["file"] == {
        "bytes": 109_086_416,
        "tensors": 256,
        "dtypes": {"F32": {"tensors": 256, "elements": 27_262_976, "bytes": 109_051_904}},
    }
    assert document["base"]["parameters"] == 8_030_261_248
    assert document["base"]["bytes"]["fp32"] == 4 * 8_030_261_248
    assert document["model"]["source"] == "snapshot"


def test_the_table_ends_with_pefts_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    last = run(capsys, *HEADLINE).rstrip("\n").splitlines()[-1]
    assert last == "trainable params: 27,262,976 || all params: 8,057,524,224 || trainable%: 0.3384"


def test_quiet_is_two_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *HEADLINE, "-q") == "27262976\t109086416\n"


def test_csv_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = csv.DictReader(io.StringIO(run(capsys, *HEADLINE, "--format", "csv")))
    assert (row["trainable_parameters"], row["adapter_file_bytes"]) == ("27262976", "109086416")


def test_markdown_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert "| trainable parameters" in run(capsys, *HEADLINE, "--format", "markdown")


@pytest.mark.parametrize(
    ("option", "says"),
    [
        pytest.param("--explain", "32 × (4,096 + 1,024) = 163,840, × 32 = 5,242,880", id="the arithmetic of k"),
        pytest.param("--tree", "(0-31): 32 x LlamaDecoderLayer(", id="layers folded as torch folds them"),
    ],
)
def test_more_below_the_table(capsys: pytest.CaptureFixture[str], option: str, says: str) -> None:
    assert says in run(capsys, *HEADLINE, option)


@pytest.mark.parametrize("option", ["explain", "tree"])
def test_what_stands_below_the_table_is_a_field_of_the_json(capsys: pytest.CaptureFixture[str], option: str) -> None:
    table, text = run(capsys, *HEADLINE), run(capsys, *HEADLINE, f"--{option}")
    document = json.loads(run(capsys, *HEADLINE, f"--{option}", "--json"))
    assert text == f"{table}\n{document[option]}\n"


def test_a_tree_with_saved_modules_and_nested_layers(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "--model", "Qwen/Qwen3-30B-A3B", "--targets", "qgud", "--modules-to-save", "lm_head", "--tree")
    assert "lora.ParamWrapper(" in out
    assert "(q_proj): lora.Linear(" in out


@pytest.mark.parametrize("command", [[], ["plan"], ["sweep"]], ids=["estimate", "plan", "sweep"])
def test_files_that_contradict_each_other_end_in_1(
    capsys: pytest.CaptureFixture[str], contradicting: str, command: list[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command, "--model", contradicting, "--json"])
    assert end.value.code == 1
    assert '"mismatch"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "said"),
    [
        pytest.param(["-q"], "is 10 x 8 in the headers, 11 x 8 by config.json", id="quiet"),
        pytest.param(["--format", "csv"], "is 10 x 8 in the headers, 11 x 8 by config.json", id="csv"),
        pytest.param(["plan", "-q"], "is 10 x 8 in the headers, 11 x 8 by config.json", id="a quiet plan"),
        pytest.param(["sweep", "-q"], "contradict each other: lora-size --model", id="a quiet sweep"),
    ],
)
def test_where_the_answer_has_no_room_for_it_the_reason_of_the_1_is_on_stderr(
    capsys: pytest.CaptureFixture[str], contradicting: str, command: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command, "--model", contradicting])
    out, err = capsys.readouterr()
    assert end.value.code == 1
    assert said in err
    assert said not in out


def test_a_quiet_sweep_says_which_case_was_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["sweep", "-q", "-m", "gpt2", "-t", "x", "-t", "qv"])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (1, "\t\n294912\t1182680\n")
    assert err.startswith("x: No module matches x")


@pytest.mark.parametrize("name", ["bf16", "bfloat16", "torch.bfloat16"])
def test_torchs_names_of_dtypes_are_taken(capsys: pytest.CaptureFixture[str], name: str) -> None:
    document = json.loads(run(capsys, "-m", "gpt2", "--adapter-dtype", name, "--base-precision", name, "--json"))
    assert set(document["adapter"]["file"]["dtypes"]) == {"BF16"}
    assert document["base"]["loaded"]["precision"] == "bf16"
    swept = json.loads(run(capsys, "sweep", "-m", "gpt2", "--base-precision", f"nf4,{name}", "--json"))
    assert [case["base_precision"] for case in swept["sweep"]] == ["nf4", "bf16"]


def test_what_a_sweep_crosses_may_be_said_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    lists = run(capsys, "sweep", "-m", "gpt2", "--r", "4,8", "--base-precision", "fp32,nf4", "--format", "csv")
    each = ("--r", "4", "--r", "8", "--base-precision", "fp32", "--base-precision", "nf4")
    assert run(capsys, "sweep", "-m", "gpt2", *each, "--format", "csv") == lists
    assert len(lists.splitlines()) == 5
