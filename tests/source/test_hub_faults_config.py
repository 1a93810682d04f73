"""config.json, or the redirect that leads to it, answers wrongly.

Every row ends within its bound: right, or with one clean error.
"""

from __future__ import annotations

import pytest

from estimator.errors import (
    GatedError,
    LoraSizeError,
    MalformedConfigError,
    NetworkError,
    NotFoundError,
)
from tests.hub.checks import CONFIG_TEXT, HTML, NESTED, OTHER_COMMIT, RIGHT, check, row
from tests.hub.faults import (
    bomb,
    cut,
    drip_head,
    endless,
    go_to,
    hang_up,
    header,
    packed,
    raw,
    refuse,
    say,
    silence,
    times,
)
from tests.hub.handler import Fault
from tests.hub.standin import StandIn

# config.json names the commit and holds the architecture: without it there is no answer.
CONFIG_ROWS = [
    row(
        "resolve config", refuse(401, "RepoNotFound"), NotFoundError, "hf auth login", id="missing or private, no token"
    ),
    row("resolve config", refuse(404, "RepoNotFound"), NotFoundError, "org/tiny", id="missing"),
    row("resolve config", refuse(401, "GatedRepo"), GatedError, "ask for access at", id="gated, no token"),
    row("resolve config", refuse(403, "GatedRepo"), GatedError, "ask for access at", id="gated, asked but not granted"),
    row("resolve config", refuse(403, "", "Forbidden by policy"), GatedError, "Forbidden by policy", id="forbidden"),
    row("resolve config", refuse(404, "RevisionNotFound"), NotFoundError, "no revision", id="no such revision"),
    row(
        "resolve config",
        refuse(401, "", "Invalid credentials in Authorization header"),
        GatedError,
        "does not accept",
        id="bad token",
    ),
    row("resolve config", refuse(400), NetworkError, "400", id="bad request"),
    row("resolve config", refuse(410), NetworkError, "410", id="gone"),
    row("resolve config", refuse(451, "", "Unavailable for legal reasons"), NetworkError, "legal", id="legal reasons"),
    row("resolve config", refuse(418), NetworkError, "418", id="a teapot"),
    row("resolve config", refuse(500), NetworkError, "500", id="fails each time"),
    row("resolve config", times(1, refuse(500)), RIGHT, id="fails once"),
    row("resolve config", times(2, refuse(502)), RIGHT, id="a bad gateway twice"),
    row("resolve config", say(CONFIG_TEXT), RIGHT, id="a mirror that sends the config at once"),
    row("resolve config", times(1, refuse(503, retry_after=0)), RIGHT, id="down for a moment"),
    row("resolve config", times(1, refuse(429, Retry_After="0")), RIGHT, id="limited for a moment"),
    row("resolve config", refuse(429, retry_after=7200), NetworkError, "7,200 seconds", id="limited for two hours"),
    row("resolve config", refuse(429, retry_after="9" * 5000), NetworkError, "rate limit", id="limited for ever"),
    row(
        "resolve config",
        refuse(429, retry_after="Wed, 21 Oct 2099 07:28:00 GMT"),
        NetworkError,
        "days",
        id="limited till a date",
    ),
    row("resolve config", refuse(429, retry_after="soon"), NetworkError, "rate limit", id="limited for nonsense"),
    row(
        "resolve config",
        refuse(429, ratelimit='"api";r=0;t=300'),
        NetworkError,
        "300 seconds",
        id="limited, in the draft's words",
    ),
    row("resolve config", times(1, hang_up), RIGHT, id="hangs up once"),
    row("resolve config", hang_up, NetworkError, "not reached", id="hangs up each time"),
    row("resolve config", raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000), NetworkError, id="headers without end"),
    row("resolve config", raw(b"HTTP/1.1 999 \x1b[31mred\r\n\r\n"), NetworkError, id="an unknown status"),
    row(
        "resolve config", raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}"), NetworkError, id="a negative length"
    ),
    row(
        "resolve config",
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
        NetworkError,
        id="two lengths",
    ),
    row("resolve config", raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 50_000), NetworkError, id="continue, continue"),
    row("resolve config", silence(60), NetworkError, "--timeout", id="config never answers"),
    row("resolve config", drip_head(), NetworkError, "--timeout", id="config's headers drip"),
    row("resolve config", refuse(307), NetworkError, "307", id="a redirect to nowhere"),
    row("resolve config", go_to("file:///etc/passwd"), NetworkError, "not followed", id="redirected to a file"),
    row("resolve config", go_to("ftp://example.com/config.json"), NetworkError, "not followed", id="redirected to ftp"),
    row("resolve config", go_to("gopher://127.0.0.1:70/"), NetworkError, "not followed", id="redirected to gopher"),
    row(
        "resolve config",
        go_to("http://10.0.0.1/config.json"),
        NetworkError,
        "private",
        id="redirected into a private network",
    ),
    row("resolve config", go_to("http://192.168.1.1/"), NetworkError, "private", id="redirected to a router"),
    row(
        "resolve config", go_to("http://[fd00::1]/"), NetworkError, "private", id="redirected to a private IPv6 address"
    ),
    row(
        "resolve config",
        go_to("http://[fe80::1]/"),
        NetworkError,
        "link-local",
        id="redirected to a link-local address",
    ),
    row(
        "resolve config",
        go_to("http://[::ffff:169.254.169.254]/"),
        NetworkError,
        "link-local",
        id="an IPv4 address in IPv6",
    ),
    row(
        "resolve config",
        go_to("http://2852039166/latest"),
        NetworkError,
        "link-local",
        id="an address written as one number",
    ),
    row(
        "resolve config",
        go_to("http://user:pass@127.0.0.1/"),
        NetworkError,
        "password",
        id="redirected with a password",
    ),
    row(
        "resolve config",
        go_to("http://127.0.0.1:99999/"),
        NetworkError,
        "not followed",
        id="redirected to a port that is none",
    ),
    row("resolve config", go_to("http://:80/config.json"), NetworkError, "not followed", id="redirected to no host"),
    row("resolve config", go_to("/x" * 9_000), NetworkError, "not followed", id="redirected to an endless address"),
    row(
        "resolve config",
        go_to(lambda handler: handler.path),
        NetworkError,
        "redirected more than",
        id="config redirected to itself",
    ),
    row("resolve config", header("X-Repo-Commit", "../../../etc"), RIGHT, id="a commit that is none"),
    row(
        "cached config",
        header("X-Repo-Commit", OTHER_COMMIT),
        NetworkError,
        OTHER_COMMIT,
        id="config of another commit",
    ),
    row("cached config", refuse(404, "EntryNotFound"), NotFoundError, id="config vanishes behind its redirect"),
    row("cached config", refuse(500), NetworkError, "500", id="config fails behind its redirect"),
    row("cached config", times(1, cut(20)), RIGHT, id="config cut off once"),
    row("cached config", cut(20), NetworkError, id="config cut off each time"),
    row("cached config", say(CONFIG_TEXT[:40]), MalformedConfigError, "JSON", id="config ends in the middle"),
    row(
        "cached config",
        say(HTML, headers={"Content-Type": "text/html"}),
        MalformedConfigError,
        id="a captive portal instead of config",
    ),
    row("cached config", say(b""), MalformedConfigError, id="an empty config"),
    row("cached config", say(b"[]"), MalformedConfigError, "list", id="config is a list"),
    row("cached config", say(b"null"), MalformedConfigError, id="config is null"),
    row("cached config", say(NESTED), MalformedConfigError, "nested", id="config nested 200,000 deep"),
    row(
        "cached config",
        say(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        MalformedConfigError,
        id="objects nested 50,000 deep",
    ),
    row(
        "cached config",
        say(b'{"hidden_size":' + b"9" * 6_000 + b"}"),
        MalformedConfigError,
        id="a size of 6,000 digits",
    ),
    row("cached config", say(b'{"hidden_size":"large"}'), MalformedConfigError, "hidden_size", id="a size in words"),
    row("cached config", say(b'{"architectures":"\\u001b[31m"}'), MalformedConfigError, id="escape codes in config"),
    row(
        "cached config",
        say(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        MalformedConfigError,
        id="a pointer",
    ),
    row("cached config", say(b" " * 30_000_000 + CONFIG_TEXT), MalformedConfigError, "too large", id="30 MB of config"),
    row("cached config", endless(b" " * 1_000_000), MalformedConfigError, "too large", id="config without end"),
    row("cached config", bomb(), MalformedConfigError, "too large", id="config as a bomb"),
    row("cached config", packed(CONFIG_TEXT), RIGHT, id="config packed"),
    row("cached config", endless(b"a", pause=0.05), NetworkError, "--timeout", id="config drips"),
]


@pytest.mark.parametrize(("route", "fault", "expected", "words"), CONFIG_ROWS)
def test_faults_on_the_way_to_the_config(
    hub: StandIn, route: str, fault: Fault, expected: type[LoraSizeError] | None, words: str
) -> None:
    hub.faults[route] = fault
    check("org/tiny", expected, words)
