"""Answers that are odd as HTTP, whatever they speak of.

Every row ends within its bound: right, or with one clean error.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable

import pytest

from estimator.errors import GatedError, LoraSizeError, MalformedConfigError, NetworkError, NotFoundError
from tests.hub.checks import CONFIG_TEXT, RIGHT, check, row
from tests.hub.faults import JSON, changed, go_to, header, raw, refuse, say
from tests.hub.handler import Fault, Handler
from tests.hub.models import COMMIT
from tests.hub.standin import StandIn


def packed(body: bytes, coding: str = "gzip") -> Fault:
    return say(body, headers={**JSON, "Content-Encoding": coding})


def ever_further(handler: Handler, right: Callable[[], None]) -> None:
    """A redirect that never comes to its end and never to the same place."""
    handler.reply(302, {"Location": f"{handler.path}?{len(handler.path)}"}, b"")


def answer(*lines: bytes, body: bytes = b"{}", status: bytes = b"200 OK") -> Fault:
    return raw(b"\r\n".join([b"HTTP/1.1 " + status, *lines, b"", body]))


def with_a_long_body(status: int, headers: dict[str, object], body: bytes) -> tuple[int, dict[str, object], bytes]:
    return status, {**headers, "Content-Encoding": "gzip"}, gzip.compress(b"a" * 50_000_000)


def renamed_to(id_: str) -> Fault:
    """Leads to the same file of another repository, which answers with the config itself."""

    def fault(handler: Handler, right: Callable[[], None]) -> None:
        if "/org/tiny/" in handler.path:
            handler.reply(307, {"Location": f"{handler.hub.endpoint}/{id_}/resolve/main/config.json"})
        else:
            handler.reply(200, {**JSON, "X-Repo-Commit": COMMIT}, CONFIG_TEXT)

    return fault


CHUNKED = b"Transfer-Encoding: chunked"
TWO = b"Content-Length: 2"

FRAMES = [
    row("cached config", answer(CHUNKED, body=b"FFFFFFFFFFFFFFFF\r\nabc"), NetworkError, id="a chunk of 2^64 bytes"),
    row("cached config", answer(CHUNKED, body=b"ZZ\r\nabc"), NetworkError, id="a chunk whose size is no number"),
    row("cached config", answer(CHUNKED, body=b"-1\r\nabc"), NetworkError, id="a chunk of minus one"),
    row("cached config", answer(CHUNKED, body=b"2\r\n{}\r\n"), NetworkError, id="chunks that never end"),
    row(
        "cached config", answer(CHUNKED, body=b"0\r\n" + b"X: y\r\n" * 50_000), NetworkError, id="trailers without end"
    ),
    row("cached config", answer(b"Transfer-Encoding: gzip, chunked"), NetworkError, id="packed chunks"),
    row("cached config", answer(b"Content-Length: " + b"9" * 30), NetworkError, id="a length of 30 digits"),
    row("cached config", answer(b"Content-Length: " + b"9" * 5_000), NetworkError, id="a length of 5,000 digits"),
    row("cached config", answer(b"Content-Length: +2"), NetworkError, id="a length with a sign"),
    row("cached config", answer(b"Content-Length: 10"), NetworkError, id="more promised than sent"),
    row("cached config", answer(b"Content-Length: 4", body=CONFIG_TEXT), MalformedConfigError, id="less promised"),
    row("cached config", raw(CONFIG_TEXT), NetworkError, id="no status line"),
    row("cached config", raw(b"HTTP/2 200\r\n\r\n{}"), NetworkError, id="another HTTP"),
    row("cached config", answer(TWO, status=b"999 X"), NetworkError, id="status 999"),
    row("cached config", answer(TWO, status=b"000 X"), NetworkError, id="status 000"),
    row("cached config", answer(TWO, status=b"-200 X"), NetworkError, id="a negative status"),
    row("cached config", answer(b"Upgrade: x", status=b"101 Switch"), NetworkError, id="another protocol"),
    row("cached config", answer(b"X: a\x00b", TWO), NetworkError, id="a NUL in a header"),
    row("cached config", answer(b"broken", TWO), NetworkError, id="a header without a colon"),
    row("cached config", answer(b"X: " + b"a" * 1_000_000, TWO), NetworkError, id="a header of a megabyte"),
    row("cached config", answer(*[b"X%d: y" % n for n in range(20_000)], TWO), NetworkError, id="20,000 headers"),
    row("cached config", refuse(206), NetworkError, id="a part that nobody asked for"),
    row("cached config", refuse(304), NetworkError, id="not modified since never"),
    row("cached config", refuse(416), NetworkError, id="no such part of the config"),
    row("cached config", answer(status=b"204 None", body=b""), NetworkError, id="no content"),
]

PACKED = [
    row("cached config", packed(gzip.compress(CONFIG_TEXT)), RIGHT, id="packed"),
    row("cached config", packed(gzip.compress(CONFIG_TEXT), "GZIP"), RIGHT, id="packed, in capitals"),
    row(
        "cached config", packed(gzip.compress(CONFIG_TEXT[:9]) + gzip.compress(CONFIG_TEXT[9:])), RIGHT, id="two packs"
    ),
    row("cached config", packed(gzip.compress(CONFIG_TEXT) + b"\0" * 99), RIGHT, id="zeros behind the pack"),
    row(
        "cached config",
        packed(gzip.compress(gzip.compress(CONFIG_TEXT)), "gzip, gzip"),
        NetworkError,
        id="packed twice",
    ),
    row("cached config", packed(b""), NetworkError, id="an empty pack"),
    row("cached config", packed(gzip.compress(CONFIG_TEXT)[:-4]), NetworkError, id="a pack without its end"),
    row("cached config", packed(gzip.compress(CONFIG_TEXT)[:-8] + b"\0" * 8), NetworkError, id="a pack of another sum"),
]

REDIRECTS = [
    row("resolve config", ever_further, NetworkError, "redirected", id="further and further"),
    row("resolve config", refuse(300), NetworkError, id="several choices"),
    row("resolve config", refuse(302), NetworkError, id="nowhere"),
    row("resolve config", go_to(""), NetworkError, id="to an empty address"),
    row("resolve config", go_to("http:///x"), NotFoundError, id="to this host, spelled oddly"),
    row("resolve config", go_to("//no.such.host.invalid/x"), NetworkError, id="to a host that is none"),
    row("resolve config", go_to("http://no.such.host.invalid/", 305), NetworkError, id="through a proxy"),
    row("resolve config", go_to("http://a..b/"), NetworkError, "can be no name", id="to a host with an empty part"),
    row("resolve config", go_to(f"http://{'a' * 64}.invalid/"), NetworkError, "can be no name", id="to a long host"),
    row("resolve config", changed(with_a_long_body), RIGHT, id="a redirect with 50 MB behind it, packed"),
    row("resolve config", renamed_to("a--b/c"), RIGHT, id="renamed to what no repository is called"),
    row("resolve config", renamed_to("x/.."), NotFoundError, id="renamed to what lies above"),
    row(
        "resolve config",
        raw("HTTP/1.1 302 X\r\nLocation: http://exämple.invalid/\u202e\r\nContent-Length: 0\r\n\r\n".encode()),
        NetworkError,
        id="to an address in Unicode",
    ),
]

REFUSED = [
    *(
        row("resolve config", refuse(status), NetworkError, str(status), id=f"status {status}")
        for status in (402, 405, 407, 410, 431, 451, 501, 505, 520, 599)
    ),
    row("resolve config", refuse(403, "DisabledRepo", "It is disabled."), GatedError, "disabled", id="disabled"),
    row("resolve config", say(b"<html><script>", 403), GatedError, "403", id="a portal's 403"),
    row("resolve config", say(b"<html>" + b"x" * 3_000_000, 403), GatedError, "403", id="3 MB of 403"),
    row("resolve config", refuse(403, "", "A" * 60_000), GatedError, "AAA...", id="60,000 letters of message"),
    row("resolve config", say(b'{"error":["a","b"]}', 403), GatedError, id="a list of messages"),
    row("resolve config", say(b"[" * 60_000, 403), GatedError, id="a nested message"),
    row("resolve config", say('{"error":"\u202e \\u001b[2J"}'.encode(), 403), GatedError, "\\x1b", id="escape codes"),
    row("resolve config", refuse(429, retry_after=-5), NetworkError, "few minutes", id="limited till before now"),
    row("resolve config", refuse(429, retry_after="1e99"), NetworkError, "few minutes", id="limited for a float"),
    row(
        "resolve config",
        refuse(429, retry_after="Fri, 31 Dec 9999 23:59:59 GMT"),
        NetworkError,
        "days",
        id="limited till the year 9999",
    ),
    row(
        "resolve config",
        refuse(429, retry_after="Mon, 01 Jan 2024 00:00:00 +9999"),
        NetworkError,
        id="limited till a date of no zone",
    ),
]

COMMITS = [
    row("resolve config", header("X-Repo-Commit", "\\x1b[31m"), RIGHT, id="a commit that is none"),
    row("resolve config", header("X-Repo-Commit", "A" * 40), RIGHT, id="a commit in capitals"),
    row("resolve config", header("X-Repo-Commit", "../../../etc"), RIGHT, id="a commit that leads out of the cache"),
    row("resolve config", header("X-Repo-Commit", ["a" * 40, "b" * 40]), RIGHT, id="two commits"),
]


@pytest.mark.parametrize(("route", "fault", "expected", "words"), [*FRAMES, *PACKED, *REDIRECTS, *REFUSED, *COMMITS])
def test_odd_answers_are_read_right_or_refused(
    hub: StandIn, route: str, fault: Fault, expected: type[LoraSizeError] | None, words: str
) -> None:
    hub.faults[route] = fault
    check("org/tiny", expected, words)
