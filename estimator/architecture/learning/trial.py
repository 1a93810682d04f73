"""Whether formulas make the very tree that transformers builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from estimator.architecture.formula import NoModel, Unfit
from estimator.architecture.from_config import grown, with_buffers
from estimator.architecture.module import full_name
from estimator.errors import MalformedConfigError


def difference(name: str, facts: Mapping[str, Any], build: Any) -> str:
    """ "" where the formulas make the very tree of the build, else the first difference."""
    try:
        tree, unsized, _ = grown(name, facts, dict(build.fields))
    except NoModel as error:
        return f"Unfit: {error}"
    except (Unfit, IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    ours = [_row(m) for m in tree.modules]
    left_out = {full_name(module, slot.name) for module, slot in unsized}
    theirs = _as_tied([_without_buffers(row, left_out) for row in _rows("", build.seen)], build.ties)
    for one, two in zip(ours, theirs, strict=False):
        if one != two:
            return f"{one} is {two}"
    if len(ours) != len(theirs):
        return f"{len(ours)} modules are {len(theirs)}"
    if set(tree.tied.items()) != set(build.ties.items()):
        return f"ties {tree.tied} are {build.ties}"
    named = (tree.input_embedding, tree.output_embedding)
    return "" if named == tuple(build.embeddings) else f"{named} are {build.embeddings}"


def ruled(name: str, facts: Mapping[str, Any], build: Any) -> bool:
    """Whether the rules beside headers (buffers.py) give the build's sizes where the formulas give none."""
    try:
        tree, unsized, model = grown(name, facts, dict(build.fields))
    except Unfit:  # refused with the rule and without
        return True
    try:
        tree = with_buffers(tree, unsized, model)
    except (Unfit, MalformedConfigError, TypeError, AttributeError, ValueError):
        return False
    ours = {(m.name, p.name): (p.shape, p.persistent) for m in tree.modules for p in m.buffers}
    theirs = {(row[0], name): (shape, kept) for row in _rows("", build.seen) for name, shape, _, kept in row[4]}
    wanted = [(module, slot.name) for module, slot in unsized]
    return all(one in ours and ours[one] == theirs.get(one) for one in wanted)


def _as_tied(rows: Sequence[Any], ties: Mapping[str, str]) -> list[Any]:
    """The rows with tied parameters of their sources' shapes: what is built without initialisation is not tied."""
    shapes = {full_name(row[0], name): shape for row in rows for name, shape, _ in row[3]}

    def of(module: str, name: str) -> Any:
        full = full_name(module, name)
        return shapes.get(ties.get(full, full), shapes[full])

    return [(*row[:3], [(name, of(row[0], name), dtype) for name, _, dtype in row[3]], *row[4:]) for row in rows]


def _without_buffers(row: Any, unsized: set[str]) -> Any:
    kept = [buffer for buffer in row[4] if full_name(row[0], buffer[0]) not in unsized]
    return (*row[:4], kept, row[5])


def _row(module: Any) -> Any:
    tensors = [(p.name, p.shape, p.dtype if p.fixed else None) for p in module.parameters]
    buffers = [(p.name, p.shape, p.dtype if p.fixed else None, p.persistent) for p in module.buffers]
    return module.name, module.cls, module.kind, tensors, buffers, module.groups


def _rows(name: str, seen: Any) -> Any:
    tensors = [(t.name, t.shape, t.dtype) for t in seen.parameters]
    buffers = [(t.name, t.shape, t.dtype, t.persistent) for t in seen.buffers]
    yield name, seen.cls, seen.kind, tensors, buffers, seen.groups
    for key, child in seen.children:
        yield from _rows(full_name(name, key), child)
