"""Tiny models that transformers really builds, for the judges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

SMALL = {
    "hidden_size": 48,
    "intermediate_size": 90,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 101,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}  # two query heads share a key and a value


def tiny_model(name: str, fields: Mapping[str, Any]) -> Any:
    """A model of the class with weights as the class makes them; skips where torch or transformers is missing."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    cls = getattr(transformers, name)
    torch.manual_seed(0)
    return cls(cls.config_class(**fields))
