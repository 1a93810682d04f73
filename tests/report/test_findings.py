"""What a check found, in the forms that code hosts read."""

from __future__ import annotations

import json

import pytest

from estimator.report.findings import FORMATS, CheckedPath, Problem

ROWS = [
    CheckedPath("a b,c.yaml", "failed", (Problem("cut_short", "10 % are\nmissing: see there."),)),
    CheckedPath("good.yaml", "ok"),
    CheckedPath("other.yaml", "skipped", (Problem("not_a_config", "it is none."),)),
]


def test_json_has_every_path() -> None:
    (failed, *others) = json.loads(FORMATS["json"](ROWS))
    assert failed["problems"] == [{"code": "cut_short", "message": "10 % are\nmissing: see there."}]
    assert [(row["path"], row["status"]) for row in others] == [("good.yaml", "ok"), ("other.yaml", "skipped")]


def test_an_annotation_of_github_is_one_line_with_its_signs_escaped() -> None:
    said = "::error file=a b%2Cc.yaml,title=cut_short::10 %25 are%0Amissing: see there."
    assert FORMATS["github"](ROWS) == said


def test_sarif_names_the_rule_and_the_place_as_an_address() -> None:
    (run,) = json.loads(FORMATS["sarif"](ROWS))["runs"]
    assert run["tool"]["driver"]["rules"] == [{"id": "cut_short"}]
    (result,) = run["results"]
    assert result["ruleId"] == "cut_short"
    (place,) = result["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "a%20b%2Cc.yaml"


@pytest.mark.parametrize(
    ("form", "written"),
    [("text", r"a\udcff.yaml"), ("json", r"a\udcff.yaml"), ("github", "a?.yaml"), ("sarif", "a%FF.yaml")],
)
def test_a_path_that_is_no_utf_8_is_written(form: str, written: str) -> None:
    said = FORMATS[form]([CheckedPath("a\udcff.yaml", "failed", (Problem("cut_short", "short"),))])
    assert written in said.encode(errors="replace").decode()
