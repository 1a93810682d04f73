"""Cells of a Markdown table."""

from __future__ import annotations

import pytest

from estimator.jobs.sweep import Case
from estimator.report.as_markdown import cell
from estimator.report.sweep_forms import FORMS


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param(None, "", id="not known"),
        pytest.param(27_262_976, "27,262,976", id="a count"),
        pytest.param(0.34, "0.34", id="a percentage"),
        pytest.param(True, "True", id="a switch"),
        pytest.param("a|b", "a\\|b", id="the end of a cell"),
        pytest.param("<img src=x>`", "&lt;img src=x>\\`", id="a tag and code"),
        pytest.param("two\nlines", "two lines", id="the end of a row"),
    ],
)
def test_a_cell_stays_one(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_the_names_of_a_sweep_are_cells_too() -> None:
    case = Case(model="<b>|", targets="re:(a|b)", base_precision=None, r=8)
    row = FORMS["markdown"]([case], (), None, ()).splitlines()[2]
    assert row.startswith("| &lt;b>\\| | re:(a\\|b) | stored | 8 |")
