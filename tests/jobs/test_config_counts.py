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


def test_five_configs_of_each_trainer_were_written() -> None:
    written = Counter(row["trainer"] for row in ROWS if row["file"].startswith("written/"))
    assert len(written) == 10
    assert min(written.values()) >= 5
