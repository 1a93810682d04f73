"""Which layers keep no more than a window of tokens: as config.json says, else as transformers' class has it.

windows.facts: model type, window (- for none), and `all` or one period of layers (s: a window, f: all tokens), behind a
+ the last layer where it is of another kind. Written by `python -m estimator.sizes.memory.generate_windows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

WINDOWED = ("sliding_attention", "chunked_attention", "hybrid_sliding")  # kinds of layers
_OF_ALL = "attention_window_size"  # names the window of all attention (configuration_recurrent_gemma.py)
FIELDS = ("sliding_window", "attention_chunk_size", _OF_ALL)  # that name the window


class Rule(NamedTuple):
    """Which layers of a model type keep a window of tokens: windows.facts, line by line."""

    window: int | None
    period: str
    last: str


def is_windowed(config: Mapping[str, Any], number: int, layers: int) -> bool:
    """Of layer `number` of `layers`; config: the part of config.json that tells of the language model."""
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        return number < len(kinds) and kinds[number] in WINDOWED
    if window_tokens(config) is None or not config.get("use_sliding_window", True):
        return False
    pattern = config.get("sliding_window_pattern")
    if type(pattern) is int and pattern > 0:  # Gemma 3's older way to say it
        return (number + 1) % pattern != 0
    rule = _facts().get(str(config.get("model_type")))
    if rule is None:
        return _OF_ALL in config
    letter = rule.last if rule.last and number == layers - 1 else rule.period[number % len(rule.period)]
    return letter == "s"


def window_tokens(config: Mapping[str, Any]) -> int | None:
    """None where there is no window: the config says so with null, or neither it nor the class names one."""
    named = [config[name] for name in FIELDS if name in config]
    if named:
        return next((value for value in named if type(value) is int and value > 0), None)
    rule = _facts().get(str(config.get("model_type")))
    return rule.window if rule else None


@cache
def _facts() -> dict[str, Rule]:
    text = Path(__file__).with_name("windows.facts").read_text(encoding="utf-8")
    return dict(_rule(*line.split()) for line in text.splitlines() if not line.startswith("#"))


def _rule(kind: str, window: str, layers: str) -> tuple[str, Rule]:
    period, _, last = layers.partition("+")
    return kind, Rule(None if window == "-" else int(window), "s" if period == "all" else period, last)
