"""Work that waits for a network, started now and collected later, never later than a deadline.

Threads are daemons: a peer that keeps one waiting for ever can't keep the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from estimator.errors import NetworkError

T = TypeVar("T")
_TELL_EVERY = 0.2  # seconds


class Started(Generic[T]):
    """A call under way in a thread of its own."""

    def __init__(self, work: Callable[..., T], *arguments: Any, **named: Any) -> None:
        self._done = threading.Event()
        self._value: T | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, args=(work, arguments, named), daemon=True).start()

    def _run(self, work: Callable[..., T], arguments: Any, named: Any) -> None:
        try:
            self._value = work(*arguments, **named)
        except BaseException as error:  # handed to whoever collects
            self._error = error
        finally:
            self._done.set()

    def done_by(self, moment: float) -> bool:
        """Whether the call has ended, waiting until `moment` (of time.monotonic) at most."""
        return self._done.wait(max(0.0, moment - time.monotonic()))

    def value(self, deadline: float) -> T:
        """What the call returned; raises what it raised, or NetworkError once the deadline is past."""
        if not self.done_by(deadline):
            raise out_of_time()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


def out_of_time() -> NetworkError:
    """The error of a request whose time is up."""
    what = "the Hub's answers took longer than the time given."
    return NetworkError(what, where="--timeout", way_out="try again, or give more seconds with --timeout")


def each(
    work: Callable[[Any], T], items: Sequence[Any], *, workers: int, deadline: float, tell: Callable[[int], None]
) -> list[T]:
    """`work` of every item, in order, `workers` at a time; the first error ends all. `tell` hears how many are done."""
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    todo = iter(range(len(items)))
    lock = threading.Lock()

    def labour() -> None:
        while not errors:
            with lock:
                at = next(todo, None)
            if at is None:
                return
            try:
                results[at] = work(items[at])
            except BaseException as error:  # raised below, in the thread that asked
                errors.append(error)

    for member in [Started(labour) for _ in range(min(workers, len(items)))]:
        while not errors and not member.done_by(min(deadline, time.monotonic() + _TELL_EVERY)):
            if time.monotonic() >= deadline:
                raise out_of_time()
            tell(len(results))
    if errors:
        raise errors[0]
    return [results[at] for at in range(len(items))]
