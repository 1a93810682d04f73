"""The answer as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator.report.as_csv import flat_row
from estimator.report.as_table import peft_line
from estimator.source.plain import plain


def as_markdown(document: Mapping[str, Any]) -> str:
    """Field and value, one a row; notes and PEFT's line below."""
    from tabulate import tabulate

    rows = [(field.replace("_", " "), cell(value)) for field, value in flat_row(document).items()]
    lines = [tabulate(rows, headers=("", "value"), tablefmt="github", disable_numparse=True), ""]
    lines += [f"- {_escaped(note['message'])}" for note in document["notes"]]
    return "\n".join([*lines, "", f"`{peft_line(document)}`"])


def cell(value: Any) -> str:
    """A value in a table: nothing for None, a text that neither ends its cell nor begins a tag."""
    if value is None:
        return ""
    return f"{value:,}" if type(value) is int else _escaped(value)


def _escaped(value: Any) -> str:
    return plain(value, 1000).replace("|", "\\|").replace("`", "\\`").replace("<", "&lt;")
