"""Formulas that might give a row of numbers, simplest first. Only generators import this file; it needs numpy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

_MULTIPLES = (8, 16, 32, 64, 128, 256)
_TOLERANCE = 1e-9


def candidates(columns: Mapping[str, np.ndarray], target: np.ndarray) -> Iterator[str]:
    for name, column in columns.items():
        if np.array_equal(column, target):
            yield name
    names, stack = _terms(columns, 1)
    yield from _scaled(names, stack, target)
    yield from _rounded(columns, target)
    yield from _halved(columns, target)
    near = _near(columns, target)
    names, stack = _terms(near, 2)
    yield from _scaled(names, stack, target)
    both = _near(dict(list(near.items())[:14]) | _quotients(near), target, 30)
    names, stack = _terms(both, 2)
    yield from _scaled(names, stack, target)
    yield from _half_terms(names, stack, target)
    names, stack = _terms(dict(list(near.items())[:14]), 3)
    yield from _scaled(names, stack, target)
    few = dict(list(near.items())[:9])
    for degree, columns in ((2, few), (2, dict(list(both.items())[:14])), (3, dict(list(near.items())[:6]))):
        names, stack = _terms(columns, degree)
        yield from _sums(names, stack, target)
    names, stack = _terms(dict(list(near.items())[:8]), 2)
    yield from _triples(names, stack, target)


def _correlation(column: np.ndarray, target: np.ndarray) -> float:
    return abs(float(np.corrcoef(column, target)[0, 1]))


def _near(columns: Mapping[str, np.ndarray], target: np.ndarray, most: int = 24) -> dict[str, np.ndarray]:
    """The fields that go with the size best, one for each set of values."""
    kept, seen = {}, set()
    for name, column in sorted(columns.items(), key=lambda pair: -_correlation(pair[1], target)):
        if column.tobytes() not in seen:
            seen.add(column.tobytes())
            kept[name] = column
        if len(kept) == most:
            break
    return kept


def _terms(columns: Mapping[str, np.ndarray], degree: int) -> tuple[list[str], np.ndarray]:
    """Products of so many fields, quotients among them."""
    names, rows = [], []
    for size in range(1, degree + 1):
        for parts in itertools.combinations_with_replacement(columns, size):
            for below in range(size):
                for under in set(itertools.combinations(parts, below)) if below else [()]:
                    above = list(parts)
                    for one in under:
                        above.remove(one)
                    if set(above) & set(under):
                        continue
                    row = np.prod([columns[one] for one in above], axis=0)
                    with np.errstate(all="ignore"):
                        for one in under:
                            row = np.floor(row / columns[one])
                    if np.all(np.isfinite(row)) and np.ptp(row):
                        names.append("/".join(["*".join(above), *under]))
                        rows.append(row)
    return names, np.array(rows) if rows else np.zeros((0, 0))


def _quotients(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """a // b of all pairs where b goes into a."""
    found = {}
    for one, other in itertools.permutations(columns, 2):
        if np.all(columns[other] > 0):
            quotient = np.floor(columns[one] / columns[other])
            if quotient.max() >= 1 and np.ptp(quotient):
                found[f"{one}:{other}"] = quotient
    return found


def _half_terms(names: Sequence[str], stack: np.ndarray, target: np.ndarray) -> Iterator[str]:
    """Half of a term, upwards."""
    for name, row in zip(names, stack, strict=True):
        if np.array_equal(np.ceil(np.floor(row + _TOLERANCE) / 2), target):
            yield f"{name}~"


def _scaled(names: Sequence[str], stack: np.ndarray, target: np.ndarray) -> Iterator[str]:
    """c * term / k + d."""
    if not names:
        return
    spread = stack - stack.mean(axis=1, keepdims=True)
    centred = target - target.mean()
    slopes = (spread @ centred) / np.maximum((spread**2).sum(axis=1), _TOLERANCE)
    offsets = target.mean() - slopes * stack.mean(axis=1)
    for divide in (False, True):
        wrong = np.abs(slopes[:, None] * stack + offsets[:, None] - target).max(axis=1)
        right = [at for at in range(len(names)) if (wrong[at] < 1e-6 * max(1, target.max()) or divide)]
        for at in sorted(
            right, key=lambda at: (abs(offsets[at]) > 0.01, abs(slopes[at] - 1) > 0.01, names[at].count("/"), at)
        ):
            fine = abs(slopes[at]) > 1e-6 and (not divide or 0.01 < slopes[at] < 0.9)
            if fine and (text := _text(names[at], slopes[at], offsets[at])):
                yield text
        if divide or len(names) > 400:
            return


