"""The two servers of the stand-in Hub: how a request is read, answered and written down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from tests.hub.standin import StandIn


class Seen(NamedTuple):
    server: str  # "hub" | "cdn"
    route: str
    path: str
    headers: Mapping[str, str]
    status: int
    sent: int  # bytes of the body


Fault = Callable[["Handler", Callable[[], None]], None]  # gets the handler and the right answer to send


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    hub: StandIn
    name: str
    route = ""

    def setup(self) -> None:
        super().setup()
        self.hub.connections[self.name] += 1
        time.sleep(self.hub.latency)

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self.status, self.sent = 0, 0
        with self.hub.under_way(self):
            self._answer()

    def _answer(self) -> None:
        time.sleep(self.hub.latency)
        at_hub = self.name == "hub"
        path = urlsplit(self.path).path.removeprefix(self.hub.prefix if at_hub else "").strip("/")
        parts = [unquote(part) for part in path.split("/")]  # a branch's slash comes encoded
        self.route, right = self.hub.answer(self, parts) if at_hub else self.hub.answer_cdn(self, parts)
        fault = self.hub.faults.get(self.route)
        try:
            right() if fault is None else fault(self, right)
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError, ValueError):
            self.close_connection = True

    def reply(self, status: int, headers: Mapping[str, object] = {}, body: bytes = b"", *, length: bool = True) -> None:
        """Send one answer. Content-Length is the body's unless the headers say otherwise or `length` is off."""
        self.status = status
        self.send_response_only(status)
        given = {name.lower() for name in headers}
        for name, value in headers.items():
            for one in value if isinstance(value, list) else [value]:
                self.send_header(name, str(one))
        if length and "content-length" not in given:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.body(body)

    def body(self, piece: bytes) -> None:
        """Send a piece of a body, at once."""
        if self.command != "HEAD":
            self.wfile.write(piece)
            self.wfile.flush()
            self.sent += len(piece)

    def json(self, status: int, value: object, headers: Mapping[str, object] = {}) -> None:
        body = json.dumps(value, separators=(",", ":")).encode()
        self.reply(status, {"Content-Type": "application/json; charset=utf-8", **headers}, body)

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        headers = {"X-Error-Code": code} if code else {}
        if message:
            headers["X-Error-Message"] = message
        self.json(status, {"error": message or code or "error"}, headers)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *arguments: object) -> None:
        pass
