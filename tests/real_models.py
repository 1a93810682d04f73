"""Tiny models that transformers really builds, for the judges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest


def tiny_model(name: str, fields: Mapping[str, Any]) -> Any:
    """A model of the class with weights as the class makes them; skips where torch or transformers is missing."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    cls = getattr(transformers, name)
    torch.manual_seed(0)
    return cls(cls.config_class(**fields))
