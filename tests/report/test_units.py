"""Numbers as people read them."""

from __future__ import annotations

import pytest

from estimator.report.units import decimal_size, exact_size, percent, size_range


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        pytest.param(0, "0 bytes", id="nothing"),
        pytest.param(999, "999 bytes", id="below a kilobyte"),
        pytest.param(1_000, "1.0 kB", id="decimal, not 1024"),
        pytest.param(109_086_416, "109.1 MB", id="the headline's file"),
        pytest.param(999_949_999, "999.9 MB", id="just below a gigabyte"),
        pytest.param(999_950_000, "1.0 GB", id="rounds up into the next unit"),
        pytest.param(32_121_044_992, "32.1 GB", id="Llama-3.1-8B at fp32"),
        pytest.param(2_000_000_000_000, "2.0 TB", id="terabytes"),
    ],
)
def test_sizes_are_decimal(size: int, shown: str) -> None:
    assert decimal_size(size) == shown


@pytest.mark.parametrize(
    ("lower", "upper", "shown"),
    [
        pytest.param(0, 67_108_864, "0 bytes to 67.1 MB", id="two bounds"),
        pytest.param(3_221_225_472, 3_230_000_000, "3.2 GB", id="bounds that read the same"),
    ],
)
def test_a_range_has_two_ends_where_they_differ(lower: int, upper: int, shown: str) -> None:
    assert size_range(lower, upper) == shown


def test_exact_sizes_have_separators() -> None:
    assert exact_size(109_086_416) == "109,086,416 bytes"


@pytest.mark.parametrize(
    ("value", "shown"), [(0.33950, "0.34 %"), (12.345, "12.3 %"), (100.0, "100 %"), (1234.5, "1,234 %")]
)
def test_percent(value: float, shown: str) -> None:
    assert percent(value) == shown
