"""The budget of a check, from options and from the project's own files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from estimator.errors import UsageError
from estimator.report.findings import Problem
from estimator.report.units import exact_size
from estimator.request.size import parse_size

_SECTIONS = ("tool.lora-size", "tool:lora-size")  # of setup.cfg; the latter as pytest and others are called there
NAMES = ("max_file_size", "max_parameters", "max_percent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """None: no limit."""

    max_file_size: int | None = None  # bytes
    max_parameters: int | None = None
    max_percent: float | None = None  # of all parameters


def _known(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The table of a project file; raises UsageError for a key that is none, which would guard nothing."""
    for name in table:
        if name not in (*NAMES, "strict"):
            from difflib import get_close_matches

            known = [known.replace("_", "-") for known in (*NAMES, "strict")]
            close = get_close_matches(name.replace("_", "-"), known, n=1)
            way_out = f"did you mean {close[0]}?" if close else f"one of {', '.join(known)}"
            raise UsageError(f"there is no limit {name[:60]!r}.", where=where, way_out=way_out)
    if str(table.get("strict", "false")).lower() not in ("true", "false"):
        what = f"strict is {str(table['strict'])[:60]!r}."
        raise UsageError(what, where=where, way_out="give true or false")
    return dict(table)


def to_limits(given: Mapping[str, Any], where: str = "") -> Limits:
    """Raises UsageError for a value that can't be read."""
    size, parameters, percent = (given.get(name) for name in NAMES)
    return Limits(
        max_file_size=None if size is None else parse_size(str(size), where or "--max-file-size"),
        max_parameters=None if parameters is None else int(_number(parameters, where or "--max-parameters")),
        max_percent=None if percent is None else _number(percent, where or "--max-percent"),
    )


def _number(value: Any, where: str) -> float:
    try:
        number = float(str(value).replace("_", ""))
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e18:
        raise UsageError(f"{str(value)[:60]!r} is no number of 0 or more.", where=where, way_out="give a number")
    return number


def configured(folder: str) -> tuple[dict[str, Any], str]:
    """The table of the nearest project file at or above the folder, and its path; {} where none has one.

    `.lora-size.toml`, then [tool.lora-size] of pyproject.toml, then of setup.cfg. Raises UsageError for broken TOML,
    for a key that is no limit, and for TOML that can't be opened.
    """
    place = os.path.abspath(folder)
    while True:
        for name, read in ((".lora-size.toml", _whole_toml), ("pyproject.toml", _pyproject), ("setup.cfg", _setup_cfg)):
            path = os.path.join(place, name)
            if os.path.isfile(path) and (table := _read(read, path)):
                return _known({key.replace("-", "_"): value for key, value in table.items()}, path), path
        above = os.path.dirname(place)
        if above == place:
            return {}, ""
        place = above


def _read(read: Callable[[str], dict[str, Any]], path: str) -> dict[str, Any]:
    try:
        return read(path)
    except OSError as error:
        why = (error.strerror or "unreadable").lower()
        raise UsageError(f"it can't be read: {why}.", where=path, way_out="check its permissions") from error


def _whole_toml(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except ValueError as error:
        raise UsageError(f"broken TOML: {error}.", where=path, way_out="mend its syntax") from error


def _pyproject(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        if b"lora-size" not in file.read(5_000_000):
            return {}
    tool = _whole_toml(path).get("tool")
    table = tool.get("lora-size") if isinstance(tool, dict) else None
    return table if isinstance(table, dict) else {}


def _setup_cfg(path: str) -> dict[str, Any]:
    import configparser

    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, ValueError) as error:
        raise UsageError("broken setup.cfg.", where=path, way_out="mend its syntax") from error
    return next((dict(parser[name]) for name in _SECTIONS if parser.has_section(name)), {})


def over_budget(
    limits: Limits, *, file_bytes: int | None, parameters: int | None, percent: float | None
) -> list[Problem]:
    """What is over its limit; what is not known is not judged."""
    found = []
    if file_bytes is not None and limits.max_file_size is not None and file_bytes > limits.max_file_size:
        message = f"The adapter file has {exact_size(file_bytes)}; the limit is {exact_size(limits.max_file_size)}."
        found.append(Problem("over_max_file_size", message + " Lower r, name fewer targets, or save in 16 bits."))
    if parameters is not None and limits.max_parameters is not None and parameters > limits.max_parameters:
        message = f"{parameters:,} parameters train; the limit is {limits.max_parameters:,}."
        found.append(Problem("over_max_parameters", message + " Lower r or name fewer targets."))
    if percent is not None and limits.max_percent is not None and percent > limits.max_percent:
        message = f"{percent:.4g} % of all parameters train; the limit is {limits.max_percent:g} %."
        found.append(Problem("over_max_percent", message + " Lower r or name fewer targets."))
    return found
