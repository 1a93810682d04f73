"""Sizes and conditions as short texts over config fields: written by experiment, evaluated here.

A size is an expression as Python writes it, without spaces: "num_attention_heads*(hidden_size//num_attention_heads)".
Its names are fields of config.json, nested ones joined by dots; `#` is the index of the layer, `^` that of the list
around it, `^^` of the next one; `path[#]` a list's element at that index (`[#+1]`, `[#//2]`, `[^-1]`, `[0]`, `[-1]`),
`path[]` its length, sum(path) its sum, prod(path) its product; ceil, floor, int, round, max, min and log2 are Python's.

Conditions are those of conditions.py and

    "(one==other)"      two expressions compare so: == != < <= > >=
    "not ..."           it does not hold
    "has path value"    a list field has the element
    "in path" "out path" the index is, is not in a list field
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from estimator.architecture.conditions import Lookup, Place, holds

LARGEST = 1 << 62


class Unfit(ValueError):
    """A config that the formulas were not tested on: a field is missing, or is not of the form that they know."""


class NoNumber(Unfit):
    """A text, list, object or switch stands in config.json where a number belongs."""


class NoModel(Unfit):
    """Nothing is built of such numbers, whatever the class: a division by zero, say."""


Value = Callable[[Lookup, Place], Any]
_TOKEN = re.compile(r"(\d+(?:\.\d+)?(?:e-?\d+)?)|([A-Za-z_][\w.]*(?:\[[^\]]*\])*|#|\^+)|(\*\*|//|[<>=!]=|[-+*/%(),<>])")
_LEVELS = ({"==", "!=", "<", "<=", ">", ">="}, {"+", "-"}, {"*", "/", "//", "%"})
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "ceil": math.ceil, "floor": math.floor, "int": int, "round": round, "max": max, "min": min, "sum": sum,
    "prod": math.prod, "log2": math.log2,
}  # fmt: skip


# What is one number in every config class of transformers 5.23.0: other fields are a list by layer in some of them.
_NO_LISTS = frozenset({"hidden_size", "vocab_size", "num_hidden_layers", "num_key_value_heads", "head_dim", "d_model",
                       "n_embd", "n_layer", "n_head"})  # fmt: skip


def _power(base: Any, exponent: Any) -> Any:
    if abs(exponent) > 64 or abs(base) > LARGEST:
        raise Unfit("too large a number")
    return base**exponent


_ACT: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    "//": lambda a, b: a // b, "%": lambda a, b: a % b, "**": _power, "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}  # fmt: skip


def evaluate(formula: int | str, lookup: Lookup, place: Place) -> int:
    """The size. Raises Unfit where a field is missing or is no number."""
    size = formula if isinstance(formula, int) else calculate(formula, lookup, place)
    if size is None or not 0 <= size < LARGEST or size != int(size):
        raise Unfit(f"{formula} is {size}")
    return int(size)


def calculate(text: str, lookup: Lookup, place: Place) -> Any:
    """The expression's value. Raises Unfit."""
    try:
        return compiled(text)(lookup, place)
    except ZeroDivisionError:
        raise NoModel(f"{text} divides by zero") from None
    except (ArithmeticError, TypeError) as error:
        raise Unfit(f"{text}: {error}") from None


@cache
def compiled(text: str) -> Value:
    """The expression as a function of a lookup and a place."""
    return _Parser(text).whole()


class _Parser:
    """Precedence climbing over the tokens."""

    def __init__(self, text: str) -> None:
        self.tokens = [match.group() for match in _TOKEN.finditer(text)]
        if "".join(self.tokens) != text:
            raise Unfit(text)
        self.at = 0

    def whole(self) -> Value:
        value = self.level(0)
        if self.at < len(self.tokens):
            raise Unfit("".join(self.tokens))
        return value

    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def level(self, number: int) -> Value:
        if number == len(_LEVELS):
            return self.power()
        value = self.level(number + 1)
        while self.next() in _LEVELS[number]:
            value = _both(_ACT[self.take()], value, self.level(number + 1))
        return value

    def power(self) -> Value:
        value = self.operand()
        if self.next() == "**":
            return _both(_ACT[self.take()], value, self.power())
        return value

    def operand(self) -> Value:
        token = self.take()
        if token == "(":
            value = self.level(0)
            self.take()
            return value
        if token == "-":
            value = self.operand()
            return lambda lookup, place: -value(lookup, place)
        if self.next() == "(":
            return self.call(token)
        return _leaf(token)

    def call(self, name: str) -> Value:
        function, values = _FUNCTIONS[name], []
        while self.take() != ")":
            if self.next() != ")":
                values.append(self.level(0) if name not in ("sum", "prod") else _whole_list(self.take()))
        return lambda lookup, place: function(*(value(lookup, place) for value in values))


def _both(act: Callable[[Any, Any], Any], one: Value, other: Value) -> Value:
    return lambda lookup, place: act(one(lookup, place), other(lookup, place))


