"""What a newer release adds to a facts file stays, and nothing else of it comes in."""

from __future__ import annotations

from importlib import import_module

import pytest

from estimator.generated import Rows, with_newer

LISTED = Rows(r"(?P<said>\S+) (?P<names>.+)", "{said} {names}", lambda name: name.startswith("new"))
LEADING = Rows(r"(?P<names>\S+) (?P<said>.+)", "{names} {said}", lambda name: name.startswith("new"))
NUMBERED = LISTED._replace(order=int)


@pytest.mark.parametrize(
    ("rows", "text", "newer", "merged"),
    [
        pytest.param(LISTED, "8 llama", "8 new1", "8 llama new1", id="beside others of a line"),
        pytest.param(LISTED, "8 llama", "9 new1", "8 llama\n9 new1", id="a line of its own"),
        pytest.param(LISTED, "8 llama new1 new2", "8 new2", "8 llama new2", id="in place of what was said of it"),
        pytest.param(LISTED, "8 llama", "9 llama", "8 llama", id="what the release knows stays as it was"),
        pytest.param(LEADING, "llama s", "new1 f\nllama sf", "llama s\nnew1 f", id="a line each"),
        pytest.param(LEADING, "new1 s all", "new1 f all", "new1 f all", id="a line each, said anew"),
        pytest.param(LISTED, "16 llama", "8 new1", "16 llama\n8 new1", id="by text"),
        pytest.param(NUMBERED, "16 llama", "8 new1", "8 new1\n16 llama", id="by number"),
    ],
)
def test_rows_on_what_is_newer(rows: Rows, text: str, newer: str, merged: str) -> None:
    assert with_newer(f"# of 1\n{text}\n", f"# of 2\n{newer}\n", rows) == f"# of 1\n{merged}\n"


@pytest.mark.parametrize(
    "module",
    ["sizes.memory.generate_windows", "sizes.memory.generate_defaults", "sizes.generate_attention",
     "architecture.generate_refusals"],
)  # fmt: skip
def test_every_row_of_a_file_is_read_and_written(module: str) -> None:
    script = import_module(f"estimator.{module}")
    text = script.OUTPUT.read_text(encoding="utf-8")
    assert with_newer(text, text, script._ROWS) == text
