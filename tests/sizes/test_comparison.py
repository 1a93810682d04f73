"""The adapter beside its base: percentages by hand, and what a full fine-tune or a merge would write."""

from __future__ import annotations

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.request.load_options import LoadOptions
from estimator.sizes.base import base_sizes
from estimator.sizes.comparison import compare

TREE = ModuleTree(
    architecture=None,
    config={"dtype": "bfloat16"},
    modules=(
        Module("proj", "Linear", "Linear", (Parameter("weight", (64, 64), "BF16"),)),
        Module("norm", "Norm", "other", (Parameter("weight", (64,), "BF16"),)),
    ),
    tied={},
)
ALL, NORM = 64 * 64 + 64, 64


@pytest.mark.parametrize(
    ("precision", "full", "merged"),
    [
        pytest.param("stored", 2 * ALL, 2 * ALL, id="bfloat16 throughout"),
        pytest.param("fp32", 4 * ALL, 4 * ALL, id="float32 throughout"),
        pytest.param("nf4", 2 * ALL, 2048 + 64 + 4 * 64 + 2 * NORM, id="a 4-bit base stays packed when merged"),
    ],
)
def test_what_would_be_written_instead(precision, full, merged):
    found = compare(1000, base_sizes(TREE, None, LoadOptions(base_precision=precision)))
    assert (found.full_checkpoint_bytes, found.merged_bytes) == (full, merged)
    assert found.percent_at["fp32"] == 100 * 1000 / (4 * ALL)


def test_unknown_sides_stay_unknown():
    found = compare(None, base_sizes(TREE, None, LoadOptions()))
    assert set(found.percent_at.values()) == {None}
