"""The facts that a verification compares, and how they are compared; the same value for both sides. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from estimator.architecture.module import ModuleTree, named_buffers
from estimator.dtypes import BITS
from estimator.report.verify_result import Comparison, Difference
from estimator.sizes.base import run_time_parameters

if TYPE_CHECKING:
    from estimator.report.answer import Answer


class BuiltModule(NamedTuple):
    """A module of the base as it is built."""

    cls: str
    parameters: tuple[tuple[str, tuple[int, ...]], ...]  # own ones, by name


class AdaptedModule(NamedTuple):
    """A module on which PEFT has put something."""

    in_features: int | None  # all None: trained beside LoRA, saved whole or token by token
    out_features: int | None
    rank: int | None


class SavedTensor(NamedTuple):
    """A tensor of a file, or a buffer."""

    dtype: str
    shape: tuple[int, ...]


def _said(what: str) -> Any:
    return field(default=None, metadata={"what": what})


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Of one side. None: this side cannot say it, so it is not compared. Mappings are compared entry by entry."""

    architecture: str | None = _said("class of the model")
    modules: Mapping[str, BuiltModule] | None = _said("modules of the base")
    shapes: Mapping[str, tuple[Any, ...]] | None = _said("shapes of the base's modules")  # where classes are inferred
    tied: Mapping[str, tuple[str, ...]] | None = _said("tied parameters")
    base_parameters: int | None = _said("parameters of the base")
    base_bytes: Mapping[str, int] | None = _said("bytes of the base's parameters by dtype")
    buffers: Mapping[str, SavedTensor] | None = _said("buffers of the base")
    footprint: int | None = _said("get_memory_footprint() in bytes")
    converted: Mapping[str, str] | None = _said("quantised modules")
    refusal: str | None = _said("PEFT's refusal")
    adapted: Mapping[str, tuple[AdaptedModule, ...]] | None = _said("adapted modules")
    trainable: int | None = _said("trainable parameters")
    all_parameters: int | None = _said("all parameters")
    tensors: Mapping[str, SavedTensor] | None = _said("tensors of the adapter file")
    file_bytes: int | None = _said("bytes of the adapter file")


def compare(estimate: Facts, real: Facts) -> tuple[tuple[Comparison, ...], tuple[Difference, ...]]:
    """Every fact that both sides say, and the entries in which the lists differ."""
    comparisons: list[Comparison] = []
    differences: list[Difference] = []
    for fact in fields(Facts):
        what, said, found = fact.metadata["what"], getattr(estimate, fact.name), getattr(real, fact.name)
        if fact.name == "refusal" and (said or found):
            comparisons.append(Comparison(what, said, found, said == found))
        elif said is None or found is None:
            continue
        elif isinstance(said, Mapping):
            differing = tuple(_entries(what, said, found))
            comparisons.append(Comparison(what, len(said), len(found), not differing))
            differences += differing
        else:
            comparisons.append(Comparison(what, said, found, said == found))
    return tuple(comparisons), tuple(differences)


def _entries(what: str, estimate: Mapping[str, Any], real: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys([*real, *estimate]):
        if estimate.get(name) != real.get(name):
            yield Difference(what, name, estimate.get(name), real.get(name))


def promised(answer: Answer) -> Facts:
    """What the estimate says, in the form in which the real model is read."""
    adaptation, base = answer.adaptation, answer.base
    loaded, built = base.model, _built(answer.tree)
    return Facts(
        architecture=answer.tree.architecture,
        modules=built if answer.tree.basis == "exact" else None,
        shapes=None if answer.tree.basis == "exact" else shapes_of(built),
        tied=tie_groups(_names_by_source(answer.tree)),
        base_parameters=base.parameters,
        base_bytes=_bytes_by_dtype(loaded) if base.loaded.footprint_bytes is not None else None,
        buffers=_buffers(loaded) if answer.tree.basis == "exact" and not loaded.quantised else None,
        footprint=base.loaded.prepared_footprint_bytes or base.loaded.footprint_bytes,
        converted={name: layer.cls for name, layer in loaded.quantised.items()},
        adapted=_adapted(adaptation.modules),
        trainable=adaptation.trainable_parameters,
        all_parameters=base.all_parameters + adaptation.added_parameters,
        tensors={t.name: SavedTensor(t.dtype, tuple(t.shape)) for t in adaptation.tensors},
        file_bytes=answer.file_bytes,
    )


def tie_groups(names_by_tensor: Mapping[Any, list[str]]) -> dict[str, tuple[str, ...]]:
    """Names that share one tensor, under the first of them; tensors with one name are left out."""
    groups = (sorted(names) for names in names_by_tensor.values() if len(names) > 1)
    return {names[0]: tuple(names) for names in sorted(groups)}


def _names_by_source(tree: ModuleTree) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in tree.tied:
        source, seen = name, set()
        while source in tree.tied and source not in seen:
            seen.add(source)
            source = tree.tied[source]
        groups.setdefault(source, [source]).append(name)
    return groups


def _built(tree: ModuleTree) -> dict[str, BuiltModule]:
    return {
        module.name: BuiltModule(module.cls, tuple(sorted((p.name, tuple(p.shape)) for p in module.parameters)))
        for module in tree.modules
    }


def shapes_of(modules: Mapping[str, BuiltModule]) -> dict[str, tuple[Any, ...]]:
    """Of modules that own parameters; without their classes, which an inferred estimate does not promise."""
    return {name: module.parameters for name, module in modules.items() if module.parameters}


def _buffers(tree: ModuleTree) -> dict[str, SavedTensor]:
    """Persistent or not, by full name."""
    return {name: SavedTensor(buffer.dtype, tuple(buffer.shape)) for name, buffer in named_buffers(tree.modules)}


def _bytes_by_dtype(tree: ModuleTree) -> dict[str, int]:
    totals: dict[str, int] = {}
    for _, parameter in run_time_parameters(tree):
        totals[parameter.dtype] = totals.get(parameter.dtype, 0) + prod(parameter.shape) * BITS[parameter.dtype] // 8
    return totals


def _adapted(modules: Any) -> dict[str, tuple[AdaptedModule, ...]]:
    """By name; a name stands twice where two parameters of one module are targeted."""
    found: dict[str, tuple[AdaptedModule, ...]] = {}
    for module in modules:
        entry = AdaptedModule(module.in_features, module.out_features, module.rank)
        found[module.name] = tuple(sorted((*found.get(module.name, ()), entry)))
    return found
