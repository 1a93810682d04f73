"""Packed layers on which a class fails as it loads: its `_init_weights` reads a `weight` that is not there.

transformers 5.23.0, `initialize_weights`: every module is handed to it, loaded or not (read_weights.facts).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from estimator.architecture.module import Module


def first_read(modules: Iterable[Module], packed: Iterable[str], *, linear: bool) -> tuple[str, str] | None:
    """The first of the packed that is asked for its `weight`, and the class that asks; None for none.

    linear: they are still instances of torch.nn.Linear.
    """
    classes = {module.name: module.cls for module in modules}
    for name in packed:
        parts = name.split(".")
        for depth in reversed(range(len(parts))):
            cls, own = classes.get(".".join(parts[:depth]), ""), re.sub(r"\b\d+\b", "#", ".".join(parts[depth:]))
            read = _read_weights().get(cls, ())
            if own in read or (linear and f"={own}" in read):
                return name, cls
    return None


@cache
def _read_weights() -> dict[str, tuple[str, ...]]:
    """The layers whose `weight` is read as a model loads, by the class around them."""
    text = Path(__file__).with_name("read_weights.facts").read_text(encoding="utf-8")
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {cls: tuple(names) for cls, *names in lines}
