"""A tree's modules by name and by the last part of their names, worked out once per tree."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from math import prod
from typing import Any, TypeVar

from estimator.architecture.module import Module, ModuleTree, Parameter, QuantisedLayer, named_parameters

T = TypeVar("T")
_KEPT_TREES = 8
_KEPT_ANSWERS = 256


def suffixes_of(name: str) -> list[str]:
    """`a.b.c` as c, b.c, a.b.c."""
    parts = name.split(".")
    return [".".join(parts[place:]) for place in reversed(range(len(parts)))]


class TreeIndex:
    """What matching asks of a tree; answers are remembered, because a batch asks the same again and again."""

    def __init__(self, tree: ModuleTree) -> None:
        self.tree = tree
        self.modules: dict[str, Module] = {module.name: module for module in tree.modules if module.name}
        self.order: dict[str, int] = {name: place for place, name in enumerate(self.modules)}
        self.by_last_part: dict[str, list[str]] = {}
        for name in self.modules:
            self.by_last_part.setdefault(name.rpartition(".")[2], []).append(name)
        self._answers: dict[Hashable, Any] = {}

    def remembered(self, key: Hashable, answer: Callable[[], T]) -> T:
        """`answer()`, worked out once per key."""
        if key not in self._answers:
            if len(self._answers) >= _KEPT_ANSWERS:
                self._answers.clear()
            self._answers[key] = answer()
        return self._answers[key]

    def with_suffix(self, suffix: str) -> list[str]:
        """Names that are `suffix` or end with `.suffix`: how PEFT matches a name of a list."""
        names = self.by_last_part.get(suffix.rpartition(".")[2], [])
        if "." not in suffix:
            return names
        return [name for name in names if name == suffix or name.endswith("." + suffix)]

    def with_suffixes(self, suffixes: Iterable[str]) -> dict[str, list[str]]:
        """The same for each of many suffixes, at the cost of one pass over the names that they may end."""
        found: dict[str, list[str]] = {}
        dotted: dict[str, set[str]] = {}
        for suffix in suffixes:
            before, _, last = suffix.rpartition(".")
            found[suffix] = [] if before else self.by_last_part.get(suffix, [])
            if before:
                dotted.setdefault(last, set()).add(suffix)
        for last, wanted in dotted.items():
            for name in self.by_last_part.get(last, ()):
                for suffix in suffixes_of(name):
                    if suffix in wanted:
                        found[suffix].append(name)
        return found

    def with_part(self, part: str) -> list[str]:
        """Names that have `part` between their dots."""
        return self.remembered("parts", self._by_part).get(part, [])

    def _by_part(self) -> dict[str, list[str]]:
        by_part: dict[str, list[str]] = {}
        for name in self.modules:
            for part in dict.fromkeys(name.split(".")):
                by_part.setdefault(part, []).append(name)
        return by_part

    def in_order(self, names: Iterable[str]) -> list[str]:
        """In the order of named_modules()."""
        return sorted(names, key=self.order.__getitem__)

    def children(self, name: str) -> list[str]:
        """Names of the modules below `name`, at any depth."""
        prefix = name + "."
        return [other for other in self.modules if other.startswith(prefix)]

    def root(self, parameter: str) -> str:
        """The name of the parameter that `parameter` is tied to, itself where it is tied to none."""
        seen = set()
        while parameter in self.tree.tied and parameter not in seen:
            seen.add(parameter)
            parameter = self.tree.tied[parameter]
        return parameter

    def packed(self, name: str) -> QuantisedLayer | None:
        """The layer that holds a module's weight packed, where it is known in which tensors.

        One with a state beside its parameters is no such layer where its weight is another's.
        """
        layer = self.tree.quantised.get(name)
        if layer is None or layer.saved_beside is None:
            return None
        return layer if not layer.saved_beside or self.is_converted(name) else None

    def held(self, module: Module) -> tuple[Parameter, ...]:
        """A module's own parameters, packed where it is known in which tensors; a tied one is as its owner has it."""
        packed = self.packed(module.name)
        return module.parameters if packed is None else tuple(self._owned(module.name, p) for p in packed.parameters)

    def beside(self, name: str) -> tuple[Parameter, ...]:
        """What state_dict() has of a packed module next to its parameters."""
        packed = self.packed(name)
        return () if packed is None else (*(packed.saved_beside or ()), *(b for b in packed.buffers if b.persistent))

    def _owned(self, name: str, parameter: Parameter) -> Parameter:
        full = f"{name}.{parameter.name}"
        owner, _, last = self.root(full).rpartition(".")
        if owner == name or owner not in self.modules:
            return parameter
        return next(
            (p._replace(name=parameter.name) for p in self.held(self.modules[owner]) if p.name == last), parameter
        )

    def is_converted(self, name: str) -> bool:
        """Whether a quantised module's weight was converted: one that is tied to an embedding's is that one's."""
        return self.root(f"{name}.weight").rpartition(".")[0] in self.tree.quantised

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """Every parameter under its full name, ties included."""
        return self.remembered("named_parameters", self._named_parameters)

    def _named_parameters(self) -> list[tuple[str, Parameter]]:
        return list(named_parameters(self.tree.modules))

    def all_parameters(self) -> int:
        """Elements of the distinct parameters as PEFT counts them: a Params4bit stands for two elements a byte."""
        return self.remembered("all_parameters", self._all_parameters)

    def _all_parameters(self) -> int:
        if not self.tree.quantised:
            return sum({self.root(name): prod(own.shape) for name, own in self.named_parameters()}.values())
        distinct = {}
        for module in self.tree.modules:
            packed = self.packed(module.name)
            for own in self.held(module):
                counted = packed.packed_factor if packed is not None and own.name == "weight" else 1
                distinct[self.root(f"{module.name}.{own.name}")] = counted * prod(own.shape)
        return sum(distinct.values())


_indexes: dict[int, TreeIndex] = {}


def index_of(tree: ModuleTree) -> TreeIndex:
    """The index of this very tree; the last few are kept."""
    index = _indexes.get(id(tree))
    if index is None or index.tree is not tree:
        if len(_indexes) >= _KEPT_TREES:
            _indexes.pop(next(iter(_indexes)))
        index = _indexes[id(tree)] = TreeIndex(tree)
    return index
