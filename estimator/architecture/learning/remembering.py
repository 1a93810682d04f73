"""Numbers and texts that remember how they came about.

A how is a field's path, a number, ("index", k, end) for a loop's variable (with its end in the last turn), ("item",
how, k, length) for an element of a list, ("len", how) for a list's length, or (operator, how, ...). What goes through
another library or a string is lost: such a size has no how.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, SupportsIndex

How = Any
_DEEPEST = 20
_OPERATORS = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**",
}  # fmt: skip
_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


class Sized(int):
    """A dimension with its how; else a plain number."""

    how: How

    def __new__(cls, value: int, how: How) -> Sized:
        made = int.__new__(cls, value)
        made.how = how
        return made


class Traced:
    """What Int and Float share: the log that comparisons go to, and the how."""

    how: How
    log: dict[How, None]

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __bool__(self) -> bool:
        self.log.setdefault(("!=", self.how, 0))
        return plain(self) != 0

    def __neg__(self) -> Any:
        return remember(-plain(self), ("-", 0, self.how), self.log)

    def __ceil__(self) -> Any:
        return remember(math.ceil(plain(self)), ("ceil", self.how), self.log)

    def __floor__(self) -> Any:
        return remember(math.floor(plain(self)), ("floor", self.how), self.log)

    def __round__(self, digits: SupportsIndex | None = None) -> Any:
        if digits is not None:
            return round(plain(self), digits)
        return remember(round(plain(self)), ("round", self.how), self.log)


class Int(Traced, int):
    __hash__ = int.__hash__

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return int, (plain(self),)


class Float(Traced, float):
    __hash__ = float.__hash__

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return float, (plain(self),)


def plain(value: Any) -> Any:
    if isinstance(value, Int):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, Float) else value


def how_of(value: Any) -> How:
    """A number's how: itself where it is a plain one."""
    if isinstance(value, (Traced, Sized)):
        return value.how
    return value.item() if hasattr(value, "item") else value  # numpy's


def remember(value: Any, how: How, log: dict[How, None]) -> Any:
    cls = Int if type(value) is int else Float if type(value) is float else None
    if cls is None:
        return value
    if _depth(how) > _DEEPEST:
        return value  # a sum that a loop added up
    made = cls.__new__(cls, value)
    made.how, made.log = how, log
    return made


def _depth(how: How) -> int:
    return 1 + max(map(_depth, how[1:])) if isinstance(how, tuple) else 0


def _arithmetic(name: str, sign: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    act = getattr(operator, name)

    def forward(self: Any, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        return remember(act(plain(self), plain(other)), (sign, self.how, how_of(other)), self.log)

    def backward(self: Any, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        return remember(act(plain(other), plain(self)), (sign, how_of(other), self.how), self.log)

    return forward, backward


def _comparison(name: str, sign: str) -> Callable[..., Any]:
    act = getattr(operator, name)

    def compare(self: Any, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        self.log.setdefault((sign, self.how, how_of(other)))
        return act(plain(self), plain(other))

    return compare


for _cls in (Int, Float):
    for _name, _sign in _OPERATORS.items():
        _forward, _backward = _arithmetic(_name, _sign)
        setattr(_cls, f"__{_name}__", _forward)
        setattr(_cls, f"__r{_name}__", _backward)
    for _name, _sign in _COMPARISONS.items():
        setattr(_cls, f"__{_name}__", _comparison(_name, _sign))


class Text(str):
    """A text field: what it is compared with are values that the class knows."""

    path: str
    known: dict[tuple[str, str], None]

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            self.known.setdefault((self.path, str(other)))
        return str.__eq__(self, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __copy__(self) -> Text:
        return self

    def __deepcopy__(self, memo: Any) -> Text:
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return str, (str.__str__(self),)


class Items(list):
    """A list field: its elements remember, and its length where `len` is trace.py's."""

    how: How


class FixedItems(tuple):
    """The same of a tuple."""

    how: How


class _IntLike(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, int)

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, int)


class AnyInt(metaclass=_IntLike):
    """Stands in for `int` in modelling files: int(traced float) stays traced."""

    def __new__(cls, *arguments: Any) -> Any:
        value = arguments[0] if len(arguments) == 1 else None
        if isinstance(value, Int):
            return value
        if isinstance(value, Float):
            return remember(int(plain(value)), ("int", value.how), value.log)
        return int(*arguments)


class Reckoning:
    """Stands in for `math` or numpy in modelling files: what they make of traced numbers stays traced."""

    def __init__(self, library: Any, log: dict[How, None]) -> None:
        self._library, self._log = library, log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def log2(self, value: Any) -> Any:
        """Of a number; numpy's takes arrays too."""
        if not isinstance(value, Traced):
            return self._library.log2(value)
        return remember(math.log2(plain(value)), ("log2", value.how), self._log)

    def sqrt(self, value: Any) -> Any:
        """The same."""
        return value**0.5 if isinstance(value, Traced) else self._library.sqrt(value)

    def prod(self, values: Any, *arguments: Any, **named: Any) -> Any:
        """Of a list field, or of numbers one by one."""
        if isinstance(values, (Items, FixedItems)):
            return remember(math.prod(map(plain, values)), ("prod", values.how), self._log)
        if isinstance(values, (list, tuple)) and any(isinstance(one, Traced) for one in values):
            return functools.reduce(operator.mul, values)
        return self._library.prod(values, *arguments, **named)


def plain_values(values: Any) -> Any:
    """A config's dictionary without what its values remember."""
    if isinstance(values, dict):
        return {key: plain_values(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [plain_values(value) for value in values]
    return str.__str__(values) if isinstance(values, Text) else plain(values)
