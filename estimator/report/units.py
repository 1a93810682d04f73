"""Numbers as people read them: decimal units, separators."""

from __future__ import annotations

_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")


def decimal_size(size: int) -> str:
    """Bytes in decimal units with one digit: 109086416 -> "109.1 MB"."""
    if size < 1000:
        return f"{size} bytes"
    value, power = float(size) / 1000, 0
    while value >= 999.95 and power < len(_UNITS) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.1f} {_UNITS[power]}"


def size_range(lower: int, upper: int) -> str:
    """The two with a "to" between, one where both read the same."""
    return " to ".join(dict.fromkeys((decimal_size(lower), decimal_size(upper))))


def exact_size(size: int) -> str:
    return f"{size:,} bytes"


def tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count:,} tensors"


def percent(value: float) -> str:
    """Three digits that count, without zeros at the end: 0.3395 -> "0.34 %"."""
    return f"{value:.3g} %" if value < 100 else f"{value:,.0f} %"
