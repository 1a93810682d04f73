"""What a module class may look like, over all configs, and how it is written in the facts file.

A line of the facts is `name<TAB>JSON`, the JSON `[cls, children, parameters, buffers, kind, groups, flags]`, what is
empty at the end left out:

    cls                   "" where it is the line's name without its number
    children              "name line" for a child that is always there, "name? line" for one that is there if the
                          checkpoint has weights for it, else [name, when, [[condition, line], ...]]: `when` is a
                          condition, "+other": where that sibling is, "n:" and a number or a field: so many, or 0: as
                          "?"; a condition "!" is: where no other's holds. "*" or "stage*" stand for any index;
                          a line "[n:num_layers]LlamaDecoderLayer" is a ModuleList of so many
    parameters, buffers   texts: name, then ":" and marks: a digit (dimensions), "?" (not under every config),
                          "-" (a buffer that is not saved), "=F32" (a dtype that the class fixes)
    groups                "" for 1, "out" for the number of output channels, a number, or a config field
    flags                 1: experts are kept (experts, in, out);  2: below it anything may stand
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

_EMPTY: tuple[Any, ...] = ("", (), (), (), "", "", 0)
_NUMBER = re.compile(r"\.\d+$")

# A class written as this and a field's path is the activation that the field names.
ACTIVATION = "ACT2FN:"


class Slot(NamedTuple):
    """A parameter or buffer that a module of a class has."""

    name: str
    dimensions: int | None  # None where it differs
    always: bool = True
    saved: bool = True
    dtype: str | None = None  # fixed by the class


class Structure(NamedTuple):
    """A module class with all below it, over all configs."""

    cls: str
    kind: str
    parameters: tuple[Slot, ...] = ()
    buffers: tuple[Slot, ...] = ()
    groups: str = ""
    children: "tuple[Child, ...]" = ()
    transposed: bool = False
    is_open: bool = False  # what is below is not known, only the checkpoint tells


class Child(NamedTuple):
    """A place below a module, and what stands there under which config."""

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


def write_structure(name: str, structure: Structure, refer: Callable[[Structure], str]) -> list[Any]:
    """The JSON of a line; `refer` gives the names of the lines that children stand in."""
    written = [
        "" if structure.cls == name else structure.cls,
        [_write_child(child, refer) for child in structure.children],
        [write_slot(slot) for slot in structure.parameters],
        [write_slot(slot) for slot in structure.buffers],
        "" if structure.kind == "other" else structure.kind,
        structure.groups,
        structure.transposed + 2 * structure.is_open,
    ]
    while len(written) > 1 and not written[-1]:
        written.pop()
    return written


def write_list(structure: Structure, refer: Callable[[Structure], str]) -> str | None:
    """A plain ModuleList as "[count]line", which needs no line of its own; None for all else."""
    plain = structure == Structure("ModuleList", "other", children=structure.children)
    if not plain or len(structure.children) != 1:
        return None
    child = structure.children[0]
    if child.name != "*" or len(child.options) != 1 or child.options[0][0]:
        return None
    return f"[{child.when or ''}]{refer(child.options[0][1])}"


def line_of(ref: str) -> str:
    """The line that a reference leads to, lists around it taken off."""
    return ref.rpartition("]")[2]


def _write_child(child: Child, refer: Callable[[Structure], str]) -> Any:
    options = [[condition, refer(option)] for condition, option in child.options]
    if len(options) == 1 and not options[0][0] and child.when in ("", None):
        return f"{child.name}{'' if child.when == '' else '?'} {options[0][1]}"
    return [child.name, 0 if child.when is None else child.when, options]


def read_children(written: Sequence[Any]) -> list[tuple[str, str | None, list[tuple[str, str]]]]:
    """(name, when, [(condition, line's name), ...]) of a line's children."""
    found = []
    for child in written:
        if isinstance(child, str):
            name, _, ref = child.partition(" ")
            found.append((name.removesuffix("?"), None if name.endswith("?") else "", [("", ref)]))
        else:
            name, when, options = child
            found.append((name, None if when == 0 else when, [tuple(option) for option in options]))
    return found


def read_structure(name: str, parsed: Mapping[str, Sequence[Any]], known: dict[str, Structure]) -> Structure:
    """The structure behind a line's name; `parsed` holds the JSON of every line that it needs."""
    if name in known:
        return known[name]
    if name[0] == "[":
        count, _, element = name[1:].partition("]")
        child = Child("*", count or None, (("", read_structure(element, parsed, known)),))
        known[name] = Structure("ModuleList", "other", children=(child,))
        return known[name]
    cls, children, parameters, buffers, kind, groups, flags = (*parsed[name], *_EMPTY[len(parsed[name]) :])
    known[name] = Structure(
        cls or _NUMBER.sub("", name),
        kind or "other",
        tuple(map(read_slot, parameters)),
        tuple(map(read_slot, buffers)),
        groups,
        tuple(
            Child(child, when, tuple((cond, read_structure(ref, parsed, known)) for cond, ref in options))
            for child, when, options in read_children(children)
        ),
        bool(flags & 1),
        bool(flags & 2),
    )
    return known[name]
