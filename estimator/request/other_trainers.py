"""Trainers whose configs are told, and not read: what they train is no LoRA of PEFT's on a class of transformers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_MLX = "mlx-lm puts layers of its own on the last blocks of a model, in files of its own"
DIFFUSION = "this trains a model that makes images or videos, of classes that transformers has not"
_LLAVA = "LLaVA and what is built on it train a projector beside the adapter, on classes of their own"
_PADDLE = "PaddleNLP trains layers of its own"
_COLOSSAL = "ColossalAI's scripts train layers of their own, or take a LoraConfig from another file"


def why_unread(values: Mapping[str, Any]) -> str | None:
    """What stands against a count, as a sentence without its end; None for a config of nobody."""
    return next((why for why, matches in _SIGNS if matches(values)), None)


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether all of these keys are there."""
    return lambda values: set(names) <= values.keys()


def _starts(pattern: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether the words of the command, before its options, say so."""
    return lambda values: re.search(pattern, str(values.get("_command") or "")) is not None


_SIGNS: tuple[tuple[str, Callable[[Mapping[str, Any]], bool]], ...] = (
    (_MLX, _has("lora_parameters")),
    (_MLX, _has("fine_tune_type", "iters")),
    (_MLX, _has("lora_layers", "iters")),
    (_MLX, _starts(r"\bmlx_(?:lm|vlm)\b")),
    (DIFFUSION, _has("network_module")),
    (DIFFUSION, _has("pretrained_model_name_or_path", "_program")),
    (DIFFUSION, _has("lora_base_model", "_program")),
    (_LLAVA, _has("lora_enable")),
    (_LLAVA, _has("use_llm_lora")),
    (_LLAVA, _has("use_backbone_lora")),
    (_PADDLE, _has("lora", "tensor_parallel_degree")),
    (_PADDLE, _has("lora", "src_length")),
    (_COLOSSAL, _has("plugin", "pretrain", "_program")),
)
