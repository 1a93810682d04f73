"""What a release of transformers newer than the facts' own builds otherwise: newer.facts, written by generate_newer.

A line: a module class, or ^ and that of a whole model, and a mark, then names from there, # for an index. `float32`:
the newer release loads these in float32 where the facts' own takes 16 bits, `16-bit` the reverse. `lacks` and `has`:
parameters that a module of the class no longer holds, and those in their place, `other`: what it holds in another shape
or tied otherwise; all three of buffers with `-buffer` behind. A mark with `?field`: where config.json states a field
that only the newer release knows.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from estimator.architecture.facts import class_for, newer_release
from estimator.architecture.module import ModuleTree
from estimator.notes import Note

_FACTS = Path(__file__).with_name("newer.facts")


def is_newer(name: str) -> bool:
    """Whether only a newer release than the facts' own has what is named so, a class or a model type."""
    return any(newer_release(cls, name) for cls in (name, class_for(name, None)))


def built_otherwise(tree: ModuleTree) -> Iterator[Note]:
    """A word where the newer release builds something of this very model otherwise, and what changes by it."""
    stamp, rows = _rows()
    if not rows.keys().isdisjoint([*(module.cls for module in tree.modules), f"^{tree.architecture}"]):
        from estimator.architecture.otherwise import note  # few classes need it

        yield from note(tree, rows, stamp)


@cache
def _rows() -> tuple[str, dict[str, list[str]]]:
    """The file's first line; module class -> what follows it in its lines."""
    stamp, *lines = _FACTS.read_text(encoding="utf-8").splitlines()
    rows: dict[str, list[str]] = {}
    for line in lines:
        cls, _, said = line.partition(" ")
        rows.setdefault(cls, []).append(said)
    return stamp, rows
