"""JSON of strangers, parsed only where the result fits in memory.

A byte of JSON can become thirty of Python ("{}," is 3 bytes and makes an object of 64), so the bound is on what the
structure will cost, estimated from a count of its brackets and commas, not on the length of the text alone.
"""

from __future__ import annotations

import gc
import json
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from typing import Any

MAX_TEXT_BYTES = 64_000_000
MAX_PARSED_BYTES = 220_000_000
_ALWAYS_FITS = 2_000_000  # bytes of text: at 80 bytes for each, still below the bound
# CPython 3.11: a dict of up to 5 keys, a list with room for 4, and what a comma parts: a pointer and a short value.
_COSTS = ((b"{", 232), (b"[", 88), (b",", 80))


class NotUsable(ValueError):
    """Why a text can't be read as JSON, in a few words."""


def parsed_bytes(text: bytes) -> int:
    """About how many bytes the parsed object of a JSON text takes, the decoded text included; never far too few."""
    width = 1 if text.isascii() else 4
    return len(text) * width + sum(text.count(mark) * cost for mark, cost in _COSTS)


def check_affordable(text: bytes, *, most: int = MAX_PARSED_BYTES) -> None:
    """Raises NotUsable where parsing `text` would take more memory than anything honest needs: `most` bytes."""
    if len(text) > MAX_TEXT_BYTES:
        raise NotUsable(f"it has over {MAX_TEXT_BYTES:,} bytes")
    if len(text) > _ALWAYS_FITS and (cost := parsed_bytes(text)) > most:
        raise NotUsable(f"its {len(text):,} bytes would take about {cost:,} in memory")


def parse_json(text: bytes, *, most: int = MAX_PARSED_BYTES, lenient: bool = False) -> Any:
    """The value of a JSON text. Raises NotUsable for what is none, is nested too deeply, or takes over `most` bytes.

    `lenient` lets through NaN and Infinity, which Python writes and reads.
    """
    check_affordable(text, most=most)
    collecting = gc.isenabled()
    gc.disable()  # nothing that a parser makes is garbage, and looking for it takes half as long again
    try:
        return json.loads(text.decode(), parse_constant=None if lenient else _no_constant)
    except UnicodeDecodeError as error:
        other = "UTF-16, " if text.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else ""
        raise NotUsable(f"it is {other}not UTF-8 (byte {error.start:,})") from error
    except RecursionError as error:
        raise NotUsable("it is nested too deeply") from error
    except ValueError as error:
        reason = "a number in it has thousands of digits" if "set_int_max_str_digits" in str(error) else error
        raise NotUsable(f"it is not JSON ({reason})") from error
    finally:
        if collecting:
            gc.enable()


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number of JSON")
