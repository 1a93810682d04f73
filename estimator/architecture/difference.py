"""Where two module trees of the same model differ: what headers hold against what config.json promises."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from estimator.architecture.module import ModuleTree, parameter_shapes

_LAYER = re.compile(r"^(.*?\.?\w+)\.(\d+)\.")


class Difference(NamedTuple):
    """One named difference."""

    code: str  # "layers" | "vocabulary" | "shape" | "missing" | "additional"
    name: str  # of a parameter, or of a list of layers
    headers: str  # what the headers hold
    config: str  # what config.json promises
    message: str


def compare(headers: ModuleTree, config: ModuleTree) -> list[Difference]:
    """The differences, by name: layers that are missing, other rows of a vocabulary, other shapes. [] where none."""
    ours, theirs = parameter_shapes(headers.modules), parameter_shapes(config.modules)
    if ours == theirs:
        return []
    layers = _layers(ours, theirs)
    cut = tuple(f"{difference.name}." for difference in layers)
    found = list(layers)
    embeddings = {f"{name}.weight" for name in (config.input_embedding, config.output_embedding) if name}
    for name in sorted(ours.keys() & theirs.keys()):
        one, other = ours[name], theirs[name]
        if one != other:
            rows = name in embeddings and one[1:] == other[1:]
            found.append(_of_shape("vocabulary" if rows else "shape", name, one, other))
    for code, names in (("missing", theirs.keys() - ours.keys()), ("additional", ours.keys() - theirs.keys())):
        found += [_lone(code, name) for name in sorted(names) if not name.startswith(cut or ("\0",))]
    return found


def _layers(ours: Iterable[str], theirs: Iterable[str]) -> list[Difference]:
    """Lists of layers whose numbers differ."""
    here, there = _counts(ours), _counts(theirs)
    return [
        Difference("layers", name, str(here[name]), str(there[name]), _counted(name, here[name], there[name]))
        for name in sorted(here.keys() & there.keys())
        if here[name] != there[name]
    ]


def _counted(name: str, one: int, other: int) -> str:
    return f"{name} has {one:,} layers in the headers, {other:,} by config.json."


def _counts(names: Iterable[str]) -> dict[str, int]:
    seen: dict[str, set[str]] = {}
    for name in names:
        if match := _LAYER.match(name):
            seen.setdefault(match[1], set()).add(match[2])
    return {name: len(indices) for name, indices in seen.items()}


def of_held_lists(names: Iterable[str], held: Iterable[str]) -> Iterator[str]:
    """Those of the names that stand in a list of layers of which something is held."""
    lists = {match[1] for name in held if (match := _LAYER.match(name))}
    return (name for name in names if (match := _LAYER.match(name)) and match[1] in lists)


def _of_shape(code: str, name: str, one: tuple[int, ...], other: tuple[int, ...]) -> Difference:
    here, there = (" x ".join(f"{size:,}" for size in shape) for shape in (one, other))
    return Difference(
        code, name, str(list(one)), str(list(other)), f"{name} is {here} in the headers, {there} by config.json."
    )


def _lone(code: str, name: str) -> Difference:
    where = "config.json promises it; the headers lack it" if code == "missing" else "config.json does not promise it"
    held = ("absent", "present") if code == "missing" else ("present", "absent")
    return Difference(code, name, *held, f"{name}: {where}.")
