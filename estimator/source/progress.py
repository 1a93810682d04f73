"""A word about what is waited for, to whoever has waited a second already."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AFTER_SECONDS = 1.0


@contextmanager
def patiently(say: Callable[[str], None] | None) -> Iterator[Callable[[str], None]]:
    """A function to tell what is under way: `say` hears the latest from the first second on, and "" at the end."""
    if say is None:
        yield lambda text: None
        return
    begun, latest, heard = time.monotonic(), [""], []

    def speak() -> None:
        heard.append(latest[0])
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
            say("")
