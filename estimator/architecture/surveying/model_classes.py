"""The model classes of the installed transformers, by name.

Rules' source: transformers 5.23.0, the mappings in models/auto/modeling_auto.py.
"""

from __future__ import annotations

import functools
import importlib
import sys
import types
from collections.abc import Collection, Iterator
from typing import NamedTuple

import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto import modeling_auto
from transformers.utils.import_utils import BACKENDS_MAPPING

BACKENDS_MAPPING["natten"] = (lambda: True, "")  # what Dinat needs to run, not to be built


class ModelClass(NamedTuple):
    name: str  # "LlamaForCausalLM"
    model_types: tuple[str, ...]  # whose config builds it; more than one where classes are shared
    mappings: tuple[str, ...]  # "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", ...

    @property
    def model_type(self) -> str:
        return self.model_types[0]


@functools.cache
def classes() -> dict[str, ModelClass]:
    """Every class of every Auto mapping, and those beside them, by name, in alphabetical order."""
    types: dict[str, list[str]] = {}
    mappings: dict[str, list[str]] = {}
    for mapping, names in vars(modeling_auto).items():
        if not mapping.endswith("_MAPPING_NAMES") or mapping == "CONFIG_MAPPING_NAMES":
            continue
        for model_type, value in names.items():
            for name in (value,) if isinstance(value, str) else value:
                types.setdefault(name, []).append(model_type)
                mappings.setdefault(name, []).append(mapping)
    for name, model_type in _projecting({model_type for kinds in types.values() for model_type in kinds}):
        types.setdefault(name, [model_type])
    return {
        name: ModelClass(name, tuple(dict.fromkeys(types[name])), tuple(dict.fromkeys(mappings.get(name, ()))))
        for name in sorted(types)
    }


def _projecting(model_types: Collection[str]) -> Iterator[tuple[str, str]]:
    """(class, model type) of towers with a projection, which no Auto mapping names: the text and image encoders of
    image generators, whose config is that of a class that one does name.
    """
    for name in dir(transformers):
        if name.endswith("ModelWithProjection"):
            model_type = getattr(transformers, name).config_class.model_type
            if model_type in model_types:
                yield name, model_type


@functools.cache
def class_of(name: str) -> type:
    """The Python class. Raises AttributeError or ImportError where this release or machine lacks it.

    A class that a missing package keeps out of `transformers` itself is taken from its own file.
    """
    found = getattr(importlib.import_module("transformers"), name, None)
    if found is not None and "_backends" not in vars(found):
        return found
    file = CONFIG_MAPPING[classes()[name].model_type].__module__.replace(".configuration_", ".modeling_")
    try:
        return getattr(importlib.import_module(file), name)
    except ModuleNotFoundError as error:  # what it needs to run; not to be built, or that fails in its turn
        sys.modules[error.name] = types.ModuleType(error.name)
        return getattr(importlib.import_module(file), name)


def config_class(name: str) -> type[PreTrainedConfig]:
    """The config class that the model class is built from."""
    own = getattr(class_of(name), "config_class", None)
    for model_type in classes()[name].model_types:
        if own is None or CONFIG_MAPPING[model_type] is own:
            return CONFIG_MAPPING[model_type]
    return own
