"""The answer as one CSV row under a header; what `sweep` writes many of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from estimator.report.as_table import describe_targets


def as_csv(document: Mapping[str, Any]) -> str:
    return rows_as_csv([flat_row(document)])


def rows_as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """RFC 4180 with \\n; a text that a spreadsheet would take for a formula is given a leading apostrophe."""
    import csv
    import io

    rows = [{field: _inert(value) for field, value in row.items()} for row in rows]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")


def flat_row(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document's headline as one flat row; bytes and parameters are integers."""
    model, lora, adapter, base = document["model"], document["lora"], document["adapter"], document["base"]
    return {
        "model": model["id"],
        "revision": model["revision"],
        "architecture": model["architecture"],
        "basis": model["basis"],
        "r": lora["r"],
        "targets": describe_targets(lora, 1000),
        "modules": len(adapter["modules"]),
        "trainable_parameters": adapter["parameters"],
        "trainable_percent": round(document["totals"]["trainable_percent"], 6),
        "all_parameters": document["totals"]["all_parameters"],
        "adapter_file_bytes": adapter["file"]["bytes"],
        "adapter_file_tensors": adapter["file"]["tensors"],
        "base_parameters": base["parameters"],
        **{f"base_{precision}_bytes": size for precision, size in base["bytes"].items()},
        "cross_check": document["cross_check"]["status"],
    }


def _inert(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