def _text(name: str, slope: float, offset: float) -> str | None:
    above, slash, under = name.partition("/")
    whole, inverse = round(slope), round(1 / slope)
    if whole and abs(slope - whole) < 1e-4:
        scaled = name if whole == 1 else f"{whole}*{name}"
    elif inverse and abs(1 / slope - inverse) < 0.05 and inverse > 1:
        scaled = f"{above}{slash}{under}/{inverse}"
    else:
        for bottom in (3, 5, 6, 7, 8):
            if abs(slope * bottom - round(slope * bottom)) < 1e-4:
                scaled = f"{round(slope * bottom)}*{name}/{bottom}"
                break
        else:
            return None
    add = round(offset)
    return scaled if not add or abs(offset) < 0.4 else f"{scaled}+_{add}"


def _rounded(columns: Mapping[str, np.ndarray], target: np.ndarray) -> Iterator[str]:
    for name, column in columns.items():
        for multiple in _MULTIPLES:
            if np.array_equal(np.ceil(column / multiple) * multiple, target):
                yield f"{name}^{multiple}"
            if np.array_equal(np.ceil(column / multiple), target):
                yield f"{name}^{multiple}/{multiple}"


def _halved(columns: Mapping[str, np.ndarray], target: np.ndarray) -> Iterator[str]:
    """Half of a field, or of a quotient of two, upwards: as many frequencies as pairs of features."""
    for name, column in columns.items():
        if np.array_equal(np.ceil(np.floor(column) / 2), target):
            yield f"{name}^2/2"
    for one, other in itertools.permutations(columns, 2):
        if np.all(columns[other] > 0) and np.array_equal(np.ceil(np.floor(columns[one] / columns[other]) / 2), target):
            yield f"{one}:{other}^2/2"


def _sums(names: Sequence[str], stack: np.ndarray, target: np.ndarray) -> Iterator[str]:
    """a * term + b * term + d, by least squares over all pairs."""
    if len(names) < 2:
        return
    names, stack = names[:320], stack[:320]
    spread, centred = stack - stack.mean(axis=1, keepdims=True), target - target.mean()
    gram, with_target = spread @ spread.T, spread @ centred
    for one, other in itertools.combinations(range(len(names)), 2):
        determinant = gram[one, one] * gram[other, other] - gram[one, other] ** 2
        if determinant < 1e-6 * gram[one, one] * gram[other, other]:
            continue
        a = (with_target[one] * gram[other, other] - with_target[other] * gram[one, other]) / determinant
        b = (with_target[other] * gram[one, one] - with_target[one] * gram[one, other]) / determinant
        if min(abs(a - round(a)), 1) > 1e-3 or abs(b - round(b)) > 1e-3 or not round(a) or not round(b):
            continue
        residual = target - a * stack[one] - b * stack[other]
        if np.ptp(residual) < 1e-3 * max(1, target.max()):
            terms = [f"{round(a)}*{names[one]}", f"{round(b)}*{names[other]}"]
            offset = round(float(residual.mean()))
            yield "+_".join(terms + ([str(offset)] if offset else []))


def _triples(names: Sequence[str], stack: np.ndarray, target: np.ndarray) -> Iterator[str]:
    """Sums of three terms without a quotient, whole coefficients up to 8, an offset."""
    whole = [at for at, name in enumerate(names) if "/" not in name][:40]
    ones = np.ones_like(target)
    for three in itertools.combinations(whole, 3):
        matrix = np.stack([*(stack[at] for at in three), ones], axis=1)
        try:
            found = np.linalg.solve(matrix.T @ matrix, matrix.T @ target)
        except np.linalg.LinAlgError:
            continue
        if (
            np.abs(found - np.round(found)).max() > 1e-2
            or not np.all(np.round(found[:3]))
            or np.abs(found[:3]).max() > 9
        ):
            continue
        rounded = np.round(found)
        if np.array_equal(matrix @ rounded, target):
            terms = [f"{int(c)}*{names[at]}" for c, at in zip(rounded, three, strict=False)]
            yield "+_".join(terms + ([str(int(rounded[3]))] if rounded[3] else []))
