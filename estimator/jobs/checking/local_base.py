"""A base that is named by its place on one machine, where nobody else finds it."""

import re

from estimator.report.findings import Problem
from estimator.source.find import named_like

_ABSOLUTE = re.compile(r"/|~|[A-Za-z]:[\\/]|\\\\")  # of Unix, of Windows


def is_absolute(base: str) -> bool:
    return _ABSOLUTE.match(base) is not None


def local_base(base: str, field: str) -> Problem:
    """What is wrong with a base that `field` of a config names so and that is not here."""
    like = named_like(base)
    known = f", such as {like}" if like else ""
    message = f"{field} is {base[:200]!r}, a path of one machine. Name it by its id on the Hub{known}."
    return Problem("base_is_local_path", message)
