"""What PEFT's rules cost on a tree of many layers: the time grows as the layers do, also where each is named.

    python benchmarks/adapting_speed.py [--layers 2000,4000,8000]

Layers have seven Linear modules each, as Llama's; seconds of one core, a fresh tree for each request.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from estimator.architecture.from_config import from_config
from estimator.architecture.module import ModuleTree
from estimator.lora.adapt import adapt
from estimator.request.lora_config import from_mapping

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "tie_word_embeddings": False,
}  # fmt: skip


def requests(layers: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is asked, and the config that asks it."""
    named = [f"model.layers.{number}.self_attn.q_proj" for number in range(layers)]
    yield "two names", {"target_modules": ["q_proj", "v_proj"]}
    yield "all-linear", {"target_modules": "all-linear"}
    yield "an expression", {"target_modules": r".*layers\.\d+\.self_attn\.(q|v)_proj"}
    yield "every layer by its name", {"target_modules": named}
    yield "half of them excluded by name", {"target_modules": ["q_proj"], "exclude_modules": named[::2]}
    yield "half of the layers", {"target_modules": ["q_proj"], "layers_to_transform": list(range(0, layers, 2))}
    yield "the head saved", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}


def seconds(tree: ModuleTree, config: dict[str, Any]) -> float:
    """Of one request on a tree that has answered none."""
    fresh = tree._replace()
    begin = time.process_time()
    adapt(fresh, from_mapping({"r": 8, **config}))
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default="2000,4000,8000")
    counts = [int(count) for count in parser.parse_args().layers.split(",")]
    trees = {count: from_config({**CONFIG, "num_hidden_layers": count}) for count in counts}
    print(f"{'layers':32}" + "".join(f"{count:>10,}" for count in counts))
    rows = zip(*(requests(count) for count in counts), strict=True)
    for row in rows:
        took = (seconds(trees[count], config) for count, (_, config) in zip(counts, row, strict=True))
        print(f"{row[0][0]:32}" + "".join(f"{each:9.2f} s" for each in took), flush=True)


if __name__ == "__main__":
    main()
