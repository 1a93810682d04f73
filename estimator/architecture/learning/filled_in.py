"""How a config class sets the fields that config.json leaves out, their other names, and the values that were tried."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from estimator.architecture.conditions import written
from estimator.architecture.learning.changing import is_word
from estimator.architecture.learning.experiments import Build, Experiments
from estimator.architecture.learning.fields_used import given, only_types, paths_of, without
from estimator.architecture.learning.fit import default_rule, layer_counts
from estimator.architecture.learning.fit_class import Learner
from estimator.architecture.learning.observing import observation_of
from estimator.architecture.learning.remembering import Sized, how_of
from estimator.architecture.learning.taken import Taken, by_function, last_of, renamed
from estimator.architecture.learning.trace import Trace
from estimator.architecture.structure import ACTIVATION
from estimator.architecture.surveying import tiny

_RULED, _LONGER, _LONG = 10, 4, 14
_REFUSED = "refused"


def of_fields(
    seen: Experiments, config: Any, paths: set[str], builds: Sequence[Build], learner: Learner
) -> dict[str, dict[str, Any]]:
    """How the fields are set that config.json leaves out, their other names, and the values that were tried."""
    rules: dict[str, dict[str, Any]] = {}
    aliases: dict[str, list[str]] = {}
    waiting = {path for path in paths if not path.endswith("num_labels")}
    while waiting:
        path = min(waiting)
        found = _rules(seen, path, builds, learner)
        rules[path] = {key: rule for key, rule in found.items() if not _leads_to(path, paths_of({key: rule}), rules)}
        aliases |= _aliases(config, path, seen.taken)
        waiting = {
            one for one in waiting | paths_of(rules[path]) if one not in rules and not one.endswith("num_labels")
        }
    kept = {path: rule for path, rule in sorted(rules.items()) if rule}
    region = _seen(learner, builds, seen.tried, (paths | set(rules)) - _spelt(rules))
    return {"rules": kept, "aliases": dict(sorted(aliases.items())), "seen": region}


def _spelt(rules: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The texts of which each letter is an element of a list."""
    made = [rule for known in rules.values() for rule in known.values() if isinstance(rule, dict)]
    made += [inner for rule in made for _, inner in rule.get("either", ())]
    return {rule["letters"] for rule in made if "letters" in rule}


