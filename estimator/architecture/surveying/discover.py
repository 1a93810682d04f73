"""Finds the condition that tells two sets of observations apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from estimator.architecture.conditions import Place, written


class Setting(NamedTuple):
    """Under which config, at which place something was seen."""

    fields: dict[str, str]  # path -> written scalar
    lists: dict[str, tuple[str, ...]]  # path -> written elements
    place: Place


def flatten(config: dict[str, Any], prefix: str = "") -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """A config's scalars and lists by dotted path, as conditions write them."""
    fields: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            inner, inner_lists = flatten(value, f"{path}.")
            fields |= inner
            lists |= inner_lists
        elif isinstance(value, (list, tuple)):
            lists[path] = tuple(map(text_of, value))
        else:
            fields[path] = text_of(value)
    return fields, lists


def text_of(value: Any) -> str:
    """The value as conditions write it; of what JSON has no form for, its text."""
    try:
        return written(value)
    except TypeError:
        return str(value)


_OUTER_LISTS = 2  # how far out a condition may look
_FALSY = {"false", "null", "0", "0.0", ""}


def find_condition(yes: Sequence[Setting], no: Sequence[Setting], varying: Iterable[str]) -> str | None:
    """The simplest condition that holds for all of `yes` and for none of `no`; None where there is none."""
    if not no:
        return ""
    yes, no = _distinct(yes, varying), _distinct(no, varying)
    atoms = list(_atoms(yes, no, varying))
    for condition, right, wrong in atoms:
        if len(right) == len(yes) and not wrong:
            return condition
    return _pair(atoms, len(yes))


def _distinct(settings: Sequence[Setting], varying: Iterable[str]) -> list[Setting]:
    kept = {}
    for setting in settings:
        key = (tuple(setting.fields.get(path) for path in varying), tuple(sorted(setting.lists.items())), setting.place)
        kept.setdefault(key, setting)
    return list(kept.values())


def _pair(atoms: list[tuple[str, frozenset[int], frozenset[int]]], wanted: int) -> str | None:
    full = [atom for atom in atoms if len(atom[1]) == wanted][:60]
    for (one, _, wrong), (other, _, wrong_too) in itertools.combinations(full, 2):
        if not wrong & wrong_too:
            return f"{one} & {other}"
    clean = [atom for atom in atoms if not atom[2] and atom[1]][:60]
    for (one, right, _), (other, right_too, _) in itertools.combinations(clean, 2):
        if len(right | right_too) == wanted:
            return f"{one} / {other}"
    return None


def _atoms(
    yes: Sequence[Setting], no: Sequence[Setting], varying: Iterable[str]
) -> Iterator[tuple[str, frozenset[int], frozenset[int]]]:
    """(condition, which of `yes` it holds for, which of `no`), the likelier first."""
    yield from _tried(itertools.chain(_of_fields(yes, no, varying), _placed(yes, no, varying)), yes, no)
    for depth in range(1, _OUTER_LISTS + 1):
        outer = [[s._replace(place=s.place.outer) for s in settings if s.place.outer] for settings in (yes, no)]
        if [len(yes), len(no)] != [len(settings) for settings in outer] or not _in_lists(*outer):
            return
        yes, no = outer
        for condition, right, wrong in _tried(_placed(yes, no, varying), yes, no):
            yield f"{'^' * depth}{condition}", right, wrong


def _in_lists(yes: Sequence[Setting], no: Sequence[Setting]) -> bool:
    return all(setting.place.outer for setting in [*yes, *no])


def _placed(yes: Sequence[Setting], no: Sequence[Setting], varying: Iterable[str]) -> Iterator[tuple[str, Any]]:
    return itertools.chain(_of_lists(yes), _of_limits(yes, varying), _of_places(yes, no))


def _tried(
    tests: Iterable[tuple[str, Any]], yes: Sequence[Setting], no: Sequence[Setting]
) -> Iterator[tuple[str, frozenset[int], frozenset[int]]]:
    for condition, test in tests:
        right = frozenset(at for at, setting in enumerate(yes) if test(setting))
        wrong = frozenset(at for at, setting in enumerate(no) if test(setting))
        yield condition, right, wrong


