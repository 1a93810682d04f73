"""What can go wrong with an answer, each as a fault that takes the place of a route's right answer."""

from __future__ import annotations

import gzip
import itertools
import time
import zlib
from collections.abc import Callable, Mapping

from tests.hub.handler import Fault, Handler
from tests.hub.models import File

JSON = {"Content-Type": "application/json"}
Right = Callable[[], None]


def refuse(status: int, code: str = "", message: str = "", **headers: object) -> Fault:
    """A status, with the Hub's own code and message."""

    def fault(handler: Handler, right: Right) -> None:
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        if code:
            extra["X-Error-Code"] = code
        if message:
            extra["X-Error-Message"] = message
        handler.reply(status, {**JSON, **extra}, b'{"error":"%s"}' % (message or code or "error").encode())

    return fault


def say(body: bytes, status: int = 200, headers: Mapping[str, object] = JSON) -> Fault:
    """Another body."""
    return lambda handler, right: handler.reply(status, headers, body)


def times(number: int, fault: Fault) -> Fault:
    """The fault `number` times, then the right answer."""
    left = itertools.count()
    return lambda handler, right: fault(handler, right) if next(left) < number else right()


def after(number: int, fault: Fault) -> Fault:
    """The right answer `number` times, then the fault."""
    left = itertools.count()
    return lambda handler, right: right() if next(left) < number else fault(handler, right)


def go_to(location: str | Callable[[Handler], str], status: int = 302, **headers: object) -> Fault:
    """A redirect."""

    def fault(handler: Handler, right: Right) -> None:
        target = location(handler) if callable(location) else location
        handler.reply(status, {"Location": target, **{k.replace("_", "-"): v for k, v in headers.items()}}, b"")

    return fault


def raw(*pieces: bytes, pause: float = 0.0) -> Fault:
    """These bytes on the wire, then the end of the connection."""

    def fault(handler: Handler, right: Right) -> None:
        for piece in pieces:
            handler.wfile.write(piece)
            handler.wfile.flush()
            time.sleep(pause)
        handler.close_connection = True

    return fault


def hang_up(handler: Handler, right: Right) -> None:
    """No answer at all."""
    handler.close_connection = True


def silence(seconds: float) -> Fault:
    """Nothing for a while, then the right answer."""

    def fault(handler: Handler, right: Right) -> None:
        time.sleep(seconds)
        right()

    return fault


def cut(bytes_sent: int) -> Fault:
    """The right answer's length promised, and less of the body sent."""

    def fault(handler: Handler, right: Right) -> None:
        whole, sent = handler.body, 0

        def some(piece: bytes) -> None:
            nonlocal sent
            whole(piece[: max(0, bytes_sent - sent)])
            sent += len(piece)

        handler.body = some  # type: ignore[method-assign]
        right()
        handler.close_connection = True

    return fault


def endless(piece: bytes, headers: Mapping[str, object] = JSON, status: int = 200, pause: float = 0.0) -> Fault:
    """A body that never ends."""

    def fault(handler: Handler, right: Right) -> None:
        handler.reply(status, {**headers, "Connection": "close"}, b"", length=False)
        handler.close_connection = True
        for _ in range(100_000):
            handler.body(piece)
            time.sleep(pause)

    return fault


def drip_head(pause: float = 0.05) -> Fault:
    """Headers that never end, a few bytes at a time."""

    def fault(handler: Handler, right: Right) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(10_000):
            handler.wfile.write(b"a")
            handler.wfile.flush()
            time.sleep(pause)

    return fault


def packed(body: bytes, coding: str = "gzip", claimed: str | None = None, cut_to: int | None = None) -> Fault:
    """The body in a packed form, perhaps under the wrong name or cut off."""
    text = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    headers = {**JSON, "Content-Encoding": claimed or coding}
    return say(text[:cut_to], headers=headers)


def bomb(size: int = 2_000_000_000) -> Fault:
    """A few megabytes of gzip that hold `size` bytes."""

    def fault(handler: Handler, right: Right) -> None:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        handler.reply(200, {**JSON, "Content-Encoding": "gzip", "Connection": "close"}, b"", length=False)
        handler.close_connection = True
        zeros = b"[" * 1_000_000
        for _ in range(size // len(zeros)):
            handler.body(packer.compress(zeros))
        handler.body(packer.flush())

    return fault


def changed(change: Callable[[int, dict[str, object], bytes], tuple[int, dict[str, object], bytes]]) -> Fault:
    """The right answer with something changed in its status, headers or body."""

    def fault(handler: Handler, right: Right) -> None:
        send = handler.reply

        def reply(status: int, headers: Mapping[str, object] = {}, body: bytes = b"", *, length: bool = True) -> None:
            new_status, new_headers, new_body = change(status, dict(headers), body)
            send(new_status, new_headers, new_body, length=length)

        handler.reply = reply  # type: ignore[method-assign]
        try:
            right()
        finally:
            del handler.reply

    return fault


def header(name: str, value: object) -> Fault:
    """The right answer with one header changed, or left out where the value is None."""

    def change(status: int, headers: dict[str, object], body: bytes) -> tuple[int, dict[str, object], bytes]:
        headers = {known: old for known, old in headers.items() if known.lower() != name.lower()}
        return status, headers if value is None else {**headers, name: value}, body

    return changed(change)


def replaced(old: bytes, new: bytes) -> Fault:
    """The right answer with some of its body's bytes replaced."""
    return changed(lambda status, headers, body: (status, headers, body.replace(old, new)))


def as_file(file: File) -> Fault:
    """Another file than the one asked for."""
    return lambda handler, right: handler.hub.send_file(handler, file)
