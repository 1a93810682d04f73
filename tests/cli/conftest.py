"""The command turns the garbage collector off for its one answer; and a base whose files contradict each other."""

from __future__ import annotations

import gc
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest


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
    header, end = {}, 0
    for name, shape in [
        *((f"model.{name}.weight", shape) for name, shape in shapes.items()),
        ("lm_head.weight", (10, 8)),
    ]:
        start, end = end, end + 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 16,
              "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 11}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)
