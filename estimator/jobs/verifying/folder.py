"""A temporary folder that is gone when the run ends, be it by ctrl-C or by a signal that would end it at once."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
from collections.abc import Iterator
from types import FrameType

PREFIX = "lora-size-verify-"
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextlib.contextmanager
def temporary_folder() -> Iterator[str]:
    """Its path. SIGTERM and SIGHUP, which end Python without unwinding, become a SystemExit while it is there."""
    with _unwinding(), tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        yield folder


@contextlib.contextmanager
def _unwinding() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = {number: signal.signal(number, _leave) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
