"""A sweep as table, markdown, csv and json, and as bars in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from estimator.report.units import decimal_size
from estimator.source.plain import plain

COLUMNS = ("model", "targets", "base_precision", "r", "parameters", "file_bytes", "device_bytes",
           "device_lower_bytes", "device_upper_bytes", "fits", "assumed_dtype", "basis", "cross_check")  # fmt: skip
_HEADINGS = ("model", "targets", "base", "r", "parameters", "file", "memory", "fits", "basis", "")
_LONGEST_BAR, _SHORTEST_BAR = 40, 8
_MOST = 5  # of the frontier: what trains most comes first

# Cases, the frontier, the GPU's bytes, and notes on the run that all of them share.
Form = Callable[[Sequence[Any], Sequence[Any], int | None, Sequence[Any]], str]


def _row(case: Any) -> dict[str, Any]:
    return {name: getattr(case, name) for name in COLUMNS}


def _messages(cases: Sequence[Any], notes: Sequence[Any]) -> list[str]:
    """Each distinct note once, and a word on bases whose files contradict each other or whose dtype is assumed."""
    said = [note.message for note in notes] + [note.message for case in cases for note in case.notes]
    for model, dtype in dict.fromkeys((case.model, case.assumed_dtype) for case in cases if case.assumed_dtype):
        words = "since nothing here says its dtype; --dtype says another."
        said.append(f"The memory of {model} is that of {dtype}, {words}")
    return [plain(message, 600) for message in dict.fromkeys([*said, *_contradictions(cases)])]


def _contradictions(cases: Sequence[Any]) -> list[str]:
    models = dict.fromkeys(case.model for case in cases if case.cross_check == "mismatch")
    return [f"The files of {model} contradict each other: lora-size --model {model} says where." for model in models]


def _json(cases: Sequence[Any], frontier: Sequence[Any], gpu_memory: int | None, notes: Sequence[Any]) -> str:
    from estimator.report.as_json import as_json
    from estimator.report.document import SCHEMA_VERSION

    def error(case: Any) -> dict[str, str] | None:
        return None if case.error is None else {"code": case.error.code, "message": str(case.error)}

    document = {
        "schema_version": SCHEMA_VERSION,
        "gpu_memory": gpu_memory,
        "sweep": [
            {**_row(case), "notes": [note._asdict() for note in case.notes], "error": error(case)} for case in cases
        ],
        "frontier": [_row(case) for case in frontier],
        "notes": [note._asdict() for note in notes],
    }
    return as_json(document)


def _csv(cases: Sequence[Any], frontier: Sequence[Any], gpu_memory: int | None, notes: Sequence[Any]) -> str:
    from estimator.report.as_csv import rows_as_csv

    def error(case: Any) -> dict[str, str]:
        found = case.error
        return {"error_code": found.code if found else "", "error": str(found) if found else ""}

    return rows_as_csv([{**_row(case), **error(case)} for case in cases])


def _cells(case: Any) -> list[str]:
    return [
        plain(case.model),
        plain(case.targets or "default", 40),
        case.base_precision or "stored",
        "" if case.r is None else str(case.r),
        "" if case.parameters is None else f"{case.parameters:,}",
        "" if case.file_bytes is None else decimal_size(case.file_bytes),
        "" if case.device_bytes is None else decimal_size(case.device_bytes),
        case.fits or "",
        case.basis or "",
        "" if case.error is None else plain(case.error, 80),
    ]


def _markdown(cases: Sequence[Any], frontier: Sequence[Any], gpu_memory: int | None, notes: Sequence[Any]) -> str:
    from estimator.report.as_markdown import cell

    rows = [list(_HEADINGS), ["---"] * len(_HEADINGS), *map(_cells, cases)]
    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    said = [f"- {cell(message)}" for message in _messages(cases, notes)]
    return "\n".join([*lines, *([""] if said else []), *said])


def _table(cases: Sequence[Any], frontier: Sequence[Any], gpu_memory: int | None, notes: Sequence[Any]) -> str:
    rows = [list(_HEADINGS), *map(_cells, cases)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADINGS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    said = [f"note: {message}" for message in _messages(cases, notes)]
    return "\n".join([*lines, *([""] if said else []), *said])


FORMS: dict[str, Form] = {"table": _table, "markdown": _markdown, "csv": _csv, "json": _json}


def open_questions(cases: Sequence[Any]) -> list[str]:
    """What --quiet has no room for: a line for each case that was refused, and for files that contradict each other."""
    shown = zip(labelled(cases), cases, strict=True)
    refused = [f"{label}: {plain(case.error, 600)}" for label, case in shown if case.error is not None]
    return [*refused, *map(plain, _contradictions(cases))]


def terminal(cases: Sequence[Any], frontier: Sequence[Any], gpu_memory: int | None, columns: int) -> str:
    """Bars of parameters and of memory, then the frontier of what fits; it keeps within `columns` where it can."""
    return "\n".join(_terminal(cases, frontier, gpu_memory, columns))


def _terminal(cases: Sequence[Any], frontier: Sequence[Any], gpu_memory: int | None, columns: int) -> Iterator[str]:
    labels = labelled(cases)
    parameters = {}  # the same at every precision
    for label, case in zip(labelled(cases, precision=False), cases, strict=True):
        if case.parameters is not None:
            parameters[label] = (label, case.parameters, f"{case.parameters:,}")
    memory = [(label, case.device_bytes, f"{decimal_size(case.device_bytes)}{_mark(case)}")
              for label, case in zip(labels, cases, strict=True) if case.device_bytes is not None]  # fmt: skip
    yield from _bars("trainable parameters", list(parameters.values()), columns)
    yield from _bars("memory on the device", memory, columns)
    if gpu_memory is not None:
        yield ""
        yield f"the most that surely fits {decimal_size(gpu_memory)}" + ("" if frontier else ": nothing here")
    for case in frontier[:_MOST]:
        label = labels[next(i for i, other in enumerate(cases) if other is case)]
        yield f"  {label}: {case.parameters:,} parameters, at most {decimal_size(case.device_upper_bytes)}"


def _mark(case: Any) -> str:
    return {"yes": "  fits", "maybe": "  may fit"}.get(case.fits or "", "")


def _bars(title: str, rows: list[tuple[str, int, str]], columns: int) -> Iterator[str]:
    most = max((value for _, value, _ in rows), default=0)
    if not most:
        return
    label_width = max(len(label) for label, _, _ in rows)
    room = columns - label_width - max(len(text) for _, _, text in rows) - 5
    longest = max(_SHORTEST_BAR, min(_LONGEST_BAR, room))
    yield ""
    yield title
    for label, value, text in rows:
        yield f"  {label:<{label_width}}  {'█' * max(1, round(longest * value / most))} {text}"


def labelled(cases: Sequence[Any], precision: bool = True) -> list[str]:
    """What tells each case from the others: the rank, and of the rest only what differs."""
    parts = [
        (plain(case.model, 28), plain(case.targets or "default", 20), case.base_precision or "stored") for case in cases
    ]
    differing = [place for place in range(3 if precision else 2) if len({part[place] for part in parts}) > 1]
    return [
        ", ".join([*(part[place] for place in differing), *([] if case.r is None else [f"r {case.r}"])])
        for part, case in zip(parts, cases, strict=True)
    ]
