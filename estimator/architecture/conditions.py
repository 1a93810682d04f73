"""Conditions on config.json and on a layer's place, written as short texts.

    ""                  always
    "?path"  "!path"    the field is truthy, is not
    "path=a|b"          the field's JSON text is one of these;  "path~a|b": is none of these
    "path@a|b"          the list field's element at this layer's index is one of these
    "path@@a|b"         the same of the list said over and over
    "path<"  "path>="   the index is below the field's number, or not;  "one-other<": below the difference of two
    "#=0|2" "#~0|2"     the index is, is not one of these;  "#%2=1": its remainder;  "#last" "#!last"
    "#first" "#!first"  all indices that lead there are 0, are not
    "^..."              the same of the next outer index, as the stage of a block;  "^^...": of the one after
    "a & b"             both;  "a / b": either

A path is a field of config.json, nested ones joined by dots. `None` fields count as absent: the class's default stands
in, from the facts.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Which of how many: the innermost list index that leads to a module."""

    # nobody asks a tuple's own index() and count() of it
    index: int = 0  # type: ignore[assignment]
    count: int = 1  # type: ignore[assignment]
    first: bool = True  # the outer indices are 0 too
    outer: Any = None  # the Place of the list around it

    def inner(self, index: int, count: int) -> "Place":
        """The place of a list's element below this one."""
        return Place(index, count, self.first and index == 0, self)


Lookup = Callable[[str], Any]


def lookup_in(config: Mapping[str, Any], defaults: Mapping[str, Any], aliases: Mapping[str, str]) -> Lookup:
    """Reads a field by path: from config.json, else the class's default. Of a field's two names the alias wins.

    transformers 5.23.0, PreTrainedConfig.__post_init__ sets what is no field of the class last, by `attribute_map`.
    """

    def lookup(path: str) -> Any:
        found = _get(config, aliases[path]) if path in aliases else None
        if found is None:
            found = _get(config, path)
        return defaults.get(path) if found is None else found

    return lookup


def _get(config: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(config, Mapping):
            return None
        config = config.get(key)
    return config


def holds(condition: str, lookup: Lookup, place: Place) -> bool:
    """Whether a condition is true of a config and a place."""
    if not condition:
        return True
    if " / " in condition:
        return any(holds(part, lookup, place) for part in condition.split(" / "))
    if " & " in condition:
        return all(holds(part, lookup, place) for part in condition.split(" & "))
    if condition[0] == "^":
        return holds(condition[1:], lookup, place.outer or place)
    if condition[0] == "#":
        return _holds_of_place(condition[1:], place)
    if condition[0] in "?!":
        return bool(lookup(condition[1:])) == (condition[0] == "?")
    return _holds_of_field(condition, lookup, place)


def _holds_of_place(text: str, place: Place) -> bool:
    if text in ("last", "!last"):
        return (place.index == place.count - 1) == (text == "last")
    if text in ("first", "!first"):
        return place.first == (text == "first")
    if text[0] == "%":
        modulus, _, remainder = text[1:].partition("=")
        return place.index % int(modulus) == int(remainder)
    return (str(place.index) in text[1:].split("|")) == (text[0] == "=")


def _holds_of_field(text: str, lookup: Lookup, place: Place) -> bool:
    at = min(position for mark in "=~@<>" if (position := text.find(mark)) > 0)
    value, mark, rest = lookup(text[:at]), text[at], text[at + 1 :]
    if mark in "<>":
        if "-" in text[:at]:
            numbers = [lookup(path) for path in text[:at].split("-")]
            value = numbers[0] - numbers[1] if all(isinstance(number, int) for number in numbers) else None
        return isinstance(value, int) and (place.index < value) == (mark == "<")
    if mark == "@":
        values = value if isinstance(value, (list, tuple)) else ()
        index = place.index % len(values) if rest[0] == "@" and values else place.index
        return index < len(values) and written(values[index]) in rest.lstrip("@").split("|")
    return (written(value) in rest.split("|")) == (mark == "=")


def written(value: Any) -> str:
    """A field's value as conditions write it."""
    return value if isinstance(value, str) else json.dumps(value)


def under(condition: str, section: str) -> str:
    """The condition, or "n:..." of a count, with its fields looked up in a section of the config."""
    if not condition or condition[0] in "#+" or condition == "!":
        return condition
    for joint in (" / ", " & "):
        if joint in condition:
            return joint.join(under(part, section) for part in condition.split(joint))
    if condition.startswith("n:"):
        return condition if condition[2:].isdigit() else f"n:{section}.{condition[2:]}"
    if condition[0] in "^?!":
        rest = condition[1:]
        return condition[0] + (under(rest, section) if condition[0] == "^" else f"{section}.{rest}")
    at = min(position for mark in "=~@<>" if (position := condition.find(mark)) > 0)
    return "-".join(f"{section}.{path}" for path in condition[:at].split("-")) + condition[at:]
