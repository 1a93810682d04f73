"""Values that were not varied while learning: under which of them the formulas hold all the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from estimator.architecture.learning.changing import SIZE, missing
from estimator.architecture.learning.experiments import Experiments
from estimator.architecture.learning.fields_used import paths_of
from estimator.architecture.learning.filled_in import plain_default
from estimator.architecture.learning.taken import taken_by
from estimator.architecture.learning.trial import difference
from estimator.architecture.surveying import tiny

_NUMBERS = (0.1, 4)  # a rate, and a size or a width
_MOST = 12  # models that ask for a field and are built with another value of it
_WORDS = {"true": True, "false": False, "null": None}


class _Known(NamedTuple):
    fields: Mapping[str, Any]
    reads: frozenset[str]


def widened(name: str, facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """The facts' `seen` with more values for the fields that no formula reads, or that were never off.

    Those under which the formulas are right of each model that asks for the field. "#" stands for any number.
    """
    used = paths_of(facts) | {path for rule in facts["rules"].values() for path in paths_of({"": rule})}
    open_ = [path for path, values in facts["seen"].items() if path not in used or "null" in values]
    others = {path: found for path in open_ if (found := _others(facts, path))}
    around = list(_around(name, facts, used)) if others else []
    more = {path: _harmless(name, facts, path, found, around) for path, found in others.items()}
    return {path: sorted({*values, *more.get(path, ())}) for path, values in facts["seen"].items()}


def _others(facts: Mapping[str, Any], path: str) -> dict[str, Sequence[Any]]:
    """Values to try, by what stands for them: the other switch, or numbers where there was none."""
    values = set(facts["seen"][path])
    is_section = any(other.startswith(f"{path}.") for other in (*facts["seen"], *facts["rules"]))
    if is_section or not values <= _WORDS.keys():
        return {}
    switches = {text: (_WORDS[text],) for text in ("false", "true") if text not in values}
    return switches if values & {"false", "true"} else {"#": _NUMBERS}


def _around(name: str, facts: Mapping[str, Any], used: set[str]) -> Iterator[_Known]:
    """The base, and it with single fields changed, each with the fields that the model asks for."""
    base = tiny.with_towers(name, tiny.base_fields(name))
    learning = Experiments(name, taken_by(name))
    learning.build(base)
    words = [
        (path, text) for path in sorted(used & facts["seen"].keys()) for text in facts["seen"][path] if text != "#"
    ]
    changes = [(tuple(path.split(".")), _WORDS.get(text, text)) for path, text in words]
    changes += [(path, value) for path, values in learning.changes(base).items() for value in values]
    for fields in (base, *(tiny.changed(base, path, value) for path, value in changes)):
        one = Experiments(name, learning.taken)
        if one.build(fields) is not None:
            yield _Known(fields, frozenset(one.reads))


def _harmless(
    name: str, facts: Mapping[str, Any], path: str, others: Mapping[str, Sequence[Any]], around: Sequence[_Known]
) -> list[str]:
    asking = [one.fields for one in around if path in one.reads]
    chosen = asking[:: max(1, len(asking) // _MOST)]
    found = []
    for text, values in others.items():
        wide = {**facts, "seen": {**facts["seen"], path: [*facts["seen"][path], text]}}
        right = [_is_right(name, wide, path, value, fields) for value in values for fields in chosen]
        if True in right and False not in right:
            found.append(text)
    return found


def _is_right(name: str, facts: Mapping[str, Any], path: str, value: Any, fields: Mapping[str, Any]) -> bool | None:
    """Whether the formulas say what the class builds with the value; None where either refuses."""
    build = Experiments(name, taken_by(name)).build(tiny.changed(fields, tuple(path.split(".")), value))
    wrong = None if build is None else difference(name, facts, build)
    return None if wrong is None or wrong.startswith("Unfit") else not wrong


def fixed(name: str, facts: Mapping[str, Any]) -> dict[str, int]:
    """The numbers that a model asks for, that no formula reads, that are 0 by default and of which the class refuses
    each other one that is tried: what another does is not known.
    """
    learning = Experiments(name, taken_by(name))
    base = tiny.base_fields(name)
    first = learning.build(base)
    found = {}
    for path, values in ({} if first is None else learning.changes(base)).items():
        key = ".".join(path)
        others = [value for value in values if type(value) is int and value]
        known = key in facts["rules"] or key in facts["seen"] or key not in learning.reads
        off = [first.at.values.get(key), plain_default(name, key)] == [0, 0] and type(first.at.values[key]) is int
        if off and others and not known and all(_refused(learning, base, path, value) for value in others):
            found[key] = 0
    return found


def _refused(learning: Experiments, base: Mapping[str, Any], path: tuple[str, ...], value: int) -> bool:
    return learning.build(tiny.changed(base, path, value)) is None


def untried_sizes(name: str) -> set[str]:
    """The sizes that a model asks for, that its config class does not have, and of which it refuses each that is tried:
    `cross_attention_hidden_size` of a decoder has to be the encoder's.
    """
    learning = Experiments(name, taken_by(name))
    base = tiny.base_fields(name)
    first = learning.build(base)
    tried: dict[str, list[bool]] = {}
    for path, value in () if first is None else missing(learning.reads, first.at.values):
        if SIZE.search(path[-1]) and type(value) is int:
            built = learning.build(tiny.changed(base, path, value))
            tried.setdefault(".".join(path), []).append(built is not None)
    return {path for path, built in tried.items() if not any(built)}
