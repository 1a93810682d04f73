"""A healthy folder, one byte or one field changed at random: `check` finds the damage, or the folder means the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from estimator.jobs.check import check  # noqa: E402
from tests.jobs.test_check import CONFIG, tensors, write  # noqa: E402

QUIET = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters") / "adapter"


def status(folder: Path) -> str:
    (row,) = check([str(folder)])
    return row.status


@QUIET
@given(cut=st.integers(-5_000, 600_000).filter(bool))
def test_any_cut_is_found(folder: Path, cut: int) -> None:
    assert status(write(folder, cut=cut)) == "failed"


@QUIET
@given(lost=st.sets(st.sampled_from(sorted(tensors())), min_size=1))
def test_any_lost_tensor_is_found(folder: Path, lost: set[str]) -> None:
    assert status(write(folder, held={k: v for k, v in tensors().items() if k not in lost})) == "failed"


@QUIET
@given(name=st.sampled_from(sorted(tensors())), row=st.integers(1, 2000), axis=st.integers(0, 1))
def test_any_other_shape_is_found(folder: Path, name: str, row: int, axis: int) -> None:
    held = tensors()
    shape = list(held[name][1])
    same = shape[axis] == row
    shape[axis] = row
    assert status(write(folder, held={**held, name: ("F32", shape)})) == ("ok" if same else "failed")


@QUIET
@given(r=st.integers(-2, 40), names=st.sets(st.sampled_from(["q_proj", "k_proj", "v_proj", "o_proj", "x"])))
def test_any_other_config_is_found(folder: Path, r: int, names: set[str]) -> None:
    same = r == CONFIG["r"] and names - {"x"} == {"q_proj", "v_proj"}
    assert (status(write(folder, {"r": r, "target_modules": sorted(names)})) == "ok") == same


@QUIET
@given(text=st.binary(max_size=300))
def test_no_bytes_break_it(folder: Path, text: bytes) -> None:
    write(folder)
    (folder / "adapter_config.json").write_bytes(text)
    try:
        same = json.loads(text) == CONFIG
    except ValueError:
        same = False
    assert (status(folder) == "ok") == same
