"""Experts that some quantisers want one by one, where the class has them fused.

transformers 5.23.0, quantizers/base.py: MODULES_TO_PATCH_FOR_QUANTIZATION, for checkpoints that are stored quantised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from estimator.architecture.facts import ClassFacts
from estimator.architecture.module import ModuleTree
from estimator.architecture.structure import Child, Structure
from estimator.checkpoint.quantization import quantization_of
from estimator.errors import UnsupportedError

_SCHEMES = ("bitsandbytes_4bit", "bitsandbytes_8bit", "compressed-tensors")
_FUSED, _EXPERT, _LIST = "Llama4TextExperts", "Llama4TextMLP", "SequentialLlama4TextExperts"


def with_experts_apart(facts: ClassFacts, config: Mapping[str, Any]) -> ClassFacts:
    """The facts with a list of experts in place of fused ones, where the checkpoint is one of these quantisers'."""
    if _scheme(config) is None:
        return facts
    expert = next((one for one in _all(facts.root, set()) if one.cls == _EXPERT), None)
    if expert is None:
        return facts
    apart = Structure(_LIST, "other", children=(Child("*", None, (("", expert),)),))
    return facts._replace(root=_replaced(facts.root, apart, {}))


def check_experts(tree: ModuleTree) -> None:
    """Raises UnsupportedError where the file holds the experts fused all the same: the list gets no weights.

    So it does for the class's own modules, which config.json alone tells.
    """
    scheme = _scheme(tree.config)
    fused = next((m.name for m in tree.modules if m.cls == _FUSED), None) if scheme is not None else None
    if fused is not None:
        raise UnsupportedError(
            f"{fused} has its experts one by one under {scheme}: headers are needed to lay them out.",
            where="config.json",
            way_out="name a folder or repository with .safetensors files",
        )
    lists = _lists(tree)
    names = {m.name for m in tree.modules} if lists else ()  # nearly no model has such lists
    hollow = next((name for name in lists if f"{name}.0" not in names), None)
    if hollow is not None:
        raise UnsupportedError(
            f"{hollow} is stored fused, and transformers, which takes these quantisers' experts one by one, fails to "
            "load or to run it.",
            where="quantization_config in config.json",
            way_out="name the model that was quantised instead",
        )


def has_experts_apart(tree: ModuleTree) -> bool:
    """Whether a list of experts stands in place of fused ones, which are what config.json alone tells."""
    return bool(_lists(tree))


def _lists(tree: ModuleTree) -> list[str]:
    return [module.name for module in tree.modules if module.cls == _LIST]


def _scheme(config: Mapping[str, Any]) -> str | None:
    """The quantiser that wants experts one by one, where the checkpoint is one's."""
    quantization = quantization_of(config)
    return quantization.scheme if quantization is not None and quantization.scheme in _SCHEMES else None


def _all(structure: Structure, seen: set[int]) -> Iterator[Structure]:
    if id(structure) not in seen:
        seen.add(id(structure))
        yield structure
        for child in structure.children:
            for _, option in child.options:
                yield from _all(option, seen)


def _replaced(structure: Structure, apart: Structure, done: dict[int, Structure]) -> Structure:
    if structure.cls == _FUSED:
        return apart
    if id(structure) not in done:
        children = tuple(
            child._replace(options=tuple((when, _replaced(option, apart, done)) for when, option in child.options))
            for child in structure.children
        )
        done[id(structure)] = structure._replace(children=children)
    return done[id(structure)]
