"""Weights that can't be their module's."""

from __future__ import annotations

import pytest

from estimator.architecture.dimensions import check_dimensions
from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.errors import MalformedHeaderError


def tree(kind: str, shape: tuple[int, ...], name: str = "weight") -> ModuleTree:
    module = Module("model.it", kind, kind, (Parameter(name, shape, "BF16"),))
    return ModuleTree(architecture="X", config={}, modules=(module,), tied={})


@pytest.mark.parametrize(
    ("kind", "shape", "name"),
    [
        pytest.param("Linear", (2, 3), "weight", id="a Linear"),
        pytest.param("Linear", (2,), "bias", id="its bias"),
        pytest.param("Conv2d", (2, 3, 1, 1), "weight", id="a convolution"),
        pytest.param("other", (), "weight", id="what LoRA does not wrap"),
    ],
)
def test_a_weight_that_fits(kind: str, shape: tuple[int, ...], name: str) -> None:
    check_dimensions(tree(kind, shape, name))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        pytest.param("Linear", (), id="a number for a Linear"),
        pytest.param("Linear", (6,), id="a vector for a Linear"),
        pytest.param("Embedding", (2, 3, 1), id="a cube for an Embedding"),
        pytest.param("Conv1d", (2, 3), id="a matrix for a Conv1d"),
        pytest.param("Linear", (1,) * 5_000, id="five thousand dimensions"),
    ],
)
def test_a_weight_that_does_not(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(MalformedHeaderError, match="dimensions") as refused:
        check_dimensions(tree(kind, shape))
    assert len(refused.value.what) < 200