def _of_fields(yes: Sequence[Setting], no: Sequence[Setting], varying: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for path in sorted(varying, key=lambda path: (path.count("."), len(path), path)):
        ours = {setting.fields.get(path, "null") for setting in yes}
        theirs = {setting.fields.get(path, "null") for setting in no}
        if ours == theirs and len(ours) == 1:
            continue
        if not ours & _FALSY and ours | theirs:
            yield f"?{path}", lambda setting, path=path: setting.fields.get(path, "null") not in _FALSY
        if ours <= _FALSY:
            yield f"!{path}", lambda setting, path=path: setting.fields.get(path, "null") in _FALSY
        if len(ours) <= 6:
            yield (
                f"{path}={'|'.join(sorted(ours))}",
                lambda setting, path=path, ours=ours: setting.fields.get(path, "null") in ours,
            )
        only = ours - theirs
        if only and only != ours and len(only) <= 6:
            yield f"{path}={'|'.join(sorted(only))}", lambda s, path=path, only=only: s.fields.get(path, "null") in only
        others = theirs - ours
        if others and len(others) <= 6:
            yield (
                f"{path}~{'|'.join(sorted(others))}",
                lambda setting, path=path, others=others: setting.fields.get(path, "null") not in others,
            )


def _of_lists(yes: Sequence[Setting]) -> Iterator[tuple[str, Any]]:
    for path in sorted({path for setting in yes for path in setting.lists}):
        ours = set()
        for setting in yes:
            elements = setting.lists.get(path, ())
            ours.add(elements[setting.place.index] if len(elements) == setting.place.count else None)
        if None in ours or len(ours) > 4 or all(_number(element) is not None for element in ours):
            continue
        yield (
            f"{path}@{'|'.join(sorted(ours))}",
            lambda setting, path=path, ours=ours: (
                setting.place.index < len(setting.lists.get(path, ()))
                and setting.lists[path][setting.place.index] in ours
            ),
        )


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _of_limits(yes: Sequence[Setting], varying: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for path in sorted(varying, key=len) + [f"{total}-{part}" for total, part in _shares(varying)]:
        if None in [_limit(setting, path) for setting in yes]:
            continue

        def below(setting: Setting, path: str = path) -> bool:
            limit = _limit(setting, path)
            return limit is not None and setting.place.index < limit

        def above(setting: Setting, path: str = path) -> bool:
            limit = _limit(setting, path)
            return limit is not None and setting.place.index >= limit

        yield f"{path}<", below
        yield f"{path}>=", above


def _shares(varying: Iterable[str]) -> list[tuple[str, str]]:
    """(number of layers, number of those that share or skip something) beside one another in a config."""
    return [
        (total, part)
        for total in varying
        if total.endswith("num_hidden_layers")
        for part in varying
        if "shared" in part and part.rpartition(".")[0] == total.rpartition(".")[0]
    ]


def _limit(setting: Setting, path: str) -> int | None:
    numbers = [_number(setting.fields.get(part, "")) for part in path.split("-")]
    return None if None in numbers else numbers[0] - sum(numbers[1:])


def _of_places(yes: Sequence[Setting], no: Sequence[Setting]) -> Iterator[tuple[str, Any]]:
    yield "#last", lambda setting: setting.place.index == setting.place.count - 1
    yield "#!last", lambda setting: setting.place.index != setting.place.count - 1
    ours = {setting.place.index for setting in yes}
    theirs = {setting.place.index for setting in no} - ours
    yield "#first", lambda setting: setting.place.first
    yield "#!first", lambda setting: not setting.place.first
    if len(ours) <= len(theirs) or len(ours) == 1:
        yield f"#={'|'.join(map(str, sorted(ours)))}", lambda setting: setting.place.index in ours
    for remainder in (0, 1):
        yield f"#%2={remainder}", lambda setting, remainder=remainder: setting.place.index % 2 == remainder
    if theirs:
        yield f"#~{'|'.join(map(str, sorted(theirs)))}", lambda setting: setting.place.index not in theirs
