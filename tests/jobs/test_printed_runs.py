"""What is answered, against what published runs printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from estimator.jobs.base import BaseCache
from estimator.jobs.estimate import estimate
from estimator.report.document import to_document
from estimator.request.request import Request

FILE = Path(__file__).parents[2] / "fixtures" / "printed" / "runs.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text().splitlines()]
BASES = BaseCache()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['model']}-{row['trainable']}")
def test_printed(row: dict[str, Any]) -> None:
    document = to_document(estimate(Request(model=row["model"], lora=row["lora"], offline=True), bases=BASES))
    assert document["adapter"]["parameters"] == row["trainable"]
    assert row["all"] in (document["totals"]["all_parameters"], None)
