"""Which parts of a class an Auto class chooses, found by putting others there."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from estimator.architecture.surveying import tiny
from estimator.architecture.surveying.observe import observe, structure_of

_TASKS = {
    "FEATURE_EXTRACTION": "MODEL_MAPPING_NAMES",
    "CAUSAL_LM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "SEQ_2_SEQ_LM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "TEXT_ENCODING": "MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES",
    "BACKBONE": "MODEL_FOR_BACKBONE_MAPPING_NAMES",
}
_DONORS = ("llama", "gemma2", "gpt2", "clip_vision_model", "siglip_vision_model", "bert", "wav2vec2", "resnet", "swin")


def towers_of(name: str, base: Mapping[str, Any], model: Any) -> list[list[str]]:
    """[module, section, default model type, task] of each part whose class follows the section's model type.

    The task is "" where the model changes the part that it puts there: the facts of the part's class do not hold then.
    """
    found = []
    for section, config in _chosen_sections(model.config):
        module = _built_from(model, config)
        cls = type(model.get_submodule(module)) if module else None
        task = _task_of(config.model_type, cls.__name__) if cls else None
        swapped = _with_another(name, base, section, config.model_type)
        if swapped is None:  # nothing else can stand there as it is: a class of another family is taken to be chosen
            if task is not None and cls.__module__ != type(model).__module__:
                found.append([module, section, config.model_type, task])
            continue
        other = functools.reduce(getattr, section.split("."), swapped.config)
        there = _built_from(swapped, other)
        if there is None or (cls is not None and there == module and type(swapped.get_submodule(there)) is cls):
            continue
        part = swapped.get_submodule(there)
        task = task or _task_of(other.model_type, type(part).__name__)
        tasks = _tasks(task, name, base, section) if task and not _is_changed(part, other) else ""
        found.append([there, section, config.model_type, tasks])
    return found


def _tasks(task: str, name: str, base: Mapping[str, Any], section: str) -> str:
    """The task, and that of models with an encoder where one can stand in a causal model's place: BLIP-2's."""
    return "CAUSAL_LM|SEQ_2_SEQ_LM" if task == "CAUSAL_LM" and _with(name, base, section, "t5") is not None else task


def _is_changed(part: Any, config: PreTrainedConfig) -> bool:
    """Whether the part is not what its class builds by itself."""
    return structure_of(observe(part)) != structure_of(observe(tiny.build(type(part).__name__, config)))


def _with_another(name: str, base: Mapping[str, Any], section: str, model_type: str) -> Any:
    """The model with the first donor that can stand there; None where none can."""
    for donor in (donor for donor in _DONORS if donor != model_type):
        if (model := _with(name, base, section, donor)) is not None:
            return model
    return None


def _with(name: str, base: Mapping[str, Any], section: str, donor: str) -> Any:
    """The model with a small donor there; None where it can't stand there."""
    try:
        return tiny.build(name, tiny.make(name, tiny.changed(base, section.split("."), tiny.small_fields(donor))))
    except Exception:  # not every model stands everywhere
        return None


def _chosen_sections(config: PreTrainedConfig, before: str = "") -> list[tuple[str, PreTrainedConfig]]:
    """The sections whose class their own model type decides."""
    found = []
    for key, section in tiny.sub_configs(config).items():
        declared = type(config).sub_configs.get(key)
        if declared is None or not issubclass(declared, PreTrainedConfig):
            found.append((f"{before}{key}", section))
        else:
            found += _chosen_sections(section, f"{before}{key}.")
    return found


def _built_from(model: Any, config: PreTrainedConfig) -> str | None:
    """The outermost part that has this very config."""
    return next(
        (path for path, part in model.named_modules() if path and isinstance(part, PreTrainedModel)
         and part.config is config), None,
    )  # fmt: skip


def _task_of(model_type: str, cls: str) -> str | None:
    for task, mapping in _TASKS.items():
        names = getattr(modeling_auto, mapping).get(model_type, ())
        if cls in ((names,) if isinstance(names, str) else names):
            return task
    return None
