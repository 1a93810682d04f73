"""Whether to ask again, and when: what passes by itself is retried, a lie is not."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

MAX_WAIT = 10.0  # seconds; whoever asks for more is reported instead
_PASSING = (408, 429, 500, 502, 503, 504)
_PAUSES = (0.3, 1.0, 2.0)  # seconds before the second, third, fourth attempt
# The IETF's draft as the Hub sends it: `ratelimit: "api";r=0;t=55`.
_RATE_LIMIT = re.compile(r"r\s*=\s*(\d{1,9})\s*;\s*t\s*=\s*(\d{1,9})")


def patience(attempt: int, status: int | None, headers: Mapping[str, str], fault: Exception | None) -> float | None:
    """Seconds to wait before asking again after attempt number `attempt`; None where asking again is no use."""
    if fault is None and status not in _PASSING:
        return None
    asked_for = come_back_in(headers) if status in (429, 503) else None
    if asked_for is not None:
        return asked_for if asked_for <= MAX_WAIT else None
    if type(fault).__name__ in ("ConnectTimeout", "ReadTimeout", "UnsupportedProtocol") and attempt > 1:
        return None
    return _PAUSES[min(attempt, len(_PAUSES)) - 1]


def come_back_in(headers: Mapping[str, str]) -> float | None:
    """Seconds until the Hub wants to be asked again, by Retry-After (seconds or a date) or RateLimit; or None."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    if value and (moment := _date(value)) is not None:
        return max(0.0, moment - time.time())
    match = _RATE_LIMIT.search(headers.get("ratelimit", ""))
    return float(match[2]) if match and int(match[1]) == 0 else None


def _date(value: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
