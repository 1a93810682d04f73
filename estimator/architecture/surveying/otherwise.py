"""What this release holds otherwise than an older one whose holdings were written: the rows of newer.facts."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import transformers

from estimator.architecture.surveying import tiny
from estimator.architecture.surveying.holding import Holding, Place, Tensor, configs, held, holding

_FLOAT32 = "torch.float32"
_SAME = "same"
Held = Mapping[str, Tensor]
Mark = tuple[str, str, str]  # a mark of newer.py, a module class, what is in it


class Rows:
    """What was seen of every place, and of those that differ."""

    def __init__(self) -> None:
        self.outcomes: dict[Place, set[str]] = defaultdict(set)
        self.differ: list[tuple[str, tuple[Place, ...]]] = []
        self.modules: Counter[str] = Counter()  # of each class
        self.added: Counter[Mark] = Counter()  # in how many modules

    def compare(self, older: Held, newer: Held) -> None:
        for name, tensor in older.items():
            outcome = outcome_of(tensor, newer.get(name))
            places = _with_root(tensor.places)
            for cls, own in places:
                for place in _prefixes(cls, own):
                    self.outcomes[place].add(outcome)
            if outcome != _SAME:
                self.differ.append((outcome, places))
        self.modules.update(cls for cls, _ in modules_of(older))
        self.added.update(mark for mark, _ in {*added(older, newer)})

    def written(self) -> list[str]:
        """The rows, in order. What is there anew in some modules of a class alone is left out: of layers that the older
        release makes nothing of.
        """
        found: dict[tuple[str, str], set[str]] = defaultdict(set)
        for (mark, cls, own), count in self.added.items():
            if "?" in mark or count == self.modules[cls]:
                found[cls, mark].add(own)
        for outcome, places in self.differ:
            cls, own = self._place(outcome, places)
            found[cls, outcome].add(own)
        return sorted(" ".join((cls, mark, *sorted(own))) for (cls, mark), own in found.items())

    def _place(self, outcome: str, places: tuple[Place, ...]) -> Place:
        """The innermost of which everything differs so, as far up as it does; the whole model's where there is none."""
        alike = (place for cls, own in places for place in _prefixes(cls, own) if self.outcomes[place] == {outcome})
        return next(alike, places[-1])


def _with_root(places: tuple[Place, ...]) -> tuple[Place, ...]:
    """The places, and the outermost as the whole model's."""
    cls, own = places[-1]
    return (*places, (f"^{cls}", own))


def _prefixes(cls: str, own: str) -> Iterator[Place]:
    parts = own.split(".")
    return ((cls, ".".join(parts[: at + 1])) for at in range(len(parts)))


def outcome_of(older: Tensor, newer: Tensor | None) -> str:
    """A mark of newer.py, or that nothing differs."""
    buffer = "-buffer" * (older.kind == "buffer")
    if newer is None or (newer.kind == "buffer") != bool(buffer):
        return f"lacks{buffer}"
    if (newer.shape, newer.kind, newer.tied) != (older.shape, older.kind, older.tied):
        return f"other{buffer}"
    if newer.dtypes == older.dtypes:
        return _SAME
    return "float32" if newer.dtypes.count(_FLOAT32) > older.dtypes.count(_FLOAT32) else "16-bit"


def modules_of(tensors: Held) -> set[tuple[str, str]]:
    """The class and the name of every module around a tensor."""
    return {(cls, _outside(name, own)) for name, tensor in tensors.items() for cls, own in tensor.places}


def _outside(name: str, own: str) -> str:
    return ".".join(name.split(".")[: -len(own.split("."))])


def added(older: Held, newer: Held, mark: str = "has") -> Iterator[tuple[Mark, str]]:
    """What only the newer has, in the innermost module that both have, and that module's name."""
    modules = modules_of(older)
    for name, tensor in newer.items():
        if outcome_of(tensor, older.get(name)).startswith("lacks"):
            around = ((cls, own, _outside(name, own)) for cls, own in tensor.places)
            cls, own, module = next(place for place in around if (place[0], place[2]) in modules)
            yield (mark + "-buffer" * (tensor.kind == "buffer"), cls, own), module


def by_new_fields(name: str, varied: bool, older: Holding, newer: Holding) -> Iterator[Mark]:
    """What fields change that only the newer release's config has."""
    for key, base in configs(name, varied).items() if newer.fields - older.fields else ():
        plain = newer.tensors.get(key, {})
        for path, value in tiny.changes(tiny.make(name, base)) if plain else ():
            field = ".".join(path)
            if field in newer.fields - older.fields and (changed := held(name, tiny.changed(base, path, value))):
                for (mark, cls, own), _ in (*added(plain, changed), *added(changed, plain, "lacks")):
                    yield f"{mark}?{field}", cls, own


def main(path: str) -> None:
    """Prints this release and the rows."""
    warnings.simplefilter("ignore")
    rows = Rows()
    with Path(path).open("rb") as stream:
        while True:
            try:
                name, varied, older = pickle.load(stream)  # noqa: S301 - this script's own
            except EOFError:
                break
            try:
                newer = holding(name, varied)
                by_fields = list(by_new_fields(name, varied, older, newer))
            except Exception as error:
                print(f"{name}: {type(error).__name__}: {error}"[:200], file=sys.stderr)
                continue
            for config in older.tensors.keys() & newer.tensors.keys():
                rows.compare(older.tensors[config], newer.tensors[config])
            rows.added.update(by_fields)
    print(transformers.__version__)
    print("\n".join(rows.written()))
