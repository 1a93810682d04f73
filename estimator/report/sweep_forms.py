"""A sweep as table, markdown, csv, json and as bars in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from estimator.report.units import decimal_size, printable

COLUMNS = ("model", "targets", "base_precision", "r", "parameters", "file_bytes", "device_bytes", "fits", "error")
_HEADINGS = ("model", "targets", "base", "r", "parameters", "file", "memory", "fits", "")
_BAR = 40


def as_rows(cases: Sequence[Any]) -> list[dict[str, Any]]:
    return [{name: getattr(case, name) for name in COLUMNS} for case in cases]


def _json(cases: Sequence[Any]) -> str:
    import json

    return json.dumps({"schema_version": 1, "sweep": as_rows(cases)}, indent=2)


def _csv(cases: Sequence[Any]) -> str:
    import csv
    from io import StringIO

    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(["" if value is None else value for value in row.values()] for row in as_rows(cases))
    return out.getvalue().rstrip("\n")


def _cells(case: Any) -> list[str]:
    return [
        printable(case.model),
        printable(case.targets or "default", 40),
        case.base_precision or "stored",
        str(case.r),
        "" if case.parameters is None else f"{case.parameters:,}",
        "" if case.file_bytes is None else decimal_size(case.file_bytes),
        "" if case.device_bytes is None else decimal_size(case.device_bytes),
        case.fits or "",
        printable(case.error or "", 80),
    ]


def _markdown(cases: Sequence[Any]) -> str:
    rows = [list(_HEADINGS), ["---"] * len(_HEADINGS), *map(_cells, cases)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _table(cases: Sequence[Any]) -> str:
    rows = [list(_HEADINGS), *map(_cells, cases)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def bars(cases: Sequence[Any]) -> str:
    """Trainable parameters as bars, one a case; "" where nothing was answered."""
    known = [case for case in cases if case.parameters is not None]
    most = max((case.parameters for case in known), default=0)
    if not most:
        return ""
    lines = [
        f"  r {case.r:<5}{printable(case.targets or 'default', 16):<17}"
        f"{'█' * max(1, round(_BAR * case.parameters / most))} {case.parameters:,}"
        for case in known
    ]
    return "\n".join(["trainable parameters", *lines])


FORMS: dict[str, Callable[[Sequence[Any]], str]] = {
    "table": _table,
    "markdown": _markdown,
    "csv": _csv,
    "json": _json,
}
