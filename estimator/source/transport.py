"""One bounded GET, through huggingface_hub's own session.

What its client leaves open is closed here: redirects are followed one by one (redirects.py), the token goes to the
endpoint's origin alone, a body is read up to a limit and unpacked up to the same limit, and one clock runs over all.
"""

from __future__ import annotations

import re
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from estimator.errors import NetworkError, UsageError
from estimator.source.plain import plain
from estimator.source.redirects import origin, redirected, watching
from estimator.source.retries import patience
from estimator.source.side_by_side import out_of_time

if TYPE_CHECKING:
    import httpx2

MAX_REDIRECTS = 5
MAX_ERROR_BYTES = 65_536
_STALL_SECONDS = 10.0  # as huggingface_hub's HF_HUB_DOWNLOAD_TIMEOUT
_ATTEMPTS = 3
_GZIP = b"\x1f\x8b"
_ESCAPED = re.compile(r"\\u00([2-7][0-9A-Fa-f])")
ASKED = threading.Event()  # set when a request is on its way
_SENT = "http11.send_request_headers.complete"  # httpcore's name of that moment
_OF_THE_HUB = ("x-repo-commit", "x-linked-size", "x-error-code")


class TooLong(NetworkError):
    """A body over its limit."""


class Answer(NamedTuple):
    """The Hub's answer to one GET, redirects followed."""

    status: int
    headers: Mapping[str, str]  # of the last hop
    said: Mapping[str, str]  # by the hops on the Hub itself: commit, size of the file, error code
    body: bytes
    url: str  # that answered at last
    location: str | None  # where a redirect that was not followed leads


class Line(NamedTuple):
    """What every request to one Hub shares."""

    endpoint: str  # without a slash at the end
    token: str | None
    deadline: float  # of time.monotonic
    user_agent: str

    def silent(self, text: str) -> str:
        """A server's words without the token, should it have repeated it."""
        return text.replace(self.token, "<token>") if self.token else text


def get(
    line: Line,
    url: str,
    *,
    limit: int,
    span: tuple[int, int] | None = None,
    follow: bool = True,
    attempts: int = _ATTEMPTS,
) -> Answer:
    """The answer to GET `url`, its body of at most `limit` bytes. A `span` asks for those bytes, both ends included.

    Resets, time-outs, truncated bodies, 429 and 5xx are tried again, `attempts` times in all; the last answer comes
    back whatever its status. Raises NetworkError where there is none, the body is over the limit, or time is up.
    """
    import httpx2

    for attempt in range(1, attempts + 1):
        answer, fault = None, None
        try:
            answer = _follow(line, url, limit, span, follow)
        except (httpx2.TransportError, _Truncated) as error:
            fault = error
        wait = patience(attempt, answer.status if answer else None, answer.headers if answer else {}, fault)
        if wait is None or attempt == attempts or time.monotonic() + wait > line.deadline:
            break
        time.sleep(wait)
    if answer is None:
        raise _unreached(line, url, fault) from fault
    return answer


class _Truncated(Exception):
    """A packed body that ends before its end."""


def _follow(line: Line, url: str, limit: int, span: tuple[int, int] | None, follow: bool) -> Answer:
    client = _session()
    said: dict[str, str] = {}
    for _ in range(MAX_REDIRECTS + 1):
        if time.monotonic() >= line.deadline:
            raise out_of_time()
        response = _send(client, line, url, span)
        try:
            _check_silent(line, response.headers.items(), url)
            if origin(url) == origin(line.endpoint):
                _note_down(said, response)
            target = _target(line, url, response)
            if target is None or not follow:
                body = _body(line, response, limit, span)
                if line.token and response.status_code < 300 and _repeats(line.token, body):
                    raise _repeated(url)
                return Answer(response.status_code, response.headers, said, body, url, target)
            _body(line, response, MAX_ERROR_BYTES, None)  # read to its end, so that the connection serves the next hop
        finally:
            response.close()
        url = target
    what = f"the answer was redirected more than {MAX_REDIRECTS} times."
    raise NetworkError(what, where=shown(url), way_out="check HF_ENDPOINT and the proxy; the Hub itself needs two")


def _session() -> httpx2.Client:
    """huggingface_hub's session. Raises UsageError where the proxy's or the certificates' variables can't be used."""
    import httpx2
    from huggingface_hub.utils import get_session

    try:
        return get_session()
    except (ValueError, ImportError, OSError, TypeError, httpx2.InvalidURL) as error:
        what = f"no session can be opened: {plain(error, 120)}."
        where = "HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE"
        raise UsageError(what, where=where, way_out="correct or unset the variable that holds this") from error


def _check_silent(line: Line, headers: Iterable[tuple[str, str]], url: str) -> None:
    """Raises NetworkError where an answer repeats the token: nothing of it is shown, kept or followed to another host.

    The Hub's message is the exception; refusals.py takes the token out of it.
    """
    if line.token and any(line.token in value for name, value in headers if name != "x-error-message"):
        raise _repeated(url)


def _repeats(token: str, body: bytes) -> bool:
    """Whether a body holds the token, as it is or in JSON's escapes."""
    return token.encode() in body or (b"\\u00" in body and token in _unescaped(body))


def _unescaped(body: bytes) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), body.decode("latin-1"))


def _repeated(url: str) -> NetworkError:
    what = "the answer repeats the token that was sent, so it is not read."
    return NetworkError(what, where=shown(url), way_out="check HF_ENDPOINT; the Hub itself never does so")


