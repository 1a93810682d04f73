"""Charts really drawn: axes named with units, no background, the same file each time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from estimator.errors import UsageError
from estimator.jobs.sweep import Case, frontier
from estimator.report.sweep_plot import plot, require

CASES = [
    Case(model="m", targets="qv", base_precision=None, r=r, parameters=r * 10**6, file_bytes=4 * r * 10**6,
         device_bytes=10**10 + r * 10**8, device_lower_bytes=10**10, device_upper_bytes=10**10 + 2 * r * 10**8, fits="yes")
    for r in (4, 8, 16)
]  # fmt: skip


@pytest.fixture(autouse=True)
def _library() -> None:
    pytest.importorskip("matplotlib")


@pytest.mark.parametrize("gpu_memory", [None, 24 * 10**9], ids=["no GPU", "a GPU"])
@pytest.mark.parametrize("ending", ["svg", "html"])
def test_axes_say_their_units(tmp_path, ending: str, gpu_memory: int | None) -> None:
    path = tmp_path / f"chart.{ending}"
    plot(CASES, frontier(CASES), gpu_memory, str(path))
    text = path.read_text()
    wanted = ["rank r", "parameters (million)", "GB", "m, qv, stored"]
    assert all(word in text for word in wanted)
    assert ("24.0 GB" in text) == (gpu_memory is not None)
    assert "http" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "https://matplotlib.org", ""
    ).replace("http://creativecommons.org", "")


def test_what_trains_is_drawn_where_the_memory_is_not_known(tmp_path) -> None:
    unknown = Case(model="m", targets="all-linear", base_precision=None, r=8, parameters=10**7, file_bytes=4 * 10**7)
    path = tmp_path / "chart.svg"
    plot([*CASES, unknown], (), 24 * 10**9, str(path))
    assert "m, all-linear, stored" in path.read_text()


@pytest.mark.parametrize(
    ("model", "targets", "label"),
    [
        pytest.param("m", r"re:.*(q)$|.*\w(v)$", r"m, re:.*(q)$|.*\w(v)$, stored", id="dollars are no mathematics"),
        pytest.param("m\udcff\x1b", "qv", r"m\udcff\x1b, qv, stored", id="letters that can't be drawn"),
    ],
)
def test_labels_are_drawn_as_they_are_said(tmp_path, model: str, targets: str, label: str) -> None:
    path = tmp_path / "chart.svg"
    plot([replace(case, model=model, targets=targets) for case in CASES], (), None, str(path))
    assert label in path.read_text()


def test_a_page_follows_light_and_dark(tmp_path) -> None:
    plot(CASES, (), None, str(tmp_path / "chart.html"))
    assert 'content="light dark"' in (tmp_path / "chart.html").read_text()


def test_no_background_is_painted(tmp_path) -> None:
    from matplotlib.image import imread

    plot(CASES, (), None, str(tmp_path / "chart.png"))
    assert imread(tmp_path / "chart.png")[0, 0, 3] == 0  # the corner is transparent


def test_the_same_chart_is_the_same_file(tmp_path) -> None:
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    for path in (first, second):
        plot(CASES, (), None, str(path))
    assert first.read_bytes() == second.read_bytes()


def test_a_folder_that_is_not_there(tmp_path) -> None:
    with pytest.raises(UsageError):
        require(str(tmp_path / "none" / "chart.svg"))
