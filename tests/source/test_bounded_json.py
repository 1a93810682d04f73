"""What is parsed, what is not, and how a stranger's text is shown."""

from __future__ import annotations

import gc

import pytest

from estimator.source.bounded_json import NotUsable, parse_json
from estimator.source.plain import plain


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(b"", "not JSON", id="nothing"),
        pytest.param(b"{", "not JSON", id="half"),
        pytest.param(b"NaN", "NaN is not a number", id="NaN"),
        pytest.param(b"[-Infinity]", "Infinity", id="infinity"),
        pytest.param(b"\xff", "not UTF-8", id="not UTF-8"),
        pytest.param(b"[" * 100_000, "nested", id="nested too deeply"),
        pytest.param(b"9" * 5_000, "a number in it has thousands of digits", id="too many digits"),
        pytest.param("{}".encode("utf-16"), "it is UTF-16, not UTF-8", id="UTF-16"),
        pytest.param(b"[" + b"{}," * 1_000_000 + b"{}]", "in memory", id="would fill the memory"),
        pytest.param(b" " * 64_000_001, "over 64,000,000 bytes", id="too long"),
    ],
)
def test_json_that_is_none_or_too_large_is_not_usable(text: bytes, reason: str) -> None:
    with pytest.raises(NotUsable, match=reason):
        parse_json(text)
    assert gc.isenabled()


def test_plain_json_is_usable() -> None:
    assert parse_json('{"a": [1, 2.5, "\u00e9"]}'.encode()) == {"a": [1, 2.5, "\u00e9"]}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("org/name", "org/name", id="plain"),
        pytest.param("a\nb\tc", "a b c", id="lines"),
        pytest.param("\x1b[31mred\x07", "\\x1b[31mred\\x07", id="escape codes"),
        pytest.param("\u202egnp.exe", "\\u202egnp.exe", id="turned around"),
        pytest.param("\ud800", "\\ud800", id="half a surrogate pair"),
        pytest.param("gr\u00fc\u00dfe \u4f60\u597d", "gr\u00fc\u00dfe \u4f60\u597d", id="letters of the world"),
        pytest.param("a" * 30, "a" * 17 + "...", id="too long"),
        pytest.param(7, "7", id="a number"),
    ],
)
def test_text_of_strangers_is_one_printable_line(text: object, shown: str) -> None:
    assert plain(text, 20) == shown
