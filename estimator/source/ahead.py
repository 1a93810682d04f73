"""A model that is asked for before it is needed, so that the network is waited for while the rest is still imported.

First the request, then the imports: threads that import side by side only keep each other from the processor.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from estimator.source.find import answers_without_network, find
from estimator.source.found import Found

if TYPE_CHECKING:
    from estimator.source.side_by_side import Started

_LONGEST_START = 2.0  # seconds that the caller waits for the first request to be sent
_MARGIN_SECONDS = 30.0  # over the time that the Hub is given, for what is read after its last answer


_STARTED: dict[tuple[Any, ...], Started[Found]] = {}


def start(model: str | None, **how: Any) -> None:
    """Begin to find a model, where that takes a network; `collect` with the same arguments gets the answer.

    Comes back once something is asked for, or nothing has to be.
    """
    if model and not answers_without_network(model, **how):
        from estimator.source.side_by_side import Started  # nothing of a network is imported where none is used
        from estimator.source.transport import ASKED

        ASKED.clear()
        _STARTED[_key(model, how)] = Started(_find, model, asked=ASKED, **how)
        ASKED.wait(_LONGEST_START)


def _find(model: str, *, asked: threading.Event, **how: Any) -> Found:
    try:
        return find(model, **how)
    finally:
        asked.set()


def waits(model: str) -> bool:
    """Whether a call for the model is under way."""
    return any(key[0] == model for key in _STARTED)


def collect(model: str, **how: Any) -> Found:
    """What `find` answers, from the call that `start` began if it did. Raises what `find` raises."""
    if (key := _key(model, how)) not in _STARTED:
        return find(model, **how)
    return _STARTED.pop(key).value(time.monotonic() + how["timeout"] + _MARGIN_SECONDS)


def _key(model: str, how: dict[str, Any]) -> tuple[Any, ...]:
    return (model, *sorted(how.items()))
