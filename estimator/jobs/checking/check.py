"""Adapters and training configs held against what they promise and against a budget; never with a network."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from estimator.errors import LoraSizeError, NotFoundError, UnsupportedError, unforeseen
from estimator.jobs.checking.adapter import check_adapter
from estimator.jobs.checking.limits import Limits, over_budget
from estimator.jobs.checking.local_base import is_absolute, local_base
from estimator.jobs.checking.paths import Unit, find_units
from estimator.jobs.checking.weights import check_weights
from estimator.report.findings import CheckedPath, Problem, is_not_judged, not_judged, refused
from estimator.source.plain import plain
from estimator.source.progress import patiently

MISSING = "not_found"


def check(
    paths: Iterable[str], *, limits: Limits | None = None, strict: bool = False, bases: Any = None
) -> list[CheckedPath]:
    """One row for each adapter folder, config and other named file behind the paths; a fault of one ends only its row.

    A path that is not there is a failed row with the code MISSING. `bases`: a BaseCache of an earlier check.
    """
    from estimator.jobs.base import BaseCache

    limits, bases = limits or Limits(), bases or BaseCache()
    checked = []
    with patiently("looking for adapters and training configs") as tell:
        units = find_units(paths)
        for number, unit in enumerate(units, 1):
            tell(f"{number:,} of {len(units):,}: {plain(unit.path, 60)}")
            checked.append(_judge(unit, limits, strict, bases))
    return [row for row in checked if row is not None]


def _judge(unit: Unit, limits: Limits, strict: bool, bases: Any) -> CheckedPath | None:
    try:
        return _JUDGES[unit.kind](unit, limits, strict, bases)
    except LoraSizeError as error:
        return _failed(unit, refused(error))
    except OSError as error:
        why = error.strerror or type(error).__name__
        return _failed(unit, Problem("unreadable", f"It can't be read: {why}. Check its permissions and the disk."))
    except Exception as error:  # a fault of this program: the other paths have their verdicts all the same
        return _failed(unit, refused(unforeseen(error)))


def _check_folder(unit: Unit, limits: Limits, strict: bool, bases: Any) -> CheckedPath:
    return check_adapter(unit.path, limits, strict, bases)


def _check_weights(unit: Unit, limits: Limits, strict: bool, bases: Any) -> CheckedPath:
    return check_weights(unit.path)


def _check_missing(unit: Unit, limits: Limits, strict: bool, bases: Any) -> CheckedPath:
    return _failed(unit, Problem(MISSING, f"There is no file or folder {unit.path}. Check the spelling."))


def _failed(unit: Unit, *problems: Problem) -> CheckedPath:
    return CheckedPath(unit.path, "failed", problems)


def _check_config(unit: Unit, limits: Limits, strict: bool, bases: Any) -> CheckedPath | None:
    """None for a file that was not named itself and that is no config of a trainer."""
    from estimator.request.files import named_base, read_config_file
    from estimator.request.trainers.keys import NoLoraError, UnknownTrainerError

    try:
        config = read_config_file(unit.path)
    except UnknownTrainerError as error:
        message = f"{error.what} {error.way_out[:1].upper()}{error.way_out[1:]}."
        return CheckedPath(unit.path, "skipped", (Problem("not_a_config", message),)) if unit.named else None
    except NoLoraError as error:
        return CheckedPath(unit.path, "skipped", (Problem("no_lora", error.what),))
    except NotFoundError as error:
        return _failed(unit, refused(error)) if unit.named else None
    except UnsupportedError as error:
        return _not_judged(unit, strict, error)
    base = named_base(config)
    if base is None:
        message = "Not judged: the config names no base model. Name it by its id on the Hub."
        return CheckedPath(unit.path, "failed" if strict else "skipped", (Problem("base_unknown", message),))
    if is_absolute(base) and not os.path.exists(os.path.expanduser(base)):
        return _failed(unit, local_base(base, "the base"))
    return _estimate(unit, limits, strict, bases)


def _estimate(unit: Unit, limits: Limits, strict: bool, bases: Any) -> CheckedPath:
    from estimator.jobs.estimate import estimate
    from estimator.report.document import to_document
    from estimator.request.request import Request

    try:
        document = to_document(estimate(Request(config=unit.path, offline=True), bases=bases))
    except LoraSizeError as error:
        if is_not_judged(error):
            return _not_judged(unit, strict, error)
        return _failed(unit, refused(error))
    problems = over_budget(
        limits,
        file_bytes=document["adapter"]["file"]["bytes"],
        parameters=document["adapter"]["parameters"],
        percent=document["totals"]["trainable_percent"],
    )
    problems += [Problem(n["code"], n["message"]) for n in document["notes"] if n["code"] == "nothing_trains"]
    return CheckedPath(unit.path, "failed" if problems else "ok", tuple(problems))


def _not_judged(unit: Unit, strict: bool, error: LoraSizeError) -> CheckedPath:
    return CheckedPath(unit.path, "failed" if strict else "skipped", (not_judged(error),))


_JUDGES = {"adapter": _check_folder, "config": _check_config, "weights": _check_weights, "missing": _check_missing}
