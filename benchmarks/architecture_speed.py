"""From parsed headers to a module tree: DeepSeek-V3's 91,991 tensors in under 1 s on one core, growing linearly.

    python benchmarks/architecture_speed.py [--runs 3]

Also: one model's facts are at hand within 5 ms of opening the file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from estimator.architecture.build import build
from estimator.checkpoint.checkpoint import Checkpoint, Tensor

CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168,
    "num_hidden_layers": 61, "first_k_dense_replace": 3, "n_routed_experts": 256, "tie_word_embeddings": False,
}  # fmt: skip
_ATTENTION = {
    "q_a_proj.weight": (1536, 7168), "q_a_layernorm.weight": (1536,), "q_b_proj.weight": (24576, 1536),
    "kv_a_proj_with_mqa.weight": (576, 7168), "kv_a_layernorm.weight": (512,), "kv_b_proj.weight": (32768, 512),
    "o_proj.weight": (7168, 16384),
}  # fmt: skip
_SCALED = {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
FACTS_COMMAND = """
import time
from estimator.architecture import facts
begin = time.perf_counter()
facts.class_facts("LlamaForCausalLM")
print(time.perf_counter() - begin)
"""


def _mlp(prefix: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, shape in (("gate_proj", (width, 7168)), ("up_proj", (width, 7168)), ("down_proj", (7168, width))):
        yield f"{prefix}.{name}.weight", shape


def _layer(number: int, dense: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    layer = f"model.layers.{number}"
    yield from ((f"{layer}.self_attn.{name}", shape) for name, shape in _ATTENTION.items())
    yield from ((f"{layer}.{norm}.weight", (7168,)) for norm in ("input_layernorm", "post_attention_layernorm"))
    if dense:
        yield from _mlp(f"{layer}.mlp", 18432)
        return
    yield f"{layer}.mlp.gate.weight", (256, 7168)
    yield f"{layer}.mlp.gate.e_score_correction_bias", (256,)
    yield from _mlp(f"{layer}.mlp.shared_experts", 2048)
    for expert in range(256):
        yield from _mlp(f"{layer}.mlp.experts.{expert}", 2048)


def tensors_of(layers: int) -> dict[str, Tensor]:
    """The names and shapes of DeepSeek-V3 with so many layers and one for multi-token prediction, scales included."""
    found = [
        ("model.embed_tokens.weight", (129280, 7168)),
        ("model.norm.weight", (7168,)),
        ("lm_head.weight", (129280, 7168)),
    ]
    for number in range(layers + 1):
        for name, shape in _layer(number, number < 3):
            found.append((name, shape))
            if name.rsplit(".", 2)[1] in _SCALED:
                found.append((f"{name}_scale_inv", tuple(-(-size // 128) for size in shape)))
    extra = f"model.layers.{layers}"
    found += [(f"{extra}.{name}.weight", (7168,)) for name in ("enorm", "hnorm", "shared_head.norm")]
    found += [(f"{extra}.eh_proj.weight", (7168, 14336)), (f"{extra}.embed_tokens.weight", (129280, 7168))]
    found += [(f"{extra}.shared_head.head.weight", (129280, 7168))]
    return {name: Tensor(name, "BF16", shape, "model.safetensors") for name, shape in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    first = None
    for factor in (1, 2, 4, 8):
        layers = 61 * factor
        checkpoint = Checkpoint(tensors=tensors_of(layers), files=(), bytes=0)
        seconds = []
        for _ in range(options.runs):
            begin = time.perf_counter()
            tree = build({**CONFIG, "num_hidden_layers": layers}, checkpoint)
            seconds.append(time.perf_counter() - begin)
        first = first or min(seconds)
        counts = f"{len(checkpoint.tensors):>9,} tensors, {len(tree.modules):>7,} modules"
        print(f"{counts}: {min(seconds):.2f} s, {min(seconds) / first:.1f} x")
    spent = min(float(subprocess.check_output([sys.executable, "-c", FACTS_COMMAND])) for _ in range(options.runs))
    print(f"facts of one class: {spent * 1000:.1f} ms")


if __name__ == "__main__":
    main()
