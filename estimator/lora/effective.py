"""The config that PEFT ends up with, as adapter_config.json would hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from estimator.lora.prepare import Prepared
from estimator.request.lora_config import LoraConfig

_NAMES = tuple(field.name for field in fields(LoraConfig) if field.name != "unknown")
_MAX_NAMES = 10_000


def effective_config(prepared: Prepared) -> dict[str, Any]:
    """Field names of adapter_config.json, values that json.dumps takes."""
    config = prepared.config
    effective = {name: _plain(getattr(config, name)) for name in _NAMES}
    if prepared.late_modules_to_save:
        effective["modules_to_save"] = [*(effective["modules_to_save"] or ()), *prepared.late_modules_to_save]
    return effective


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)[:_MAX_NAMES]
    return dict(value) if isinstance(value, Mapping) else value
