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
from collections.abc import Iterator, Mapping

from estimator.architecture.module import VARIES, ModuleTree
from estimator.sizes.adapter_causes import Part
from estimator.sizes.methods.adapted_layer import Config
from estimator.sizes.methods.layers import places


def xlora_parts(config: Config, tree: ModuleTree) -> Iterator[tuple[str, Part]]:
    """The tensors by the name behind `base_model.`, in the dtype of the base's first parameter.

    Raises ValueError for a classifier without layers, TypeError for LoRAs that no name leads to.
    """
    layers, width = _layers(config), config.get("xlora_size", 2048)
    lost, dtype = left_out(config), next(p.dtype for module in tree.modules for p in module.parameters)
    for place in layers:
        into = width if place else config["hidden_size"]
        out = width if place < layers[-1] else len(config["adapters"])
        shapes = {"weight": (out, into), "bias": (out,)}
        if place == layers[-1] and config.get("layerwise_scalings"):
            shapes = dict.fromkeys(shapes, VARIES)
        for name, shape in shapes.items() if place not in lost else ():
            yield f"internal_xlora_classifier.layers.{place}.{name}", Part(dtype, shape)


def left_out(config: Config) -> range:
    """The places of the layers that PEFT leaves out of the file. Raises as `xlora_parts`."""
    if not isinstance(config["adapters"], Mapping):
        raise TypeError("no LoRAs by name")
    layers = _layers(config)
    return range(0, min(len(config["adapters"]), layers.stop) if _leaves_numbers_out(config) else 0, layers.step)


def _layers(config: Config) -> range:
    """The places of the classifier's layers."""
    step = 3 if config.get("xlora_dropout_p", 0.2) > 0 else 2
    return range(0, step * len(places(config.get("xlora_depth", 1), least=1)), step)


def _leaves_numbers_out(config: Config) -> bool:
    """Whether PEFT 0.20 or later saved it; files say so since 0.18."""
    version = re.match(r"(\d+)\.(\d+)", str(config.get("peft_version") or ""))
    return version is not None and tuple(map(int, version.groups())) >= (0, 20)