def _leaf(token: str) -> Value:
    if token[0].isdigit():
        number = float(token) if set(token) & set(".e") else int(token)
        return lambda lookup, place: number
    if token[0] in "#^":
        return lambda lookup, place: _outer(token, place).index
    if token.endswith("]"):
        return lambda lookup, place: _number(token, _held(token, lookup, place))
    return lambda lookup, place: _number(token, lookup(token))


def _number(path: str, value: Any) -> Any:
    """A number, or None, which equals no number and can't be reckoned with."""
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    if isinstance(value, list) and path.rpartition(".")[2] not in _NO_LISTS:  # a list by stage, a height and a width
        raise Unfit(f"{path} is {str(value)[:80]}, and was tried as a number alone")
    held = str(value)[:80] if isinstance(value, list) else repr(str(value)[:80])
    said = "an object or true" if value is True else held  # an object counts as true in conditions
    raise NoNumber(f"{path} is {said}, which is no number")


def _whole_list(token: str) -> Value:
    return lambda lookup, place: [_number(token, value) for value in _listed(token, _held(token, lookup, place))]


def _listed(path: str, values: Any) -> Sequence[Any]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        kind = Unfit if values is None else NoNumber
        raise kind(f"{path} is {str(values)[:80]!r}, where a list belongs")
    return values


def _held(token: str, lookup: Lookup, place: Place) -> Any:
    """What a field holds, or a list of it, or of a list in it, at an index; `[]` is the length."""
    path, *places = token.replace("]", "").split("[")
    value = lookup(path)
    for where in places:
        values = _listed(path, value)
        if not where:
            return len(values)
        index = _index(where, place)
        if not -len(values) <= index < len(values):
            raise Unfit(f"{path}[{where}] is out of range")
        path, value = f"{path}[{where}]", values[index]
    return value


def _index(where: str, place: Place) -> int:
    if where[0] not in "#^":
        return int(where)
    rest = where.lstrip("#^")
    index = _outer(where, place).index
    halved = rest.startswith("//2")
    return _not_negative((index // 2 if halved else index) + int(rest.removeprefix("//2") or 0))


def _outer(mark: str, place: Place) -> Place:
    """The place itself for "#", for each "^" the one around it."""
    for _ in range(mark.count("^")):
        place = place.outer or place
    return place


def _not_negative(index: int) -> int:
    if index < 0:
        raise Unfit("before the list's first element")
    return index


def _joined(parts: Sequence[str], decides: bool, lookup: Lookup, place: Place) -> bool:
    """Whether one of the parts decides, whatever can't be said of the others. Raises Unfit where none does."""
    unfit: Unfit | None = None
    for part in parts:
        try:
            if met(part, lookup, place) is decides:
                return decides
        except Unfit as error:
            unfit = error
    if unfit is not None:
        raise unfit
    return not decides


def met(condition: str, lookup: Lookup, place: Place) -> bool:
    """Whether a condition holds. Raises Unfit where a field that it compares is missing."""
    for joint, decides in ((" / ", True), (" & ", False)):
        if joint in condition:
            return _joined(condition.split(joint), decides, lookup, place)
    if condition.startswith("("):
        return bool(calculate(condition, lookup, place))
    if condition.startswith("not "):
        return not met(condition[4:], lookup, place)
    if condition.startswith("has "):
        _, path, value = condition.split(" ")
        return value in (lookup(path) or ())
    if condition.startswith(("in ", "out ")):
        word, _, path = condition.partition(" ")
        return (place.index in (int(one) for one in lookup(path) or ())) == (word == "in")
    return holds(condition, lookup, place)


def choose(options: Sequence[Sequence[Any]], lookup: Lookup, place: Place) -> Any:
    """The second of the first pair whose condition holds. Raises Unfit where none does."""
    for condition, value in options:
        if met(condition, lookup, place):
            return value
    raise Unfit(f"none of {[condition for condition, _ in options]}")


def _spelt(text: Any, rule: Mapping[str, Any], most: int | None) -> list[Any]:
    """A list written as a text or another list, a letter for each element, and no more than `most` of them."""
    letters = list(map(str, text[:most])) if isinstance(text, (str, list)) else None
    if letters is None or not rule["map"].keys() >= set(letters):
        raise Unfit(f"{rule['letters']} is {str(text)[:80]!r}")
    return [rule["map"][letter] for letter in letters]


def by_default(rule: Mapping[str, Any], lookup: Lookup) -> Any:
    """A field's value where config.json leaves it out."""
    if "is" in rule:
        return rule["is"]
    if "size" in rule:
        return evaluate(choose(rule["size"], lookup, Place()), lookup, Place())
    if "choice" in rule:
        return choose(rule["choice"], lookup, Place())
    if "either" in rule:
        return by_default(choose(rule["either"], lookup, Place()), lookup)
    if "letters" in rule:
        return _spelt(
            lookup(rule["letters"]), rule, evaluate(rule["most"], lookup, Place()) if "most" in rule else None
        )
    length = evaluate(rule["length"], lookup, Place())
    places = [Place(index, length) for index in range(length)]
    if "where" in rule:
        return [place.index for place in places if met(rule["where"], lookup, place)]
    return [choose(rule["items"], lookup, place) for place in places]
