"""Which class is built: config.json's, or the one that transformers' Auto class for a task builds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator.architecture.facts import ClassFacts, ClassOutline, class_facts, class_for
from estimator.errors import UnsupportedError

_GENERATING_TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
_GENERATING_CLASSES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def choose(config: Mapping[str, Any], task: str | None) -> ClassFacts | None:
    """The facts of the class; None where transformers' facts know none.

    The task's class comes first, then `architectures`, then the model type's own. A checkpoint that generates text is
    loaded as the class that it names: CAUSAL_LM does not make a language model of an image-and-text model.
    """
    model_type = config.get("model_type")
    model_type = model_type if isinstance(model_type, str) else None
    named = config.get("architectures")
    named = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else None
    if task in _GENERATING_TASKS and named is not None and named.endswith(_GENERATING_CLASSES):
        task = None
    candidates = (class_for(model_type, task) if task else None, named, class_for(model_type, None))
    for name in candidates:
        facts = class_facts(name) if name else None
        if facts is not None:
            return facts
    return None


def check_labels(said: ClassOutline, labels: Any) -> None:
    """Raises UnsupportedError where the class's constructor refuses so many labels."""
    if said.labels is not None and labels != said.labels:
        raise UnsupportedError(
            f"{said.name} has {said.labels} labels, and transformers refuses to build it with {labels}.",
            where="num_labels",
            way_out=f"--num-labels {said.labels}, or another task",
        )
