"""Text of strangers, made fit for a terminal."""

from __future__ import annotations


def plain(text: object, limit: int = 300) -> str:
    """`text` on one line, at most `limit` characters, with everything that is not printable written as an escape."""
    whole = str(text)
    shown = "".join(letter if letter.isprintable() else _escaped(letter) for letter in whole[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def _escaped(letter: str) -> str:
    return " " if letter in "\n\r\t" else ascii(letter)[1:-1]
