"""A class's formulas: learnt from experiments, tried on configs that were kept apart. Only generators import this."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import AutoConfig

from estimator.architecture import tiny
from estimator.architecture.conditions import written
from estimator.architecture.experiments import Build, Experiments
from estimator.architecture.fields_used import given, paths_of, without
from estimator.architecture.fit import default_rule
from estimator.architecture.fit_class import UNKNOWN, Glimpse, Learner, Unresolved
from estimator.architecture.observe import BUILD_DTYPE
from estimator.architecture.observing import observation_of
from estimator.architecture.remembering import Sized, how_of
from estimator.architecture.survey import activations
from estimator.architecture.tell import Teller, is_told
from estimator.architecture.tie_patterns import agreed, tie_pairs, ties_hold
from estimator.architecture.trace import Trace
from estimator.architecture.trial import difference
from estimator.architecture.written import general

_ROUNDS, _ADDED, _RULED = 4, 3, 10
_NEVER = ("_token_id", "_token_index", "_ids", "pretraining_tp", "problem_type", "_attn_implementation")  # size nothing


def learn(name: str) -> tuple[dict[str, Any] | None, str]:
    """The class's facts, or None and why not."""
    torch.set_default_dtype(BUILD_DTYPE)
    seen = Experiments(name)
    seen.run()
    known, reason = list(seen.builds), ""
    for round_ in range(_ROUNDS):
        try:
            facts = _facts(seen, known)
        except (Unresolved, ValueError) as error:
            return None, f"{type(error).__name__} {error}"
        if round_ == _ROUNDS - 1:
            _forget_buffers(facts)
        found = [(one, difference(name, facts, one)) for one in seen.fresh]
        wrong = [(one, why) for one, why in found if why and not why.startswith("Unfit")]
        if not wrong and any(not why for _, why in found):
            return facts, ""
        reason = (wrong or found)[0][1]
        added = [one for one, _ in wrong or found if one not in known][:_ADDED]
        if not added:
            break
        known += added
    return None, reason


def _forget_buffers(facts: Mapping[str, Any]) -> None:
    """Sizes of buffers that no formula has hit: answers say that they are unknown."""
    for node in facts["n"]:
        for slot in node[3]:
            slot[2] = [size if isinstance(size, int) else UNKNOWN for size in slot[2]]


def _facts(seen: Experiments, builds: Sequence[Build]) -> dict[str, Any]:
    """What the builds say. Raises Unresolved or ValueError where nothing explains them."""
    teller = Teller([one.at for one in builds], seen.comparisons, seen.reads)
    counts = {text for how in seen.lengths for text in general(how)}
    counts |= {text.replace("[#]", "[#//2]") for text in counts if "[#]" in text}
    counts |= {f"max(0,{text})" for text in counts if "-" in text}
    learner = Learner(teller, sorted(counts, key=lambda text: (len(text), text)), activations())
    learner.node([Glimpse(one.seen, one.at) for one in builds], "")
    if learner.lost:
        raise Unresolved(learner.lost[0])
    config = tiny.make(seen.name, builds[0].fields)
    facts: dict[str, Any] = {
        "n": [json.loads(node) for node in learner.nodes],
        "types": list(tiny.classes()[seen.name].model_types),
        "ties": _ties(builds, learner),
        **{key: _embedding(at, builds, teller) for at, key in enumerate(("in", "out"))},
    }
    paths = paths_of(facts) | {path for path in seen.reads if _matters(path, builds)}
    if getattr(config, "tie_word_embeddings", None) is not None:
        paths.add("tie_word_embeddings")
    paths = paths - (seen.free - paths_of(facts)) | {f"{section}model_type" for section in sections(config)}
    return facts | _of_fields(seen, config, paths, builds, learner)


