"""From a checkpoint's tensors to a model's parameters: what transformers would load where, and what it would leave."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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


Structures = tuple[Structure, ...]


class Loaded(NamedTuple):
    """A parameter or saved buffer as it is loaded."""

    shape: tuple[int, ...] | None  # at run time; None where headers can't tell
    dtype: str  # as stored
    tensors: tuple[str, ...]  # the stored tensors that it is made of


class Load(NamedTuple):
    """What transformers would load of a checkpoint, and what it would leave."""

    parameters: Mapping[str, Loaded]  # by full run-time name; buffers that are saved too
    unexpected: tuple[
        tuple[str, int], ...
    ]  # stored tensors that the model has no place for: one of each kind, how many


def load(tensors: Mapping[str, Tensor], facts: ClassFacts, lookup: Lookup) -> Load:
    """Every stored tensor: loaded into which parameter, or left."""
    leaves = leaves_of(facts.root)
    known = Knower(facts.root, lookup, leaves)
    transforms = [read_transform(number, written) for number, written in enumerate(facts.transforms)]
    rename = Renamer(transforms, facts.prefix, known)
    counted = not rename.minds_indices and leaves is not None and not _has_numbered(facts.root)
    return placed(tensors, rename, known, lookup, leaves=leaves, counted=counted)


def placed(
    tensors: Mapping[str, Tensor],
    rename: Renamer,
    known: Callable[[str], bool],
    lookup: Lookup,
    *,
    leaves: Collection[str] | None = None,
    counted: bool = False,
) -> Load:
    """Every tensor by what `rename` makes of its name, where that is `known`.

    leaves: every name that a parameter may have, where they are known. counted: an index is known if a higher one is.
    """
    simple: dict[str, Loaded] = {}
    gathered: dict[str, tuple[Transform, list[tuple[str, Sequence[Stack]]]]] = {}
    unexpected = []
    for alike in _alike(tensors, rename):
        if counted and (run := _run(alike, rename, known)):
            simple.update(run)
            continue
        for stacks in _parts(alike, rename, leaves):
            name, count = stacks[0].first, sum(len(stack.indices) for stack in stacks)
            renamed = rename(name)
            if not known(renamed.name):
                unexpected.append((name, count))
            elif renamed.converter is None:
                simple[renamed.name] = Loaded(stacks[0].kind.shape, stacks[0].kind.dtype, (name,))
            else:
                _, parts = gathered.setdefault(renamed.name, (renamed.converter, []))
                parts.append((renamed.source, stacks))
    for name, (transform, parts) in gathered.items():
        simple.update(_convert(name, transform, parts, lookup))
    return Load(simple, tuple(unexpected))


def _alike(tensors: Mapping[str, Tensor], rename: Renamer) -> Iterable[Sequence[Stack]]:
    """Tensors whose names differ by an index alone, where the model's names then differ so as well."""
    if rename.minds_indices:
        return ([alone(tensor)] for tensor in tensors.values())
    sets: dict[tuple[str, str], list[Stack]] = {}
    for stack in stacks_of(tensors):
        sets.setdefault((stack.before, stack.after), []).append(stack)
    return sets.values()


def _run(alike: Sequence[Stack], rename: Renamer, known: Callable[[str], bool]) -> dict[str, Loaded]:
    """Tensors of a list's modules, each with its parameter; {} where not all go the same way.

    In a list whose children are told apart by number alone, an index is known if a higher one is: what holds for the
    lowest and the highest holds for all between.
    """
    if not alike[0].before:
        return {}
    before, after = alike[0].before, alike[0].after
    indices = [index for stack in alike for index in stack.indices]
    low, high = min(indices, key=int), max(indices, key=int)
    one, other = rename(f"{before}{low}{after}"), rename(f"{before}{high}{after}")
    if one.converter or other.converter or not (known(one.name) and known(other.name)):
        return {}
    for match in re.finditer(rf"(?<![^.]){low}(?![^.])", one.name):
        start, end = one.name[: match.start()], one.name[match.end() :]
        if f"{start}{high}{end}" == other.name and low != high:
            return {
                f"{start}{index}{end}": Loaded(stack.kind.shape, stack.kind.dtype, (f"{before}{index}{after}",))
                for stack in alike
                for index in stack.indices
            }
    return {}


def _has_numbered(root: Structure) -> bool:
    """Whether a module anywhere is called by a number of its own, not by its place in a list."""
    return any(child.name.isdigit() for structure in _all(root) for child in structure.children)


def _parts(alike: Sequence[Stack], rename: Renamer, leaves: Collection[str] | None) -> Iterator[Sequence[Stack]]:
    """The tensors together where they become one parameter, or none; else one by one."""
    first, last = alike[0].first, alike[-1].last
    if first == last or _is_one(rename(first), rename(last), leaves):
        yield alike
        return
    for before, after, indices, kind, begins, file in alike:
        for index, begin in zip(indices, begins, strict=True):
            yield [Stack(before, after, (index,), kind, (begin,), file)]


def _is_one(one: Renamed, other: Renamed, leaves: Collection[str] | None) -> bool:
    """Whether tensors become parts of the same parameter, or no parameter of the model has such a name."""
    if one.converter is not None:
        return one == other
    return leaves is not None and one.name.rpartition(".")[2] not in leaves


