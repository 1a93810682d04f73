"""Which config fields a class reads while it is built."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedConfig


@contextlib.contextmanager
def recorded() -> Iterator[set[str]]:
    """The names of the attributes read of any config inside the block, of whichever section."""
    found: set[str] = set()
    original = PreTrainedConfig.__getattribute__

    def recording(self: PreTrainedConfig, name: str) -> Any:
        found.add(name)
        return original(self, name)

    PreTrainedConfig.__getattribute__ = recording
    try:
        yield found
    finally:
        PreTrainedConfig.__getattribute__ = original


def with_aliases(names: set[str], config: PreTrainedConfig) -> set[str]:
    """The names, and what they stand for in the config and all below it."""
    found = set(names)
    for value in vars(config).values():
        if isinstance(value, PreTrainedConfig):
            found |= with_aliases(names, value)
    return found | {real for alias, real in (getattr(config, "attribute_map", None) or {}).items() if alias in names}
