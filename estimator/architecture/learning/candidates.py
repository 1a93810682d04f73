"""Formulas that might give a row of numbers, simplest first. It needs numpy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from estimator.architecture.learning.truths import Observation

_NEAR = 14
_LARGEST = 1e9


def candidates(observed: Sequence[Observation], sizes: Sequence[int]) -> Iterator[str]:
    """Texts for formula.py: a field, a multiple of one or of a quotient or product of two, with something added."""
    target = np.array(sizes, dtype=float)
    columns = _columns(observed)
    for name, column in columns.items():
        if np.array_equal(column, target):
            yield name
    if np.ptp(target) == 0:
        return
    near = _near(columns, target)
    for name, row in itertools.chain(near.items(), _terms(near)):
        yield from _scaled(name, row, target)


def _columns(observed: Sequence[Observation]) -> dict[str, np.ndarray]:
    rows = [_features(one) for one in observed]
    shared = set.intersection(*map(set, rows))
    found = {}
    for name in sorted(shared, key=lambda name: (name.count("."), name.count("["), len(name), name)):
        column = np.array([row[name] for row in rows], dtype=float)
        if np.ptp(column) and np.abs(column).max() < _LARGEST:
            found[name] = column
    return found


def _features(one: Observation) -> dict[str, float]:
    found: dict[str, float] = {"#": one.place.index}
    for path, value in one.values.items():
        if type(value) in (int, float):
            found[path] = value
        elif isinstance(value, list) and value:
            found[f"{path}[]"] = len(value)
            if all(type(each) in (int, float) for each in value):
                at = {"0": 0, "-1": len(value) - 1, "#": one.place.index, "#+1": one.place.index + 1}
                found |= {f"{path}[{mark}]": value[index] for mark, index in at.items() if index < len(value)}
    return found


def _near(columns: Mapping[str, np.ndarray], target: np.ndarray) -> dict[str, np.ndarray]:
    """The fields that go with the size best, one for each set of values."""
    kept, seen = {}, set()
    for name, column in sorted(columns.items(), key=lambda pair: -abs(np.corrcoef(pair[1], target)[0, 1])):
        if column.tobytes() not in seen:
            seen.add(column.tobytes())
            kept[name] = column
        if len(kept) == _NEAR:
            break
    return kept


def _terms(columns: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    for one, other in itertools.permutations(columns, 2):
        if np.all(columns[other] > 0):
            yield f"{one}//{other}", np.floor(columns[one] / columns[other])
        if one < other:
            yield f"{one}*{other}", columns[one] * columns[other]
            yield f"({one}+{other})", columns[one] + columns[other]


def _scaled(name: str, row: np.ndarray, target: np.ndarray) -> Iterator[str]:
    """The row times or divided by a whole number, with something added."""
    if not np.ptp(row):
        return
    for slope in (1, 2, 3, 4, 6, 8):
        rest = target - slope * row
        if np.ptp(rest) == 0:
            scaled = name if slope == 1 else f"{slope}*{name}" if "//" not in name else f"{slope}*({name})"
            yield scaled if rest[0] == 0 else f"{scaled}{int(rest[0]):+d}"
    for slope in (2, 3, 4, 8, 16, 32):
        for text, divided in ((f"{name}//{slope}", row // slope), (f"ceil({name}/{slope})", np.ceil(row / slope))):
            rest = target - divided
            if np.ptp(rest) == 0:
                yield text if rest[0] == 0 else f"{text}{int(rest[0]):+d}"
    for multiple in (8, 16, 32, 64, 128, 256):
        if np.array_equal(np.ceil(row / multiple) * multiple, target):
            yield f"ceil({name}/{multiple})*{multiple}"