def _note_down(said: dict[str, str], response: httpx2.Response) -> None:
    """Keep what a hop of the Hub says of the file. Raises NetworkError where two hops contradict each other."""
    for name in _OF_THE_HUB:
        value = response.headers.get(name)
        if value is not None and said.setdefault(name, value) != value:
            what = f"the Hub's redirect says {name} is {plain(said[name], 60)}, its target says {plain(value, 60)}."
            raise NetworkError(what, where=shown(str(response.url)), way_out="try again")


def _target(line: Line, url: str, response: httpx2.Response) -> str | None:
    if response.status_code not in (301, 302, 303, 307, 308):
        return None
    location = response.headers.get("location")
    return redirected(url, location, line.endpoint) if location else None


def _send(client: httpx2.Client, line: Line, url: str, span: tuple[int, int] | None) -> httpx2.Response:
    import httpx2

    headers = {"user-agent": line.user_agent, "accept-encoding": "gzip", "accept": "*/*"}
    if span is not None:
        headers |= {"range": f"bytes={span[0]}-{span[1]}", "accept-encoding": "identity"}
    elsewhere = origin(url) != origin(line.endpoint)
    if line.token and not elsewhere:
        headers["authorization"] = f"Bearer {line.token}"
    patience_seconds = max(0.1, min(_STALL_SECONDS, line.deadline - time.monotonic()))
    try:
        request = client.build_request(
            "GET", url, headers=headers, timeout=patience_seconds, extensions={"trace": _on_the_way}
        )
        request.headers.pop("cookie", None)  # a host's cookies would go to its other ports too
        if elsewhere:
            request.extensions["trace"] = watching(request.url.raw_host.decode("ascii"), url, line.endpoint)
        return client.send(request, stream=True, follow_redirects=False)
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, ValueError) as error:
        reason = "its host can be no name" if isinstance(error, UnicodeError) else plain(error, 120)
        what = f"no request can be made of this address: {reason}."
        raise NetworkError(
            what, where=shown(url), way_out="check HF_ENDPOINT, the proxy's address and the token"
        ) from error


def _on_the_way(event: str, _: Mapping[str, Any]) -> None:
    if event == _SENT:
        ASKED.set()


def _body(line: Line, response: httpx2.Response, limit: int, span: tuple[int, int] | None) -> bytes:
    """The body; of a whole file where a part was asked, no more than up to that part's end."""
    no_answer = response.status_code >= 300
    limit = MAX_ERROR_BYTES if no_answer else limit
    enough = span[1] + 1 if span and response.status_code == 200 else None
    limit = enough or limit  # what lies before the part is passed over
    length = response.headers.get("content-length", "")
    if enough is None and length.isdigit() and len(length) < 20 and int(length) > limit and not no_answer:
        raise _too_long(response, limit)
    body = bytearray()
    for piece in _unpacked(response, limit + 1):
        body += piece
        if time.monotonic() >= line.deadline:
            raise out_of_time()
        if enough is not None and len(body) >= enough:
            return bytes(body[span[0] : enough])  # type: ignore[index]
        if len(body) > limit:
            if no_answer:
                break
            raise _too_long(response, limit)
    return bytes(body[span[0] :] if enough is not None else body)  # type: ignore[index]


def _unpacked(response: httpx2.Response, most: int) -> Iterator[bytes]:
    """The body in pieces, unpacked; each piece of at most `most` bytes, whatever a packed body claims to hold."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        yield from response.iter_raw()
        return
    if coding not in ("gzip", "x-gzip"):
        what = f"the answer is packed as {plain(coding, 40)!r}, which was not asked for."
        raise NetworkError(what, where=shown(str(response.url)), way_out="check the proxy between here and the Hub")
    unpacker = zlib.decompressobj(31)
    for packed in response.iter_raw():
        while packed:
            if unpacker.eof:  # one packed piece may follow another (RFC 1952, 2.2); what else follows is no part of it
                if not packed.startswith(_GZIP):
                    break
                unpacker = zlib.decompressobj(31)
            try:
                yield unpacker.decompress(packed, most)
            except zlib.error as error:
                raise _Truncated("the packed answer is damaged") from error
            packed = unpacker.unconsumed_tail or unpacker.unused_data
    if not unpacker.eof:
        raise _Truncated("the packed answer ends too early")


def _too_long(response: httpx2.Response, limit: int) -> TooLong:
    what = f"the answer has more than the {limit:,} bytes that are read of it."
    return TooLong(
        what, where=shown(str(response.url)), way_out="this is not what a model's repository holds; check its id"
    )


def _unreached(line: Line, url: str, fault: Exception | None) -> NetworkError:
    if time.monotonic() >= line.deadline - 0.1:
        return out_of_time()
    reason = plain(line.silent(str(fault)), 120).rstrip(".") or type(fault).__name__
    what = f"the Hub was not reached: {reason}."
    way_out = "check the network, HF_ENDPOINT and the proxy; --offline answers from what is cached"
    return NetworkError(what, where=shown(url), way_out=way_out)


def shown(url: str) -> str:
    """An address fit for a message: without its query, which may hold a signature, and without a user's name."""
    parts = urlsplit(url)
    return plain(parts._replace(query="", fragment="", netloc=parts.netloc.rpartition("@")[2]).geturl())
