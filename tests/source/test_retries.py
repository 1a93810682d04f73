"""When to ask again."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from estimator.source.retries import MAX_WAIT, come_back_in, patience


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({}, None, id="not said"),
        pytest.param({"retry-after": "5"}, 5.0, id="seconds"),
        pytest.param({"retry-after": " 0 "}, 0.0, id="at once"),
        pytest.param({"retry-after": "-5"}, None, id="before now"),
        pytest.param({"retry-after": "1.5"}, None, id="not whole"),
        pytest.param({"retry-after": "\u0665"}, None, id="digits of another script"),
        pytest.param({"retry-after": "9" * 400}, 999_999_999.0, id="for ever"),
        pytest.param({"retry-after": "soon"}, None, id="a word"),
        pytest.param({"retry-after": "Wed, 99 Foo 2015 07:28:00 GMT"}, None, id="no date"),
        pytest.param({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0, id="a date gone by"),
        pytest.param({"ratelimit": '"api";r=0;t=55'}, 55.0, id="the draft's words"),
        pytest.param({"ratelimit": '"api";r=7;t=55'}, None, id="some are left"),
        pytest.param({"retry-after": "3", "ratelimit": '"api";r=0;t=55'}, 3.0, id="both"),
    ],
)
def test_the_hub_says_when_to_come_back(headers: dict[str, str], seconds: float | None) -> None:
    assert come_back_in(headers) == seconds


def test_come_back_at_a_date() -> None:
    seconds = come_back_in({"retry-after": formatdate(time.time() + 100, usegmt=True)})
    assert seconds == pytest.approx(100, abs=3)


@pytest.mark.parametrize(
    ("status", "headers", "again"),
    [
        pytest.param(200, {}, False, id="an answer"),
        pytest.param(404, {}, False, id="missing"),
        pytest.param(403, {}, False, id="forbidden"),
        pytest.param(501, {}, False, id="not implemented"),
        pytest.param(500, {}, True, id="a failure"),
        pytest.param(503, {"retry-after": "1"}, True, id="down, back soon"),
        pytest.param(503, {"retry-after": "600"}, False, id="down for long"),
        pytest.param(429, {"retry-after": str(int(MAX_WAIT) + 1)}, False, id="limited, too long to wait"),
    ],
)
def test_what_passes_by_itself_is_asked_again(status: int, headers: dict[str, str], again: bool) -> None:
    assert (patience(1, status, headers, None) is not None) is again
