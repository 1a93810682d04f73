"""A healthy folder, one byte or one field changed at random: `check` finds the damage, or the folder means the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from estimator.jobs.base import BaseCache  # noqa: E402
from estimator.jobs.checking.check import check  # noqa: E402
from tests.jobs.test_check import CONFIG, tensors, write  # noqa: E402

BASES = BaseCache()
QUIET = settings(max_examples=25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters") / "adapter"


def status(folder: Path) -> str:
    (row,) = check([str(folder)], bases=BASES)
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


NAMES = sorted(tensors())


@QUIET
@given(pair=st.lists(st.sampled_from(NAMES), min_size=2, max_size=2, unique=True))
def test_any_swap_is_found(folder: Path, pair: list[str]) -> None:
    """Two tensors under each other's names: the same only where their shapes are."""
    held, (one, other) = tensors(), pair
    same = held[one] == held[other]
    held[one], held[other] = held[other], held[one]
    assert status(write(folder, held=held)) == ("ok" if same else "failed")


@QUIET
@given(name=st.sampled_from(NAMES), at=st.integers(0, 200), letter=st.sampled_from("abq.0_Z"))
def test_any_renaming_is_found(folder: Path, name: str, at: int, letter: str) -> None:
    at %= len(name)
    other = name[:at] + letter + name[at + 1 :]
    held = tensors()
    held[other] = held.pop(name)
    assert status(write(folder, held=held)) == ("ok" if other == name else "failed")


@QUIET
@given(
    names=st.sets(st.sampled_from(NAMES), min_size=1, max_size=5), dtype=st.sampled_from(["F32", "BF16", "F16", "I32"])
)
def test_any_retyping_is_found_or_harmless(folder: Path, names: set[str], dtype: str) -> None:
    """A 16-bit copy of a weight loads as well; integers are no weights."""
    held = {name: ((dtype if name in names else kind), shape) for name, (kind, shape) in tensors().items()}
    assert status(write(folder, held=held)) == ("failed" if dtype == "I32" else "ok")


# A field of the config, a value, and whether PEFT then still expects the same tensors of the file.
EDITS = [
    ("lora_alpha", 1, True), ("lora_dropout", 0.5, True), ("use_rslora", True, True), ("inference_mode", True, True),
    ("task_type", None, True), ("a_field_of_tomorrow", 3, True), ("fan_in_fan_out", True, True),
    ("init_lora_weights", "gaussian", True), ("layers_to_transform", list(range(24)), True),
    ("target_modules", "all-linear", False), ("target_modules", ".*_proj", False), ("target_modules", 3, False),
    ("layers_to_transform", [1], False), ("use_dora", True, False), ("rank_pattern", {"q_proj": 2}, False),
    ("exclude_modules", ["q_proj"], False), ("modules_to_save", ["embed_tokens"], False), ("lora_bias", True, False),
    ("r", "four", False), ("r", 4.5, False), ("bias", "sometimes", False), ("lora_dropout", "much", False),
    ("peft_type", "NOTHING", False), ("base_model_name_or_path", "Qwen/Qwen2.5-1.5B", False),
]  # fmt: skip


@QUIET
@given(edits=st.lists(st.sampled_from(EDITS), min_size=1, max_size=3, unique_by=lambda edit: edit[0]))
def test_any_edit_of_the_config_is_found_or_harmless(folder: Path, edits: list[tuple[str, object, bool]]) -> None:
    same = all(harmless for _, _, harmless in edits)
    assert (status(write(folder, {field: value for field, value, _ in edits})) == "ok") == same


@pytest.mark.parametrize(("field", "value", "same"), [pytest.param(*e, id=f"{e[0]} {e[1]}"[:60]) for e in EDITS])
def test_an_edit_of_the_config(folder: Path, field: str, value: object, same: bool) -> None:
    assert (status(write(folder, {field: value})) == "ok") == same


@pytest.mark.parametrize(
    ("config", "shapes"),
    [
        pytest.param({"r": ["*"]}, ([4, 8], [8, 4]), id="a list for a rank"),
        pytest.param({"rank_pattern": {"q_proj": {}}}, ([4, 8], [8, 4]), id="an object for another"),
        pytest.param({}, ([4, 8], [8]), id="an output of one dimension"),
        pytest.param({}, ([4, 8], []), id="and of none"),
    ],
)
@pytest.mark.parametrize("base", [CONFIG["base_model_name_or_path"], "nobody/knows"], ids=["known", "unknown"])
def test_odd_ranks_and_shapes_are_told(folder: Path, base: str, config: dict, shapes: tuple) -> None:
    stem = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    held = {f"{stem}{half}.weight": ("F32", shape) for half, shape in zip("AB", shapes, strict=True)}
    (row,) = check([str(write(folder, {"base_model_name_or_path": base, **config}, held))], bases=BASES)
    assert row.status in ("failed", "skipped")
    assert not any("lora-size failed" in problem.message for problem in row.problems)
