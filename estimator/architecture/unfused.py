"""Experts that some quantisers want one by one, where the class has them fused.

transformers 5.23.0, quantizers/base.py: MODULES_TO_PATCH_FOR_QUANTIZATION, for checkpoints that are stored quantised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from estimator.architecture.facts import ClassFacts
from estimator.architecture.module import ModuleTree
from estimator.architecture.structure import Child, Structure
from estimator.checkpoint.quantized import quantization_of
from estimator.errors import UnsupportedError

_SCHEMES = ("bitsandbytes_4bit", "bitsandbytes_8bit", "compressed-tensors")
_FUSED, _EXPERT, _LIST = "Llama4TextExperts", "Llama4TextMLP", "SequentialLlama4TextExperts"


def with_experts_apart(facts: ClassFacts, config: Mapping[str, Any]) -> ClassFacts:
    """The facts with a list of experts in place of fused ones, where the checkpoint is one of these quantisers'."""
    quantization = quantization_of(config)
    if quantization is None or quantization.scheme not in _SCHEMES:
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
    names = {module.name for module in tree.modules}
    hollow = next((m.name for m in tree.modules if m.cls == _LIST and f"{m.name}.0" not in names), None)
    quantization = quantization_of(tree.config)
    if quantization is not None and quantization.scheme in _SCHEMES:
        fused = next((m.name for m in tree.modules if m.cls == _FUSED), None)
        if fused is not None:
            raise UnsupportedError(
                f"{fused} has its experts one by one under {quantization.scheme}: headers are needed to lay them out.",
                where="config.json",
                way_out="name a folder or repository with .safetensors files",
            )
    if hollow is not None:
        raise UnsupportedError(
            f"{hollow} is stored fused, and transformers, which takes these quantisers' experts one by one, fails.",
            where="quantization_config in config.json",
            way_out="name the model that was quantised instead",
        )


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
