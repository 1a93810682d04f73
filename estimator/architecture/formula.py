"""Sizes and places as short texts over config fields: written by experiment, evaluated here.

A size is a number or a sum of terms, "2*a*b/c+64": factors are fields, numbers, `#` (the index of the layer), `path[#]`
(a list's element at this index; `[#+1]`, `[#-1]`, `[0]`, `[-1]`, `[^]` of the outer index, `[]` its length) and
`path^64` (rounded up to a multiple) and `a:b` (a divided by b, downwards). "/" divides the term downwards, a "~"
behind it halves it upwards. Conditions are those of conditions.py and

    "%period:offset"    the index less the offset is a multiple of the period; both are fields or numbers
    "has path value"    a list field has the element
    "in path" "out path" the index is, is not in a list field
    "a==b"  "a!=b"      two fields are, are not equal
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from estimator.architecture.conditions import Lookup, Place, holds


class Unfit(ValueError):
    """A config that the formulas were not tested on: a field is missing, or is not of the form that they know."""


_ITEM = re.compile(r"(.+)\[(.*)\]")


def evaluate(formula: int | str, lookup: Lookup, place: Place) -> int:
    """The size. Raises Unfit where a field is missing or is no number."""
    if isinstance(formula, int):
        return formula
    total = sum(_term(term, lookup, place) for term in formula.split("+_"))
    if total < 0 or total != int(total):
        raise Unfit(formula)
    return int(total)


def _term(term: str, lookup: Lookup, place: Place) -> int:
    if term.endswith("~"):
        return -(-_term(term[:-1], lookup, place) // 2)
    above, *below = term.split("/")
    value: Any = 1
    for factor in above.split("*"):
        value *= _factor(factor, lookup, place)
    for factor in below:
        divisor = _factor(factor, lookup, place)
        if not divisor:
            raise Unfit(term)
        value = value // divisor
    return int(value)


def _factor(factor: str, lookup: Lookup, place: Place) -> Any:
    if factor.lstrip("-").isdigit():
        return int(factor)
    if factor == "#":
        return place.index
    if ":" in factor and "^" not in factor:
        one, other = (_factor(part, lookup, place) for part in factor.split(":"))
        if not other:
            raise Unfit(factor)
        return one // other
    path, mark, multiple = factor.partition("^") if "[" not in factor else (factor, "", "")
    read = _factor if ":" in path else item if "[" in path else None
    value = read(path, lookup, place) if read else lookup(path)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unfit(f"{path} is {value!r}")
    return -(-value // int(multiple)) * int(multiple) if mark else value


def item(path: str, lookup: Lookup, place: Place) -> Any:
    """A list field's element, or its length."""
    name, where = _ITEM.fullmatch(path).groups()
    values = lookup(name)
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise Unfit(f"{name} is {values!r}")
    if not where:
        return len(values)
    index = int(where) if where.lstrip("-").isdigit() else _index(where, place)
    if not -1 <= index < len(values):
        raise Unfit(f"{path} is out of range")
    return values[index]


def _index(where: str, place: Place) -> int:
    if where == "^":
        return (place.outer or place).index
    return place.index + int(where[1:] or 0)


def met(condition: str, lookup: Lookup, place: Place) -> bool:
    """Whether a condition holds. Raises Unfit where a field that it compares is missing."""
    if " / " in condition:
        return any(met(part, lookup, place) for part in condition.split(" / "))
    if " & " in condition:
        return all(met(part, lookup, place) for part in condition.split(" & "))
    if condition.startswith("%"):
        period, _, offset = condition[1:].partition(":")
        steps = _factor(period, lookup, place)
        return bool(steps) and (place.index - _factor(offset, lookup, place)) % steps == 0
    if condition.startswith("has "):
        _, path, value = condition.split(" ")
        return value in (lookup(path) or ())
    if condition.startswith(("in ", "out ")):
        word, _, path = condition.partition(" ")
        return (place.index in (int(one) for one in lookup(path) or ())) == (word == "in")
    for mark in ("==", "!="):
        if mark in condition:
            one, other = condition.split(mark)
            return (lookup(one) == lookup(other)) == (mark == "==")
    return holds(condition, lookup, place)


def choose(options: Sequence[Sequence[Any]], lookup: Lookup, place: Place) -> Any:
    """The second of the first pair whose condition holds. Raises Unfit where none does."""
    for condition, value in options:
        if met(condition, lookup, place):
            return value
    raise Unfit(f"none of {[condition for condition, _ in options]}")


def by_default(rule: Mapping[str, Any], lookup: Lookup) -> Any:
    """A field's value where config.json leaves it out."""
    if "is" in rule:
        return rule["is"]
    if "size" in rule:
        return evaluate(choose(rule["size"], lookup, Place()), lookup, Place())
    if "choice" in rule:
        return choose(rule["choice"], lookup, Place())
    length = evaluate(rule["length"], lookup, Place())
    return [choose(rule["items"], lookup, Place(index, length)) for index in range(length)]
