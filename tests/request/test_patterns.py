"""Patterns of strangers: the same answers as `re`, in bounded time."""

from __future__ import annotations

import pytest

from estimator.errors import InvalidLoraError
from estimator.request import patterns
from estimator.request.patterns import fullmatching

NAMES = ["model.layers.0.q_proj", "model.layers.1.v_proj", "lm_head"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        pytest.param(r".*_proj", NAMES[:2], id="a wildcard"),
        pytest.param(r"(?i).*LAYERS.*", NAMES[:2], id="flags at the start"),
        pytest.param(r"^(?!.*layers).*", NAMES[2:], id="a look ahead"),
        pytest.param(r"(\w+\.)*q_proj", NAMES[:1], id="a repeat in a repeat, matched elsewhere"),
        pytest.param(r"q_proj", [], id="the whole name"),
    ],
)
def test_as_re_would(pattern, names):
    assert fullmatching(pattern, NAMES, where="target_modules") == names


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*$", "(?:a?){30}a{30}$", r"(a*)*\Z"])
def test_an_endless_pattern_is_refused(pattern, monkeypatch):
    monkeypatch.setattr(patterns, "DEADLINE_SECONDS", 0.3)
    with pytest.raises(InvalidLoraError, match="takes longer"):
        fullmatching(pattern, ["a" * 60 + "b"], where="target_modules")


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "(?P<a", "x" * 60_000])
def test_a_faulty_pattern_is_refused(pattern):
    with pytest.raises(InvalidLoraError):
        fullmatching(pattern, NAMES, where="target_modules")
