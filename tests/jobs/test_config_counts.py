"""What the trainers' configs train, against recorded counts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate
from estimator.report.document import to_document
from estimator.request.request import Request

FIXTURES = Path(__file__).parents[2] / "fixtures" / "trainers"
ROWS = [
    json.loads(line)
    for name in ("expected.jsonl", "written.jsonl")
    for line in (FIXTURES / name).read_text().splitlines()
]
BASES = BaseCache()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_trainable_parameters(row: dict) -> None:
    request = Request(config=str(FIXTURES / row["file"]), model=row["model"], offline=True)
    assert to_document(estimate(request, bases=BASES))["adapter"]["parameters"] == row["trainable"]


def test_litgpts_model_has_a_head_of_its_own_where_the_class_ties_it() -> None:
    request = Request(config=str(FIXTURES / "written/litgpt/2.yaml"), model="Qwen/Qwen2.5-0.5B", offline=True)
    tied = [note.message for note in estimate(request, bases=BASES).notes if note.code == "own_head"]
    assert ["quantised too" in message for message in tied] == [True]
    untied = estimate(request._replace(model="meta-llama/Llama-3.1-8B"), bases=BASES)
    assert "own_head" not in [note.code for note in untied.notes]


@pytest.mark.parametrize(("more", "noted"), [({}, False), ({"skip_modules": "mlp.gate"}, True)], ids=["own", "asked"])
def test_a_list_of_the_trainers_need_not_match(tmp_path: Path, more: dict, noted: bool) -> None:
    path = tmp_path / "run.sh"
    path.write_text("swift sft --model Qwen/Qwen2.5-0.5B --quant_bits 4 --quant_method bnb --torch_dtype bfloat16\n")
    answer = estimate(Request(config=str(path), offline=True, **more), bases=BASES)
    assert ("skips_not_found" in [note.code for note in answer.notes]) is noted


def test_five_configs_of_each_trainer_were_written() -> None:
    written = Counter(row["trainer"] for row in ROWS if row["file"].startswith("written/"))
    assert len(written) == 10
    assert min(written.values()) >= 5