def _convert(
    name: str, transform: Transform, parts: Sequence[tuple[str, Sequence[Stack]]], lookup: Lookup
) -> dict[str, Loaded]:
    """What a converter makes of its parts; each with the source pattern that it matched."""
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for source, alike in parts:
        for stack in alike:
            shapes.setdefault(source, []).extend([stack.kind.shape] * len(stack.indices))
    names = tuple(stored for _, alike in parts for stack in alike for stored in stack.names())
    dtype = parts[0][1][0].kind.dtype
    found = converted(transform, name, shapes, lookup)
    if found is None:
        targets = [name.replace(transform.targets[0], target) for target in transform.targets]
        return {target: Loaded(None, dtype, names) for target in targets}
    return {target: Loaded(shape, dtype, names) for target, shape in found.items()}


class Knower:
    """Whether the model may have a parameter or saved buffer of a name; `leaves` are `leaves_of` it, where known.

    What is found is kept: layers that are alike are one object, and each place and leaf is looked at once.
    """

    def __init__(self, root: Structure, lookup: Lookup, leaves: Collection[str] | None = None) -> None:
        self._top, self._lookup, self._leaves = (root,), lookup, leaves
        self._known: dict[str, bool] = {}
        self._counts: dict[str, int | None] = {}  # by the condition that states them
        self._places: dict[str, Structures] = {}
        self._below: dict[tuple[int, str], Structures] = {}  # by id(structures above), name
        self._alike: dict[tuple[int, ...], Structures] = {}
        self._held: dict[tuple[int, str], bool] = {}  # by id(structures), leaf

    def __call__(self, name: str) -> bool:
        found = self._known.get(name)
        if found is None:
            path, dot, leaf = name.rpartition(".")
            if self._leaves is not None and leaf not in self._leaves:
                return False
            structures = self._at(path) if dot else self._top
            found = self._held.get((id(structures), leaf))
            if found is None:
                found = self._held[id(structures), leaf] = _holds(structures, leaf)
            self._known[name] = found
        return found

    def _at(self, path: str) -> Structures:
        """What may stand at a module's path; open structures stand for all that is below them."""
        found = self._places.get(path)
        if found is None:
            parent, dot, part = path.rpartition(".")
            above = self._at(parent) if dot else self._top
            found = self._below.get((id(above), part))
            if found is None:
                is_open = any(structure.is_open for structure in above)
                found = self._below[id(above), part] = above if is_open else self._under(above, part)
            self._places[path] = found
        return found

    def _under(self, above: Structures, part: str) -> Structures:
        found: list[Structure] = []
        for structure in above:
            child = child_of({child.name: child for child in structure.children}, part) or any_child(structure)
            if child is not None and not (child.name == "*" and self._is_beyond(child, int(part))):
                found += [option for _, option in child.options]
        return self._alike.setdefault(tuple(map(id, found)), tuple(found))

    def _is_beyond(self, child: Child, index: int) -> bool:
        """Whether a layer stands behind the last that config.json has built."""
        if child.when is None or not _LAYERS.search(child.when):
            return False
        if child.when not in self._counts:
            self._counts[child.when] = count_of(child.when, self._lookup)
        limit = self._counts[child.when]
        return limit is not None and index >= limit


def _holds(structures: Structures, leaf: str) -> bool:
    return any(
        structure.is_open or any(slot.name == leaf and slot.saved for slot in structure.parameters + structure.buffers)
        for structure in structures
    )


def leaves_of(root: Structure) -> set[str] | None:
    """Every name that a parameter or buffer may have; None where the structure is open."""
    found: set[str] = set()
    for structure in _all(root):
        if structure.is_open:
            return None
        found |= {slot.name for slot in structure.parameters + structure.buffers}
    return found


def _all(root: Structure) -> Iterator[Structure]:
    """The structure and all below it, each once."""
    done: set[int] = set()
    waiting = [root]
    while waiting:
        structure = waiting.pop()
        if id(structure) not in done:
            done.add(id(structure))
            yield structure
            waiting += [option for child in structure.children for _, option in child.options]


def child_of(named: Mapping[str, Child], part: str) -> Child | None:
    """The child that a name's part leads to: of this very name, or of any index."""
    if part in named:
        return named[part]
    stem = part.rstrip("0123456789")
    return named.get(f"{stem}*") if stem != part else None


def any_child(structure: Structure) -> Child | None:
    """The child of a dictionary of modules that are all alike, whose names are config.json's (X-MOD's languages)."""
    if structure.cls != "ModuleDict" or len(structure.children) != 1 or structure.children[0].name.endswith("*"):
        return None
    return structure.children[0]


def count_of(when: str, lookup: Lookup) -> int | None:
    """The number of children that "n:..." states; None where config.json does not tell."""
    text = when.removeprefix("n:")
    if text.isdigit():
        return int(text)
    path = text.removesuffix("+1").removesuffix("-1")
    value = lookup(path)
    if isinstance(value, (list, tuple)):
        value = len(value)
    return value + int(text[len(path) :] or 0) if isinstance(value, int) else None
