"""From a checkpoint's tensors to a model's parameters: what transformers would load where, and what it would leave."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from estimator.architecture.conditions import Lookup
from estimator.architecture.convert import converted
from estimator.architecture.facts import ClassFacts
from estimator.architecture.rename import Renamed, Renamer, Transform, read_transform
from estimator.architecture.structure import Child, Structure
from estimator.checkpoint.checkpoint import Tensor, alone, stacks_of
from estimator.source.stack import Stack

# Fields that bound a stack: layers beyond it are stored for others (multi-token prediction) and not built.
_LAYERS = re.compile(r"(layers?|depth|blocks)$")


class Loaded(NamedTuple):
    shape: tuple[int, ...] | None  # at run time; None where headers can't tell
    dtype: str  # as stored
    tensors: tuple[str, ...]  # the stored tensors that it is made of


class Load(NamedTuple):
    parameters: Mapping[str, Loaded]  # by full run-time name; buffers that are saved too
    unexpected: tuple[
        tuple[str, int], ...
    ]  # stored tensors that the model has no place for: one of each kind, how many


def load(tensors: Mapping[str, Tensor], facts: ClassFacts, lookup: Lookup) -> Load:
    """Every stored tensor: loaded into which parameter, or left."""
    leaves = leaves_of(facts.root)
    known = knower(facts.root, lookup, leaves)
    transforms = [read_transform(number, written) for number, written in enumerate(facts.transforms)]
    rename = Renamer(transforms, facts.prefix, known)
    simple: dict[str, Loaded] = {}
    gathered: dict[str, list[tuple[Renamed, Sequence[Stack]]]] = {}
    unexpected = []
    for alike in _alike(tensors, rename, leaves):
        name, count = alike[0].first, sum(len(stack.indices) for stack in alike)
        renamed = rename(name)
        if not known(renamed.name):
            unexpected.append((name, count))
        elif renamed.converter is None:
            simple[renamed.name] = Loaded(alike[0].kind.shape, alike[0].kind.dtype, (name,))
        else:
            gathered.setdefault(renamed.name, []).append((renamed, alike))
    for name, parts in gathered.items():
        simple.update(_convert(name, parts, lookup))
    return Load(simple, tuple(unexpected))


def _alike(tensors: Mapping[str, Tensor], rename: Renamer, leaves: Collection[str] | None) -> Iterator[Sequence[Stack]]:
    """Tensors that go the same way: those of the experts of a layer, else one by one."""
    if rename.minds_indices:
        yield from ([alone(tensor)] for tensor in tensors.values())
        return
    sets: dict[tuple[str, str], list[Stack]] = {}
    for stack in stacks_of(tensors):
        sets.setdefault((stack.before, stack.after), []).append(stack)
    for alike in sets.values():
        first, last = alike[0].first, alike[-1].last
        if first == last or _is_one(rename(first), rename(last), leaves):
            yield alike
        else:
            yield from ([stack.part([at])] for stack in alike for at in range(len(stack.indices)))


def _is_one(one: Renamed, other: Renamed, leaves: Collection[str] | None) -> bool:
    """Whether tensors become parts of the same parameter, or no parameter of the model has such a name."""
    if one.converter is not None:
        return one == other
    return leaves is not None and one.name.rpartition(".")[2] not in leaves


def _convert(name: str, parts: list[tuple[Renamed, Sequence[Stack]]], lookup: Lookup) -> dict[str, Loaded]:
    transform: Transform = parts[0][0].converter
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for renamed, alike in parts:
        for stack in alike:
            shapes.setdefault(renamed.source, []).extend([stack.kind.shape] * len(stack.indices))
    names = tuple(stored for _, alike in parts for stack in alike for stored in stack.names())
    dtype = parts[0][1][0].kind.dtype
    found = converted(transform, name, shapes, lookup)
    if found is None:
        targets = [name.replace(transform.targets[0], target) for target in transform.targets]
        return {target: Loaded(None, dtype, names) for target in targets}
    return {target: Loaded(shape, dtype, names) for target, shape in found.items()}


def knower(root: Structure, lookup: Lookup, leaves: Collection[str] | None = None) -> Callable[[str], bool]:
    """Whether the model may have a parameter or saved buffer of this name; `leaves` are `leaves_of` it, where known."""
    results: dict[str, bool] = {}
    counts: dict[str, int | None] = {}
    places: dict[str, list[Structure]] = {}
    children: dict[int, dict[str, Child]] = {}

    def below(structures: list[Structure], part: str) -> list[Structure]:
        found = []
        for structure in structures:
            named = children.get(id(structure))
            if named is None:
                named = children[id(structure)] = {child.name: child for child in structure.children}
            child = child_of(named, part)
            if child is not None and not (child.name == "*" and _beyond(child, int(part))):
                found += [option for _, option in child.options]
        return found

    def _beyond(child: Child, index: int) -> bool:
        if child.when is None or not _LAYERS.search(child.when):
            return False
        if child.when not in counts:
            counts[child.when] = count_of(child.when, lookup)
        limit = counts[child.when]
        return limit is not None and index >= limit

    def at(path: str) -> list[Structure]:
        """What may stand at a module's path; open structures stand for all that is below them."""
        found = places.get(path)
        if found is None:
            parent, dot, part = path.rpartition(".")
            above = at(parent) if dot else [root]
            found = above if any(structure.is_open for structure in above) else below(above, part)
            places[path] = found
        return found

    def known(name: str) -> bool:
        if leaves is not None and name.rpartition(".")[2] not in leaves:
            return False
        if name not in results:
            path, dot, leaf = name.rpartition(".")
            structures = at(path) if dot else [root]
            results[name] = any(structure.is_open for structure in structures) or any(
                slot.name == leaf and slot.saved
                for structure in structures
                for slot in structure.parameters + structure.buffers
            )
        return results[name]

    return known


def leaves_of(root: Structure) -> set[str] | None:
    """Every name that a parameter or buffer may have; None where the structure is open."""
    found: set[str] = set()
    done: set[int] = set()
    waiting = [root]
    while waiting:
        structure = waiting.pop()
        if structure.is_open:
            return None
        if id(structure) not in done:
            done.add(id(structure))
            found |= {slot.name for slot in structure.parameters + structure.buffers}
            waiting += [option for child in structure.children for _, option in child.options]
    return found


def child_of(named: Mapping[str, Child], part: str) -> Child | None:
    """The child that a name's part leads to: of this very name, or of any index."""
    if part in named:
        return named[part]
    stem = part.rstrip("0123456789")
    return named.get(f"{stem}*") if stem != part else None


def count_of(when: str, lookup: Lookup) -> int | None:
    """The number of children that "n:..." states; None where config.json does not tell."""
    text = when.removeprefix("n:")
    if text.isdigit():
        return int(text)
    path, offset = re.fullmatch(r"(.*?)([+-]1)?", text).groups()
    value = lookup(path)
    if isinstance(value, (list, tuple)):
        value = len(value)
    return value + int(offset or 0) if isinstance(value, int) else None
