"""A word about what is waited for, to whoever has waited a second already."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AFTER_SECONDS = 1.0

Say = Callable[[str], None]  # shows a text in place of the one before; "" takes that away
_LISTENER: list[Say] = []


def listen(say: Say | None) -> None:
    """From now on `say` hears what this process is waiting for, whichever thread waits; None: nobody does."""
    _LISTENER[:] = [] if say is None else [say]


@contextmanager
def patiently(under_way: str = "") -> Iterator[Say]:
    """What is under way, and a function to tell what has become of it.

    Whoever listens hears the latest from the first second on, and "" at the end.
    """
    if not _LISTENER:
        yield lambda text: None
        return
    begun, latest, heard = time.monotonic(), [under_way], []

    def speak() -> None:
        for say in _LISTENER:
            heard.append(say)
            say(latest[0])

    def tell(text: str) -> None:
        latest[0] = text
        if time.monotonic() - begun >= AFTER_SECONDS:
            speak()

    alarm = threading.Timer(AFTER_SECONDS, speak)
    alarm.daemon = True
    alarm.start()
    try:
        yield tell
    finally:
        alarm.cancel()
        if heard:
            tell("")
