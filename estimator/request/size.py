"""Sizes as people write them: 24GB, 24GiB, 24G or bytes."""

from __future__ import annotations

import re

from estimator.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|k|m|g|t)(i?)(b?)", re.IGNORECASE)
_STEPS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_LONGEST = 40  # characters


def parse_size(text: str, where: str) -> int:
    """Bytes; a thousand of them are a kB, 1,024 a KiB. Raises UsageError for what is no size."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or len(text) > _LONGEST or (match[3] and not match[2]):
        raise UsageError(f"{text[:60]!r} is no size.", where=where, way_out="write 24GB, 24GiB or a number of bytes")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _STEPS[match[2].lower()])
