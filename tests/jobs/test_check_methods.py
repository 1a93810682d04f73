"""Adapters as PEFT saves them by other methods than LoRA: `check` finds nothing, their integers included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from estimator.jobs.base import BaseCache
from estimator.jobs.checking.check import check
from tests.jobs.test_check import Tensors, write
from tests.sizes.test_other_methods import RECORDED, ROWS

KNOWN = [row for row in ROWS if row["tensors"]]
(EMPTY,) = (row for row in ROWS if row["tensors"] == {})
BASES = BaseCache()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    (folder / "config.json").write_text(json.dumps(RECORDED["base"]))
    return folder


def problems(folder: Path, base: Path | str, row: dict, tensors: Tensors) -> tuple[str, set[str]]:
    write(folder, held=tensors)
    config = {**row["config"], "base_model_name_or_path": str(base)}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (found,) = check([str(folder)], bases=BASES)
    return found.status, {problem.code for problem in found.problems} - {"base_is_local_path"}


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in KNOWN])
def test_what_peft_saved_has_no_fault(tmp_path: Path, base: Path, row: dict) -> None:
    assert problems(tmp_path / "adapter", base, row, row["tensors"]) == ("ok", set())


def test_a_file_that_peft_saved_without_a_tensor_has_one(tmp_path: Path, base: Path) -> None:
    status, found = problems(tmp_path / "adapter", base, EMPTY, EMPTY["tensors"])
    assert (status, found) == ("failed", {"no_tensors"})


@pytest.mark.parametrize("row", [pytest.param(row, id=row["id"]) for row in KNOWN if row["id"] in ("shira", "frod")])
def test_integers_in_place_of_weights_are_found(tmp_path: Path, base: Path, row: dict) -> None:
    held = {name: ("I32" if dtype == "F32" else dtype, shape) for name, (dtype, shape) in row["tensors"].items()}
    assert problems(tmp_path / "adapter", base, row, held) == ("failed", {"not_floats"})


def test_without_its_base_indices_are_no_fault(tmp_path: Path) -> None:
    row = next(row for row in KNOWN if row["id"] == "shira")
    assert problems(tmp_path / "adapter", "nobody/has-such-a-model", row, row["tensors"]) == (
        "skipped",
        {"base_unknown"},
    )
