"""What a check found, and how code hosts read it: lines of JSON, GitHub's annotations, SARIF 2.1.0."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from estimator.errors import LoraSizeError
from estimator.source.plain import plain

MAX_MESSAGE, MAX_NAMED = 600, 3


class Problem(NamedTuple):
    code: str  # stable, snake_case
    message: str  # what is there, what was expected, how to mend it


def refused(error: LoraSizeError) -> Problem:
    """A refusal as a row of a check has it."""
    return Problem(error.code, f"{error.what} ({error.where}) {error.way_out}")


def is_not_judged(error: LoraSizeError) -> bool:
    """Whether it is no fault of what is checked: not_judged tells of it."""
    return error.exit_code == 3 or error.code == "unsupported"


def not_judged(error: LoraSizeError) -> Problem:
    """A base that can't be had where a check asks no network, or what lora-size has no answer to."""
    way_out = "Ask for it once with `lora-size --model`, which keeps it." if error.code == "offline" else error.way_out
    code = error.code if error.code == "unsupported" else "base_unknown"
    return Problem(code, f"Not judged: {error.what} {way_out}")


class CheckedPath(NamedTuple):
    path: str
    status: str  # "ok" | "failed" | "skipped"
    problems: tuple[Problem, ...] = ()


def _failed(checked: Sequence[CheckedPath]) -> list[tuple[str, Problem]]:
    """Path and problem of all that failed."""
    return [(c.path, problem) for c in checked if c.status == "failed" for problem in c.problems]


def as_json(checked: Sequence[CheckedPath]) -> str:
    rows = [{"path": c.path, "status": c.status, "problems": [p._asdict() for p in c.problems]} for c in checked]
    return json.dumps(rows, indent=2)


def as_text(checked: Sequence[CheckedPath]) -> str:
    """One line a problem of what failed, and one for each reason why others were not judged; "" where all is well."""
    failed = [f"{plain(path)}: {plain(p.message, MAX_MESSAGE)} [{p.code}]" for path, p in _failed(checked)]
    return "\n".join([*failed, *_skipped(checked)])


def _skipped(checked: Sequence[CheckedPath]) -> Iterator[str]:
    """Paths of one reason together, a few reasons of each code: a hook is handed every YAML file of a repository."""
    by_code: dict[str, dict[str, list[str]]] = {}
    for row in checked:
        for problem in row.problems if row.status == "skipped" else ():
            by_code.setdefault(problem.code, {}).setdefault(problem.message, []).append(plain(row.path))
    others = by_code.get("not_a_config", {})
    if len(others) > 1:  # why somebody else's file is none asks nobody
        by_code["not_a_config"] = {"these are neither adapters nor training configs.": [*chain(*others.values())]}
    for code, by_message in by_code.items():
        reasons = sorted(by_message.items(), key=lambda reason: -len(reason[1]))
        for message, paths in reasons[:MAX_NAMED]:
            more = f" and {len(paths) - MAX_NAMED} more" if len(paths) > MAX_NAMED else ""
            yield f"skipped: {', '.join(paths[:MAX_NAMED])}{more}: {plain(message, MAX_MESSAGE)} [{code}]"
        if left := sum(len(paths) for _, paths in reasons[MAX_NAMED:]):
            yield f"skipped: {left} more for reasons of this kind, which --json lists [{code}]"


def as_github(checked: Sequence[CheckedPath]) -> str:
    """Workflow commands: `::error file=...,title=...::message`."""
    return "\n".join(
        f"::error file={_property(path)},title={_property(p.code)}::{_escaped(p.message)}"
        for path, p in _failed(checked)
    )


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def as_sarif(checked: Sequence[CheckedPath]) -> str:
    failed = _failed(checked)
    rules = [{"id": code} for code in sorted({problem.code for _, problem in failed})]
    run: dict[str, Any] = {
        "tool": {"driver": {"name": "lora-size", "rules": rules}},
        "results": [_sarif_result(path, problem) for path, problem in failed],
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2)


def _sarif_result(path: str, problem: Problem) -> dict[str, Any]:
    from urllib.parse import quote

    uri = quote(path, errors="surrogateescape")  # of names that are no UTF-8, the bytes
    place = {"physicalLocation": {"artifactLocation": {"uri": uri}}}
    return {"ruleId": problem.code, "level": "error", "message": {"text": problem.message}, "locations": [place]}


FORMATS = {"text": as_text, "json": as_json, "github": as_github, "sarif": as_sarif}