def _leads_to(path: str, read: set[str], rules: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a rule would need its own field: two fields that are each said by the other."""
    done: set[str] = set()
    while read:
        if path in read:
            return True
        done |= read
        read = {one for known in read for one in paths_of(rules.get(known, {}))} - done
    return False


def _rules(seen: Experiments, path: str, builds: Sequence[Any], learner: Any) -> dict[str, Any]:
    """What the field is where config.json leaves it out, and where it says null."""
    rules: dict[str, Any] = {}
    parts = tuple(path.split("."))
    pairs = [(given(one.fields, parts), one.at.values.get(path)) for one in builds]
    if any(value is not None and type(value) is int and value != kept for value, kept in pairs):
        rules["ignored"] = True  # the class computes the field whatever config.json says
    telling = _telling(builds, path, seen)
    configs = [*(one.fields for one in telling), *_longer(telling, path), *_made_otherwise(seen.name, telling, path)]
    for key in ("absent", "null", "alone") if len(parts) > 1 else ("absent", "null"):
        observed, values = [], []
        for fields in configs:
            found = _filled_in(seen, _left_out(fields, parts, key), path, learner.teller)
            if found is not None:
                observed.append(found[0])
                values.append(found[1])
        if len(values) >= 3 and (rule := default_rule(learner.fitter, observed, values)) is not None:
            rules[key] = rule
        elif key != "null" and len(values) < 3 and (plain := plain_default(seen.name, path, key)) is not None:
            rules[key] = {"is": plain}
    if rules.get("alone") == rules.get("absent"):
        rules.pop("alone", None)
    elif len(parts) > 1:
        rules.setdefault("alone", {"unknown": True})
    one = next((one for one in builds if _are_words(one.at.values.get(path))), None)
    if one is not None and (words := renamed(seen.name, one.fields, path, one.at.values[path])):
        rules["renamed"] = words
    if one is not None and (last := last_of(seen.name, one.fields, path, one.at.values[path])):
        rules["last"] = last  # the class sets the last element whatever config.json says
    return rules


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _left_out(fields: Mapping[str, Any], parts: tuple[str, ...], key: str) -> Mapping[str, Any]:
    """Keyword arguments without a field, with null, or without the section in which it lies."""
    if key == "null":
        return tiny.changed(fields, parts, None)
    return without(fields, parts if key == "absent" else parts[:1])


def _telling(builds: Sequence[Any], path: str, seen: Experiments) -> list[Any]:
    """Builds that show how a field is set: some of each value of it and of what is taken and not kept, others, and
    those that earlier formulas missed.
    """
    by_value: dict[str, list[Any]] = {}
    for one in builds:
        by_value.setdefault(repr([one.at.values.get(key) for key in (path, *seen.taken.defaults)]), []).append(one)
    some = [one for group in list(by_value.values())[:_RULED] for one in group[:2]]
    others = [*builds[:: max(1, len(builds) // _RULED)], *builds[len(seen.builds) :]]
    return [*some, *(one for one in others if one not in some)]


def _longer(builds: Sequence[Any], path: str) -> Iterator[Mapping[str, Any]]:
    """More layers for a list that may have an element for each: no model has to be built of them."""
    section = path.rpartition(".")[0]
    for one in builds[:_LONGER]:
        for count in layer_counts([one.at]) if isinstance(one.at.values.get(path), list) else ():
            if count.rpartition(".")[0] == section:
                yield tiny.changed(one.fields, tuple(count.split(".")), _LONG)


def _made_otherwise(name: str, builds: Sequence[Any], path: str) -> Iterator[Mapping[str, Any]]:
    """Other values of fields that no model reads, and of which the class makes one that config.json leaves out.

    `expand` of Mamba: its `intermediate_size`, which the builds give.
    """
    parts = tuple(path.split("."))
    plain = without(builds[0].fields, parts) if builds else {}
    for maker, values in _numbers_beside(name, plain, parts):
        made = {repr(_set_to(name, tiny.changed(plain, maker, value), parts)) for value in values}
        if len({*made, repr(_set_to(name, plain, parts)), repr(_REFUSED)}) > 2:
            yield from (tiny.changed(one.fields, maker, value) for one in builds[:_LONGER] for value in values)


def _numbers_beside(
    name: str, fields: Mapping[str, Any], path: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """The numbers of a field's section that are not given and that its class's own code names, with others for each."""
    holder = _holder(name, fields, path)
    named = {one for _, names in by_function(type(holder)) for one in names}
    for key, value in vars(holder).items() if named else ():
        beside = (*path[:-1], key)
        if key in named and key != path[-1] and type(value) in (int, float) and given(fields, beside) is None:
            yield beside, [value * 2, value + 1]


def _holder(name: str, fields: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The config that holds a field; None where the class refuses."""
    try:
        return functools.reduce(getattr, path[:-1], tiny.make(name, fields))
    except Exception:
        return None


def _set_to(name: str, fields: Mapping[str, Any], path: Sequence[str]) -> Any:
    """What the class sets a field to."""
    holder = _holder(name, fields, path)
    try:
        return _REFUSED if holder is None else getattr(holder, path[-1], None)
    except Exception:  # each layer has one of its own: AmbiguousGlobalPerLayerAttributeError
        return _REFUSED


_numbers = itertools.count(1 << 20)


def _filled_in(seen: Experiments, fields: Mapping[str, Any], path: str, teller: Any) -> tuple[Any, Any] | None:
    """The config without the field, and what its class sets it to; None where it refuses."""

    try:
        with Trace() as trace:
            config = tiny.make(seen.name, trace.traced(dict(fields), ""))
            at = seen.observed(config, fields, next(_numbers))
    except Exception:
        return None
    teller.learn(trace.log)
    teller.add(at)
    holder = config
    for key in path.split("."):
        holder = (holder if isinstance(holder, Mapping) else vars(holder) if hasattr(holder, "to_dict") else {}).get(
            key
        )
    value = at.values.pop(path, None)
    how = how_of(holder)
    return at, Sized(value, how) if type(value) is int and how is not holder else value


def plain_default(name: str, path: str, key: str = "alone") -> Any:
    """The class's own default, where a config without the field is refused beside small numbers: of a section that has
    no more than its model type, or is left out itself.
    """
    try:
        fields = {} if key == "alone" else only_types(tiny.base_fields(name), path.split("."))
        return observation_of(tiny.make(name, fields), 0).values.get(path)
    except Exception:
        return None


def _aliases(config: Any, path: str, taken: Taken) -> dict[str, list[str]]:
    *parents, leaf = path.split(".")
    holder = config
    for parent in parents:
        holder = holder.get(parent) if isinstance(holder, Mapping) else getattr(holder, parent, None)
    shared = getattr(holder, "attribute_map", None) or {}
    names = [leaf, *(alias for alias, real in shared.items() if real == leaf != alias)]
    declared = [one for one in getattr(holder, "__dataclass_fields__", ()) if one in names]
    names = [*declared[-1:], *(one for one in names if one not in declared)]  # in turn, defaults of the declared too
    found = [".".join([*parents, one]) for one in (names[1:] if names[0] == leaf else names)]
    found += [alias for alias, real in taken.aliases.items() if real == path]
    return {path: found} if found else {}


def _seen(
    learner: Learner, builds: Sequence[Build], tried: Mapping[str, Sequence[Any]], paths: set[str]
) -> dict[str, list[str]]:
    """Texts, switches and nulls with the values that were tried; "#" stands for any number."""
    seen: dict[str, list[str]] = {}
    named = {json.loads(node)[0] for node in learner.nodes}
    for path in sorted(path for path in paths if f"{ACTIVATION}{path}" not in named):
        values = [value for one in builds for value in _each(one.at.values.get(path))]
        values += [each for value in tried.get(path, ()) for each in _each(value)]
        if any(is_word(value) for value in values):
            seen[path] = sorted({written(value) if is_word(value) else "#" for value in values})
    return seen


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]
