"""What the reader of an answer must know beside the numbers."""

from __future__ import annotations

from typing import NamedTuple


class Note(NamedTuple):
    code: str  # stable, snake_case: what programs look for
    message: str  # one or two sentences for people
