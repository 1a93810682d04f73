"""Shapes of parameters that a checkpoint lacks: tied ones, heads made fresh, gaps in a list of alike layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from estimator.architecture.buffers import Wanted, buffer_exists, buffer_shape
from estimator.architecture.conditions import Lookup, Place, holds
from estimator.architecture.facts import ClassFacts
from estimator.architecture.module import Module, Parameter, full_name, parameter_shapes
from estimator.architecture.structure import Slot
from estimator.architecture.tie_names import matched
from estimator.dtypes import stated_dtype
from estimator.notes import Note

Missing = tuple[int, Slot, bool]


def fill(
    modules: list[Module], missing: list[Missing], facts: ClassFacts, lookup: Lookup, config: Mapping[str, Any]
) -> tuple[list[Module], list[Note]]:
    """The modules with what was missing put in, and a note on what no rule could size."""
    shapes = parameter_shapes(modules)
    dtype = stated_dtype(config) or next((p.dtype for module in modules for p in module.parameters), "F32")
    added: dict[int, dict[str, Parameter]] = {}
    waiting = [entry for entry in missing if not entry[2]]
    for _ in range(2):  # a tie's source may itself be missing
        later = []
        for at, slot, buffer in waiting:
            name = full_name(modules[at].name, slot.name)
            shape = (
                _tied_shape(name, shapes, facts, lookup) or _fresh_shape(name, facts, lookup) or _sibling(name, shapes)
            )
            if shape is None:
                later.append((at, slot, buffer))
                continue
            shapes[name] = shape
            added.setdefault(at, {})[slot.name] = Parameter(
                slot.name, shape, slot.dtype or dtype, slot.dtype is not None
            )
        waiting = later
    unknown = [full_name(modules[at].name, slot.name) for at, slot, _ in waiting]
    for at, found in added.items():
        modules[at] = modules[at]._replace(parameters=_ordered(modules[at], found))
    unsized = fill_buffers(modules, [entry for entry in missing if entry[2]], shapes, lookup, dtype)
    return modules, [*_note(unknown), *buffer_note(unsized)]


def fill_buffers(
    modules: list[Module], missing: list[Missing], shapes: Mapping[str, Any], lookup: Lookup, dtype: str
) -> list[str]:
    """Puts the buffers that are not stored into `modules`; the full names of those that no rule could size."""
    unsized = []
    for at, slot, _ in missing:
        module = modules[at]
        wanted = Wanted(module.name, module.cls, slot.name, slot.dimensions)
        if not buffer_exists(wanted, lookup, always=slot.always):
            continue
        shape = buffer_shape(wanted, shapes, lookup)
        if shape is None:
            unsized.append(full_name(module.name, slot.name))
            continue
        buffer = Parameter(slot.name, shape, slot.dtype or dtype, slot.dtype is not None, slot.saved)
        modules[at] = module._replace(buffers=(*module.buffers, buffer))
    return unsized


def _ordered(module: Module, found: Mapping[str, Parameter]) -> tuple[Parameter, ...]:
    """weight before bias: what is stored and what is added, as Linear and Embedding register them."""
    both = {parameter.name: parameter for parameter in module.parameters} | dict(found)
    return tuple(sorted(both.values(), key=lambda parameter: (parameter.name != "weight", parameter.name == "bias")))


def _tied_shape(name: str, shapes: Mapping[str, Any], facts: ClassFacts, lookup: Lookup) -> tuple[int, ...] | None:
    for target, source, condition in facts.ties:
        for one, other in ((target, source), (source, target)):
            partner = matched(name, one, other)
            if partner is not None and partner in shapes and holds(condition, lookup, Place()):
                return shapes[partner]
    return None


def _fresh_shape(name: str, facts: ClassFacts, lookup: Lookup) -> tuple[int, ...] | None:
    expression = facts.fresh.get(name)
    if expression is None:
        return None
    shape = tuple(part if isinstance(part, int) else lookup(part) for part in expression)
    return shape if all(isinstance(size, int) for size in shape) else None


def _sibling(name: str, shapes: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The shape of the same parameter in all other layers; None where they differ."""
    if not re.search(r"\.\d+\.", name):
        return None
    pattern = re.compile(re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(name), count=1))
    found = {shape for other, shape in shapes.items() if pattern.fullmatch(other)}
    return found.pop() if len(found) == 1 else None


def buffer_note(unsized: list[str]) -> list[Note]:
    """A note on buffers that neither a formula nor a rule sizes."""
    if not unsized:
        return []
    message = f"{len(unsized):,} buffers, {unsized[0]} first, are of unknown size: footprints leave them out."
    return [Note("unsized_buffers", message)]


def _note(unknown: list[str]) -> list[Note]:
    if not unknown:
        return []
    what = f"{len(unknown):,} parameters, {unknown[0]} first"
    message = f"The checkpoint lacks {what}, whose size is not known: they are not counted."
    return [Note("missing_tensors", message)]
