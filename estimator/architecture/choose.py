"""Which class is built: config.json's, or the one that transformers' Auto class for a task builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from estimator.architecture.borrowed import as_lender, takes
from estimator.architecture.facts import ClassFacts, ClassOutline, class_facts, class_for, classes_for
from estimator.architecture.shapes import shapes_of
from estimator.errors import UnsupportedError

_GENERATING_TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
_OF_ALL = ("architectures", "dtype", "torch_dtype", "quantization_config")
_GENERATING_CLASSES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def choose(config: Mapping[str, Any], task: str | None) -> ClassFacts | None:
    """The facts of the class; None where transformers' facts know none."""
    for name in candidates(config, task):
        facts = class_facts(name)
        if facts is not None:
            return facts
    return None


def candidates(config: Mapping[str, Any], task: str | None) -> list[str]:
    """The names of classes, the first that is known is built.

    The class that is asked for comes first, then `architectures`, then the model type's own. A checkpoint that
    generates text is loaded as the class that it names: CAUSAL_LM does not make a language model of an image-and-text
    model.
    """
    model_type = config.get("model_type")
    model_type = model_type if isinstance(model_type, str) else None
    named = _named(config)
    asked = class_asked(config, task) if not generates(named, task) else None
    return [name for name in (asked, named, class_for(model_type, None)) if name]


def class_asked(config: Mapping[str, Any], task: str | None) -> str | None:
    """The class that a task of PEFT's has for the model type, or the one of that name where `task` is a class that is
    built of config.json or of one of its sections; None where nothing is asked for, or nothing that there is.

    transformers 5.23.0, `PreTrainedConfig.from_pretrained` of a class's own config: the section of its model type.
    """
    if task is None:
        return None
    built = class_for(config.get("model_type"), task, _named(config))
    return task if built is None and shapes_of(task) is not None and section_of(config, task) is not None else built


def _named(config: Mapping[str, Any]) -> str | None:
    named = config.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else None


def generates(named: str | None, task: str | None) -> bool:
    """Whether the checkpoint's class does what the task asks for, be it another than the task's Auto class builds."""
    return named is not None and task in _GENERATING_TASKS and named.endswith(_GENERATING_CLASSES)


def section_of(config: Mapping[str, Any], name: str) -> str | None:
    """The section of config.json that is the class's own config: an image-and-text model built as its text model.

    "" is the whole; None where its model type is none that the class's formulas were tried with.
    transformers 5.23.0, auto_factory.py: `config.get_text_config()` where the class's config is that one's.
    """
    formulas = shapes_of(name)
    kind = config.get("model_type")
    if formulas is not None and (kind is None or takes(formulas, kind)):
        return ""
    sections = [key for key, value in config.items() if isinstance(value, Mapping) and _is_own(value, name, formulas)]
    return "text_config" if "text_config" in sections else sections[0] if len(sections) == 1 else None


def _is_own(section: Mapping[str, Any], name: str, formulas: Mapping[str, Any] | None) -> bool:
    kind = section.get("model_type")
    return takes(formulas, kind) if formulas is not None else name in classes_for(kind)


def own_config(config: Mapping[str, Any], section: str, name: str) -> Mapping[str, Any]:
    """The class's own config as it has it at run time; what stands beside the sections holds of each, and a model type
    that has no class of its own is read as the class's (borrowed.py).

    A config without a model type is loaded by its class, whose config class has one (`GPT2Config.model_type`).
    """
    if section:
        config = {key: config[key] for key in _OF_ALL if key in config} | dict(config[section])
    formulas = shapes_of(name) if config.get("model_type") is None else None
    kinds: Sequence[str] = formulas["types"] if formulas is not None else ()
    named = [kind for kind in kinds if kind in name.lower()] or kinds  # GPT-SW3's config is GPT-2's as well
    return as_lender({**config, "model_type": named[0]} if len(named) == 1 else config, name)


def check_labels(said: ClassOutline, labels: Any) -> None:
    """Raises UnsupportedError where the class's constructor refuses so many labels."""
    if said.labels is not None and labels != said.labels:
        raise UnsupportedError(
            f"{said.name} has {said.labels} labels, and transformers refuses to build it with {labels}.",
            where="num_labels",
            way_out=f"--num-labels {said.labels}, or another task",
        )
