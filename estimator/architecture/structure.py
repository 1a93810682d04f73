"""What a module class may look like, over all configs, and how it is written in the facts file.

A line of the facts is `name<TAB>JSON`, the JSON `[cls, kind, parameters, buffers, groups, children, flags]`:

    parameters, buffers   texts: name, then ":" and marks: a digit (dimensions), "?" (not under every config),
                          "-" (a buffer that is not saved), "=F32" (a dtype that the class fixes)
    groups                "" for 1, "out" for the number of output channels, a number, or a config field
    children              [name, when, [[condition, line name], ...]]: name "*" stands for any index; `when` is a condition,
                          0: there if the checkpoint has weights for it, "n:" and a number or a field: so many
    options               their condition "!" is: where no other's holds
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Slot(NamedTuple):
    name: str
    dimensions: int | None  # None where it differs
    always: bool = True
    saved: bool = True
    dtype: str | None = None  # fixed by the class


class Structure(NamedTuple):
    cls: str
    kind: str
    parameters: tuple[Slot, ...] = ()
    buffers: tuple[Slot, ...] = ()
    groups: str = ""
    children: tuple[Child, ...] = ()
    transposed: bool = False


class Child(NamedTuple):
    name: str  # "*": any index
    when: str | None  # a condition; None: where the checkpoint has weights for it
    options: tuple[tuple[str, Structure], ...]  # condition and structure, the likeliest first


def write_slot(slot: Slot) -> str:
    marks = "" if slot.dimensions is None else str(slot.dimensions)
    marks += "" if slot.always else "?"
    marks += "" if slot.saved else "-"
    marks += f"={slot.dtype}" if slot.dtype else ""
    return f"{slot.name}:{marks}" if marks else slot.name


def read_slot(text: str) -> Slot:
    name, _, marks = text.partition(":")
    marks, _, dtype = marks.partition("=")
    dimensions = next((int(mark) for mark in marks if mark.isdigit()), None)
    return Slot(name, dimensions, "?" not in marks, "-" not in marks, dtype or None)


def read_structure(name: str, parsed: dict[str, Sequence], known: dict[str, Structure]) -> Structure:
    """The structure behind a line's name; `parsed` holds the JSON of every line that it needs."""
    if name in known:
        return known[name]
    cls, kind, parameters, buffers, groups, children, transposed = parsed[name]
    known[name] = Structure(
        cls,
        kind or "other",
        tuple(map(read_slot, parameters)),
        tuple(map(read_slot, buffers)),
        groups,
        tuple(
            Child(
                child,
                None if when == 0 else when,
                tuple((cond, read_structure(ref, parsed, known)) for cond, ref in options),
            )
            for child, when, options in children
        ),
        bool(transposed),
    )
    return known[name]
