"""Sizes as formulas of config fields, found from observations. Only generators import this file; it needs numpy."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from estimator.architecture.conditions import Place
from estimator.architecture.discover import Setting, find_condition
from estimator.architecture.formula import Unfit, by_default, evaluate, met

_MULTIPLES = (8, 16, 32, 64, 128, 256)
_WIDE = 60  # features; more makes products of three too many
_TOLERANCE = 1e-9


class Observation:
    """One config (a Setting's place included), its numbers by feature and its raw values."""

    __slots__ = ("features", "mixed", "setting", "values")

    def __init__(self, values: Mapping[str, Any], setting: Setting, mixed: bool = False) -> None:
        self.values, self.setting, self.mixed = values, setting, mixed  # mixed: several numbers changed at once
        self.features = _features(values, setting.place)

    def lookup(self, path: str) -> Any:
        """The field's value; Unfit where there is none."""
        if path not in self.values:
            raise Unfit(path)
        return self.values[path]


def values_of(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Scalars and lists by dotted path."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= values_of(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return found


def _features(values: Mapping[str, Any], place: Place) -> dict[str, float]:
    found: dict[str, float] = {}
    for path, value in values.items():
        if type(value) in (int, float):
            found[path] = value
        elif isinstance(value, list) and value:
            found[f"{path}[]"] = len(value)
            if all(type(one) in (int, float) for one in value):
                found |= _elements(path, value, place)
    found["#"] = place.index
    return found


def _elements(path: str, value: Sequence[float], place: Place) -> dict[str, float]:
    at = {"0": 0, "-1": -1, "1": 1, "#": place.index, "#+1": place.index + 1, "#-1": place.index - 1}
    at["^"] = (place.outer or place).index
    return {f"{path}[{mark}]": value[index] for mark, index in at.items() if -1 <= index < len(value)}


class Fitter:
    """Fits with a memory: the same sizes under the same configs are asked for again and again."""

    def __init__(self, varying: Sequence[str]) -> None:
        self.varying = tuple(varying)
        self._known: dict[Any, Any] = {}

    def fit(self, observed: Sequence[Observation], sizes: Sequence[int], hint: str = "") -> Any:
        """A formula, or [[condition, formula], ...]; None where none fits every observation."""
        if len(set(sizes)) == 1:
            return sizes[0]
        key = (tuple(id(one.values) for one in observed), tuple(one.setting.place for one in observed), tuple(sizes))
        if key not in self._known:
            kept = {}
            for one, size in zip(observed, sizes, strict=True):
                kept.setdefault((id(one.values), one.setting.place, size), (one, size))
            pairs = list(kept.values())
            self._known[key] = self._fit([one for one, _ in pairs], [size for _, size in pairs])
        return self._known[key]

    def _fit(self, observed: Sequence[Observation], sizes: Sequence[int]) -> Any:
        if (plain := self._plain(observed, sizes)) is not None:
            return plain
        for path in self._splitters(observed):
            if (options := self._split(path, observed, sizes)) is not None:
                return options
        return None

    def _splitters(self, observed: Sequence[Observation]) -> list[str]:
        found = []
        for path in self.varying:
            values = {one.setting.fields.get(path, "null") for one in observed}
            numeric = [value for value in values if value.lstrip("-").replace(".", "").isdigit()]
            kinds = len(values) - len(numeric) + bool(numeric)
            if 1 < kinds <= 6:
                found.append(path)
        return found[:40]

    def _split(self, path: str, observed: Sequence[Observation], sizes: Sequence[int]) -> Any:
        groups: dict[str, list[int]] = {}
        for at, one in enumerate(observed):
            value = one.setting.fields.get(path, "null")
            groups.setdefault("#number" if value.lstrip("-").replace(".", "").isdigit() else value, []).append(at)
        options = []
        for places in groups.values():
            part = [observed[at] for at in places]
            formula = self._plain(part, [sizes[at] for at in places])
            others = [one.setting for at, one in enumerate(observed) if at not in set(places)]
            condition = find_condition([one.setting for one in part], others, [path])
            if formula is None or condition is None:
                return None
            options.append([condition, formula])
        return options

    def _plain(self, observed: Sequence[Observation], sizes: Sequence[int]) -> Any:
        if len(set(sizes)) == 1:
            return sizes[0]
        shared = set.intersection(*(set(one.features) for one in observed))
        target = np.array(sizes, dtype=float)
        columns = {}
        for name in sorted(shared, key=lambda name: (name.count("."), name.count("["), len(name), name)):
            column = np.array([one.features[name] for one in observed], dtype=float)
            if np.ptp(column) and np.abs(column).max() < 1e9:
                columns[name] = column
        for text in _candidates(columns, target):
            if _confirmed(text, observed, sizes):
                return text
        return None


def _confirmed(text: str, observed: Sequence[Observation], sizes: Sequence[int]) -> bool:
    try:
        return all(
            evaluate(text, one.lookup, one.setting.place) == size for one, size in zip(observed, sizes, strict=True)
        )
    except (Unfit, TypeError, ValueError):
        return False


def _candidates(columns: Mapping[str, np.ndarray], target: np.ndarray) -> Iterator[str]:
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
            if abs(slopes[at]) > 1e-6 and (text := _text(names[at], slopes[at], offsets[at])):
                if not divide or 0.01 < slopes[at] < 0.9:
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


def default_rule(fitter: Fitter, observed: Sequence[Observation], values: Sequence[Any]) -> dict[str, Any] | None:
    """How a field that is left out is set; None where that can't be told."""
    if all(value == values[0] and type(value) is type(values[0]) for value in values):
        return {"is": values[0]}
    if all(type(value) is int for value in values):
        size = fitter.fit(observed, values)
        return None if size is None else {"size": size if isinstance(size, list) else [["", size]]}
    if all(isinstance(value, list) and value and all(isinstance(one, str) for one in value) for value in values):
        return _list_rule(fitter, observed, values)
    return _choice_rule(fitter, observed, values)


def _choice_rule(fitter: Fitter, observed: Sequence[Observation], values: Sequence[Any]) -> dict[str, Any] | None:
    groups: dict[str, list[Setting]] = {}
    for one, value in zip(observed, values, strict=True):
        groups.setdefault(json.dumps(value), []).append(one.setting)
    options = conditions_of(groups, fitter.varying) if len(groups) < 5 else None
    return None if options is None else {"choice": [[condition, json.loads(value)] for condition, value in options]}


def _list_rule(fitter: Fitter, observed: Sequence[Observation], values: Sequence[list[Any]]) -> dict[str, Any] | None:
    length = fitter.fit(observed, [len(value) for value in values])
    if length is None or isinstance(length, list):
        return None
    groups: dict[str, list[Setting]] = {}
    for one, value in zip(observed, values, strict=True):
        for index, element in enumerate(value):
            groups.setdefault(element, []).append(one.setting._replace(place=Place(index, len(value))))
    options = conditions_of(groups, fitter.varying)
    rule = {"length": length, "items": options}
    if options is None:
        return None
    try:
        right = all(by_default(rule, one.lookup) == value for one, value in zip(observed, values, strict=True))
    except Unfit:
        return None
    return rule if right else None


def conditions_of(groups: Mapping[str, list[Setting]], varying: Sequence[str]) -> list[list[str]] | None:
    """[[condition, key], ...] that tells the groups apart, the last one without; None where there is none."""
    options, left = [], sorted(groups, key=lambda key: len(groups[key]))
    while len(left) > 1:
        for key in left:
            others = [setting for other in left if other != key for setting in groups[other]]
            condition = condition_for(groups[key], others, varying)
            if condition is not None:
                options.append([condition, key])
                left.remove(key)
                break
        else:
            return None
    return [*options, ["", left[0]]]


def condition_for(yes: Sequence[Setting], no: Sequence[Setting], varying: Sequence[str]) -> str | None:
    """find_condition's, else a period and an offset, else two fields that differ."""
    found = find_condition(yes, no, varying)
    if found is None or "#=" in found or "#~" in found:
        kept = []
        for text in _extended([*yes, *no], varying):
            if _tells(text, yes, no):
                return text
            if _tells(text, yes, ()):
                kept.append(text)
        for one, other in itertools.combinations(kept[:50], 2):
            if _tells(f"{one} & {other}", yes, no):
                return f"{one} & {other}"
    return found


def _tells(text: str, yes: Sequence[Setting], no: Sequence[Setting]) -> bool:
    try:
        return all(met(text, _reader(s), s.place) for s in yes) and not any(met(text, _reader(s), s.place) for s in no)
    except Unfit:
        return False


def _reader(setting: Setting) -> Any:
    def lookup(path: str) -> Any:
        if path in setting.lists:
            return setting.lists[path]
        text = setting.fields.get(path, "null")
        return int(text) if text.lstrip("-").isdigit() else {"true": True, "false": False, "null": None}.get(text, text)

    return lookup


def _extended(settings: Sequence[Setting], varying: Sequence[str]) -> Iterator[str]:
    for path in sorted({path for s in settings for path in s.lists}):
        for value in sorted({one for s in settings for one in s.lists.get(path, ()) if one[:1].isalpha()}):
            yield f"has {path} {value}"
    for path in sorted({path for s in settings for path in s.lists}):
        if all(one.isdigit() for s in settings for one in s.lists.get(path, ())):
            yield f"in {path}"
            yield f"out {path}"
    numbers = [p for p in varying if all(s.fields.get(p, "").isdigit() and int(s.fields[p]) < 100 for s in settings)]
    steps = [
        p
        for p in numbers
        if any(mark in p for mark in ("period", "step", "freq", "interval", "pattern", "every", "offset"))
    ]
    for period in (*steps, *map(str, range(2, 9))):
        for offset in ("0", "-1", *steps, *(str(n) for n in range(1, 6))):
            yield f"%{period}:{offset}"
    for path in varying:
        if {s.fields.get(path, "null") for s in settings} <= {"true", "false", "null"}:
            yield f"?{path}"
            yield f"!{path}"
    sizes = [p for p in varying if all(s.fields.get(p, "").isdigit() for s in settings)][:40]
    for one, other in itertools.combinations(sizes, 2):
        yield f"{one}!={other}"
        yield f"{one}=={other}"
