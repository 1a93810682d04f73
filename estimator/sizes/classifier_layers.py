"""What X-LoRA saves beside the LoRAs that it mixes: the classifier that weighs them.

    base_model.internal_xlora_classifier.layers.{place}   Linear layers of a torch.nn.Sequential, with biases

between which stand a ReLU and, where there is any, a dropout. The first reads the hidden states, the last has an
output for each LoRA, or for each LoRA in each layer that one of them adapts (`layerwise_scalings`), which no config
says. LoRAs are called by their numbers, and since 0.20 PEFT leaves out what carries another adapter's name: the layer
at place 0 with one LoRA, those at 0 and 3 with four. peft 0.21.2, tuners/xlora/classifier.py; utils/save_and_load.py,
`_filter_state_dict_for_adapter_name`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from estimator.architecture.module import VARIES, ModuleTree
from estimator.sizes.adapted_layer import Config
from estimator.sizes.adapter_causes import Part

_DEEPEST = 1_000  # what a config says is bounded; no classifier is as deep


def xlora_parts(config: Config, tree: ModuleTree) -> Iterator[tuple[str, Part]]:
    """The tensors by the name behind `base_model.`, in the dtype of the base's first parameter.

    Raises ValueError for a classifier without layers.
    """
    depth, width = min(config.get("xlora_depth", 1), _DEEPEST), config.get("xlora_size", 2048)
    if depth < 1:
        raise ValueError("no layer")
    step = 3 if config.get("xlora_dropout_p", 0.2) > 0 else 2
    experts = len(config["adapters"])
    lost = experts if _leaves_numbers_out(config) else 0
    dtype = next(p.dtype for module in tree.modules for p in module.parameters)
    for at in range(depth):
        into = width if at else config["hidden_size"]
        out = width if at < depth - 1 else experts
        shapes = {"weight": (out, into), "bias": (out,)}
        if at == depth - 1 and config.get("layerwise_scalings"):
            shapes = dict.fromkeys(shapes, VARIES)
        for name, shape in shapes.items() if at * step >= lost else ():
            yield f"internal_xlora_classifier.layers.{at * step}.{name}", Part(dtype, shape)


def _leaves_numbers_out(config: Config) -> bool:
    """Whether PEFT 0.20 or later saved it; files say so since 0.18."""
    version = re.match(r"(\d+)\.(\d+)", str(config.get("peft_version") or ""))
    return version is not None and tuple(map(int, version.groups())) >= (0, 20)
