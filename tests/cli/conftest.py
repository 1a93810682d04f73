"""The command turns the garbage collector off for its one answer; and a base whose files contradict each other."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.models import safetensors


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    yield
    gc.enable()


@pytest.fixture
def contradicting(tmp_path: Path) -> str:
    """A folder with a Llama of one layer whose config.json says another vocabulary than its embedding has rows."""
    shapes = {"embed_tokens": (10, 8), "norm": (8,)}
    shapes |= {f"layers.0.self_attn.{letter}_proj": (8, 8) for letter in "qkvo"}
    shapes |= {f"layers.0.mlp.{name}_proj": (16, 8) for name in ("gate", "up")}
    shapes |= {"layers.0.mlp.down_proj": (8, 16)}
    shapes |= {f"layers.0.{name}_layernorm": (8,) for name in ("input", "post_attention")}
    shapes = {f"model.{name}": shape for name, shape in shapes.items()} | {"lm_head": (10, 8)}
    stored = safetensors({f"{name}.weight": ("F32", shape) for name, shape in shapes.items()})
    (tmp_path / "model.safetensors").write_bytes(stored)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 16,
              "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 11}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)
