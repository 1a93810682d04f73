"""Sizes as users write them."""

from __future__ import annotations

import pytest

from estimator.errors import UsageError
from estimator.request.size import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        pytest.param("24GB", 24_000_000_000, id="decimal"),
        pytest.param("24GiB", 25_769_803_776, id="binary"),
        pytest.param("24 gib", 25_769_803_776, id="small letters and a space"),
        pytest.param("1.5GB", 1_500_000_000, id="a fraction"),
        pytest.param("80000000000", 80_000_000_000, id="bytes"),
        pytest.param("50m", 50_000_000, id="a unit without its B"),
    ],
)
def test_a_size_is_read_in_each_unit(text: str, size: int) -> None:
    assert parse_size(text, "--gpu-memory") == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "24XB", "1e9", "24iB", "9" * 50])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text, "--gpu-memory")
