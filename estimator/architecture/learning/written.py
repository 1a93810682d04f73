"""A how as a formula's text, with loop variables and list indices made general."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from estimator.architecture.conditions import Place
from estimator.architecture.learning.remembering import How

_RANK = {"==": 0, "!=": 0, "<": 0, "<=": 0, ">": 0, ">=": 0, "+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "%": 2, "**": 3}
_MOST = 24


def texts(how: How, place: Place) -> Iterator[str]:
    """The formulas that a how at a place may mean: its index is the layer's, the outer list's, or just a number."""
    yield from itertools.islice((text for text, _ in _texts(how, place)), _MOST)


def general(how: How) -> Iterator[str]:
    """The formulas that a how seen at no known place may mean: a loop's variable is the layer's or the outer index."""
    first = min(_indices(how), default=0)
    yield from _anywhere(how, (False, None), (True, None), (False, first))


def from_the_last(how: How) -> Iterator[str]:
    """The same of a how with elements at several indices: the last one is the layer's, the others stand before it."""
    indices = set(_indices(how))
    if len(indices) > 1:
        yield from _anywhere(how, (False, max(indices)))


def _anywhere(how: How, *ways: tuple[bool, int | None]) -> Iterator[str]:
    found = (text for at in _ANYWHERE for way in ways for text in texts(_moved(how, at, *way), at))
    yield from (text for text in dict.fromkeys(found) if not _NO_NUMBER.search(text))


_INNER, _OUTER = 100_003, 1_000_003  # indices that no code has as a number
_NO_NUMBER = re.compile(rf"{_INNER}|{_OUTER}")
_ANYWHERE = (Place(_INNER, _OUTER, False), Place(_INNER, _OUTER, False, Place(_OUTER, _OUTER, False, Place())))


def _indices(how: How) -> Iterator[int]:
    """Where the elements stand that a how holds."""
    if isinstance(how, tuple):
        if how[0] == "item" and isinstance(how[1], str):
            yield how[2]
        for one in how[1:]:
            yield from _indices(one)


def _moved(how: How, place: Place, is_last_kept: bool, first: int | None) -> How:
    """The how with every index that is a loop's variable turned into the innermost, or the outer one of the place.

    Of a list of lists the outer index picks the list, the inner one its element; the next one is a column of a table. A
    last element may be meant as such, and an element by how far it stands from the first one.
    """
    if not isinstance(how, tuple) or (is_last_kept and how[0] == "item" and how[2] == how[3] - 1):
        return how
    outer = place.outer or place
    if how[0] == "index":
        return ("index", outer.index, None)
    if how[0] == "item" and isinstance(how[1], tuple):
        at = how[2] if isinstance(how[1][1], tuple) else place.index
        return ("item", _moved(how[1], place, is_last_kept, first), at, 0)
    if how[0] == "item":
        return ("item", how[1], outer.index + (0 if first is None else how[2] - first), 0)
    return (how[0], *(_moved(one, place, is_last_kept, first) for one in how[1:]))


def _texts(how: How, place: Place) -> Iterator[tuple[str, int]]:
    """(text, how strongly it binds)."""
    if isinstance(how, str):
        yield how, 4
    elif isinstance(how, (int, float)):
        yield str(how) if how >= 0 else f"(0-{-how})", 4
    elif how[0] == "index":
        yield from ((mark, 4 if len(mark) == 1 or mark.isdigit() else 0) for mark in _turns(how, place))
    elif how[0] == "item":
        _, held, at, length = how
        marks = list(_marks(at, place))
        if at == length - 1 > 0:
            marks[-1] = "-1"  # rather than the number
        for (path, _), mark in itertools.product(list(_texts(held, place)), marks):
            yield f"{path}[{mark}]", 4
    elif how[0] == "len":
        yield from ((f"{path}[]", 4) for path, _ in _texts(how[1], place))
    elif how[0] in _RANK:
        yield from _operation(how, place)
    else:
        for parts in itertools.product(*(list(_texts(one, place)) for one in how[1:])):
            yield f"{how[0]}({','.join(text for text, _ in parts)})", 4


def _operation(how: How, place: Place) -> Iterator[tuple[str, int]]:
    sign, one, other = how
    rank = _RANK[sign]
    if sign in ("*", "//", "**", "/") and other == 1 and sign != "/":
        yield from _texts(one, place)
        return
    for (left, left_rank), (right, right_rank) in itertools.product(_texts(one, place), list(_texts(other, place))):
        loose = left_rank < rank or (left_rank == rank and sign == "**")
        tight = right_rank <= rank and not (sign == "+" and right_rank == rank)
        first = f"({left})" if loose else left
        yield f"{first}{sign}{f'({right})' if tight else right}", rank


def _turns(how: How, place: Place) -> list[str]:
    """Ways to say a loop's variable: in its last turn rather by the loop's end than as a number."""
    _, value, end = how
    marks = list(_marks(value, place))
    if isinstance(end, (str, tuple)) and value > 0:
        marks[-1:] = [f"{text}-1" for text, _ in itertools.islice(_texts(end, place), 2)]
    return marks


def _marks(value: int, place: Place) -> Iterator[str]:
    """Ways to say an index at a place, the likelier first."""
    around = place.outer and place.outer.outer
    indices = {"#": place.index} | ({"^": place.outer.index} if around else {})
    if around and around.outer:
        indices["^^"] = around.index
    yield from (name for name, index in indices.items() if value == index)
    for name, index in indices.items():
        if index > 1 and value == index // 2:
            yield f"{name}//2"
        if index > 2 and value == index // 2 + 1:
            yield f"{name}//2+1"
        if 0 < abs(value - index) <= 2:
            yield f"{name}{value - index:+d}"
    yield str(value)
