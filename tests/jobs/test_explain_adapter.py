"""Published adapters explained from their config and the size in their Git LFS pointer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from estimator.jobs.base import BaseCache
from estimator.jobs.explain_adapter import explain_adapter
from estimator.request.request import Request

FIXTURE = Path(__file__).parents[2] / "fixtures" / "adapters" / "published.jsonl"
ROWS = [json.loads(line) for line in FIXTURE.read_text().splitlines()]
BASES = BaseCache()


@pytest.mark.parametrize("row", [pytest.param(row, id=row["why"]) for row in ROWS])
def test_published_adapter(row, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(row["config"]))
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize {row['bytes']}\n"
    (tmp_path / "adapter_model.safetensors").write_text(pointer)
    explained = explain_adapter(str(tmp_path), Request(offline=True), bases=BASES)
    assert (explained.status, [cause.code for cause in explained.causes]) == (row["status"], row["causes"])
    assert explained.actual_bytes == row["bytes"]


def test_no_file_is_unknown(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(ROWS[0]["config"]))
    explained = explain_adapter(str(tmp_path), Request(offline=True), bases=BASES)
    assert (explained.status, explained.causes) == ("unknown", ())


def test_a_file_too_short_for_any_tensor(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(ROWS[0]["config"]))
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 48\n"
    (tmp_path / "adapter_model.safetensors").write_text(pointer)
    explained = explain_adapter(str(tmp_path), Request(offline=True), bases=BASES)
    assert (explained.status, [cause.code for cause in explained.causes]) == ("damaged", ["no_tensors"])