def _leads_to(path: str, read: set[str], rules: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a rule would need its own field: two fields that are each said by the other."""
    done: set[str] = set()
    while read:
        if path in read:
            return True
        done |= read
        read = {one for known in read for one in paths_of(rules.get(known, {}))} - done
    return False


def sections(config: Any, prefix: str = "") -> list[str]:
    """The nested configs that may be of any model type, as prefixes of paths."""
    found = []
    for key, value in tiny.sub_configs(config).items():
        if config.sub_configs.get(key) is AutoConfig:
            found.append(f"{prefix}{key}.")
        found += sections(value, f"{prefix}{key}.")
    return found


def _embedding(at: int, builds: Sequence[Build], teller: Teller) -> list[list[Any]]:
    groups: dict[str, list[Any]] = {}
    for one in builds:
        groups.setdefault(json.dumps(one.embeddings[at]), []).append(one.at)
    options = teller.options(groups)
    if options is None:
        raise ValueError(f"embedding {list(groups)}")
    return [[condition, json.loads(value)] for condition, value in options]


def _of_fields(
    seen: Experiments, config: Any, paths: set[str], builds: Sequence[Build], learner: Learner
) -> dict[str, dict[str, Any]]:
    """How the fields are set that config.json leaves out, their other names, and the values that were tried."""
    rules: dict[str, dict[str, Any]] = {}
    aliases: dict[str, list[str]] = {}
    waiting = {path for path in paths if not path.endswith("num_labels")}
    while waiting:
        path = min(waiting)
        found = _rules(seen.name, path, builds, learner)
        rules[path] = {key: rule for key, rule in found.items() if not _leads_to(path, paths_of({key: rule}), rules)}
        aliases |= _aliases(config, path)
        waiting = {
            one for one in waiting | paths_of(rules[path]) if one not in rules and not one.endswith("num_labels")
        }
    kept = {path: rule for path, rule in sorted(rules.items()) if rule}
    region = _seen(learner, builds, seen.tried, paths | set(rules))
    return {"rules": kept, "aliases": dict(sorted(aliases.items())), "seen": region}


def _matters(path: str, builds: Sequence[Any]) -> bool:
    """Whether a field that the model reads is a switch, a text or empty somewhere: its values have to be known ones."""
    return is_told(path) and not path.endswith(_NEVER) and any(_is_word(one.at.values.get(path, 0)) for one in builds)


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, (bool, str))


def _in_turn(target: str, source: str, builds: Sequence[Build], learner: Learner) -> list[Any]:
    """How many modules the others share in turn, where they do."""
    if "%" not in source:
        return []
    pattern = re.compile(re.escape(target).replace(r"\*", r"\d+"))
    counts = [
        (one.at, len({found.group() for name in one.ties.values() if (found := pattern.match(name))})) for one in builds
    ]
    counts = [(at, count) for at, count in counts if count]
    size = learner.fitter.fit([at for at, _ in counts], [count for _, count in counts])
    if size is None:
        raise ValueError(f"how many share {target}")
    return [size]


def _ties(builds: Sequence[Build], learner: Learner) -> list[list[Any]]:
    """[parameter or module, the one that it shares, condition]: indices as "*"; fourth, how many share in turn."""
    teller = learner.teller
    names = [set(one.seen.names()) for one in builds]
    patterns = agreed([tie_pairs(one.ties, there) for one, there in zip(builds, names, strict=True)])
    found = []
    for target, sources in patterns.items():
        for source in sources:
            holds = [ties_hold(target, source, one.ties, there) for one, there in zip(builds, names, strict=True)]
            yes, no = ([one.at for one, said in zip(builds, holds, strict=True) if said is wanted]
                       for wanted in (True, False))  # fmt: skip
            condition = teller.condition(yes, no)
            if condition is None:
                raise ValueError(f"tie of {target}")
            found.append([target, source, condition, *_in_turn(target, source, builds, learner)])
    return found


def _rules(name: str, path: str, builds: Sequence[Any], learner: Any) -> dict[str, Any]:
    """What the field is where config.json leaves it out, and where it says null."""

    rules: dict[str, Any] = {}
    parts = tuple(path.split("."))
    pairs = [(given(one.fields, parts), one.at.values.get(path)) for one in builds]
    if any(value is not None and type(value) is int and value != kept for value, kept in pairs):
        rules["ignored"] = True  # the class computes the field whatever config.json says
    for key in ("absent", "null", "alone") if len(parts) > 1 else ("absent", "null"):
        observed, values = [], []
        for one in _telling(builds, path):
            fields = _left_out(one.fields, parts, key)
            found = _filled_in(name, fields, path, learner.teller)
            if found is not None:
                observed.append(found[0])
                values.append(found[1])
        if len(values) >= 3 and (rule := default_rule(learner.fitter, observed, values)) is not None:
            rules[key] = rule
        elif key == "absent" and len(values) < 3 and (plain := _plain_default(name, path)) is not None:
            rules[key] = {"is": plain}
    if rules.get("alone") == rules.get("absent"):
        rules.pop("alone", None)
    elif len(parts) > 1:
        rules.setdefault("alone", {"unknown": True})
    return rules


def _left_out(fields: Mapping[str, Any], parts: tuple[str, ...], key: str) -> Mapping[str, Any]:
    """Keyword arguments without a field, with null, or without the section in which it lies."""
    if key == "null":
        return tiny.changed(fields, parts, None)
    return without(fields, parts if key == "absent" else parts[:1])


def _telling(builds: Sequence[Any], path: str) -> list[Any]:
    """Builds that show how a field is set: some of each value that it has, some others."""
    by_value: dict[str, list[Any]] = {}
    for one in builds:
        by_value.setdefault(repr(one.at.values.get(path)), []).append(one)
    some = [one for group in list(by_value.values())[:_RULED] for one in group[:2]]
    others = [one for one in builds[:: max(1, len(builds) // _RULED)] if one not in some]
    return [*some, *others]


_numbers = itertools.count(1 << 20)


def _filled_in(name: str, fields: Mapping[str, Any], path: str, teller: Any) -> tuple[Any, Any] | None:
    """The config without the field, and what its class sets it to; None where it refuses."""

    try:
        with Trace() as trace:
            config = tiny.make(name, trace.traced(dict(fields), ""))
            at = observation_of(config, next(_numbers))
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


def _plain_default(name: str, path: str) -> Any:
    """The class's own default, where a config without the field is refused beside small numbers."""

    try:
        return observation_of(tiny.config_class(name)(), 0).values.get(path)
    except Exception:
        return None


def _aliases(config: Any, path: str) -> dict[str, list[str]]:
    *parents, leaf = path.split(".")
    holder = config
    for parent in parents:
        holder = holder.get(parent) if isinstance(holder, Mapping) else getattr(holder, parent, None)
    names = [alias for alias, real in (getattr(holder, "attribute_map", None) or {}).items() if real == leaf]
    return {path: [".".join([*parents, alias]) for alias in names]} if names else {}


def _seen(
    learner: Learner, builds: Sequence[Build], tried: Mapping[str, Sequence[Any]], paths: set[str]
) -> dict[str, list[str]]:
    """Texts, switches and nulls with the values that were tried; "#" stands for any number."""
    seen: dict[str, list[str]] = {}
    named = {json.loads(node)[0] for node in learner.nodes}
    for path in sorted(path for path in paths if f"ACT2FN:{path}" not in named):
        values = [value for one in builds for value in _each(one.at.values.get(path))]
        values += [each for value in tried.get(path, ()) for each in _each(value)]
        if any(_is_word(value) for value in values):
            seen[path] = sorted({written(value) if _is_word(value) else "#" for value in values})
    return seen


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]
