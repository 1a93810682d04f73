"""One model class, built under many configs, into its facts."""

from __future__ import annotations

import random
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from transformers.activations import ACT2FN
from transformers.conversion_mapping import get_model_conversion_mapping

from estimator.architecture.conditions import Place
from estimator.architecture.structure import Structure
from estimator.architecture.surveying import tiny
from estimator.architecture.surveying.asked_fields import conditions_of, defaults_of
from estimator.architecture.surveying.built import Built, dimension_of, shape_of
from estimator.architecture.surveying.discover import Setting, find_condition, flatten
from estimator.architecture.surveying.merge import Merger, Sight
from estimator.architecture.surveying.observe import (
    BUILD_DTYPE,
    declared_of,
    embeddings_of,
    observe,
    one_embedding,
    structure_of,
    ties_of,
)
from estimator.architecture.surveying.reads import recorded, with_aliases
from estimator.architecture.surveying.resizing import beside_head
from estimator.architecture.surveying.source_hints import Hints, hints_of
from estimator.architecture.surveying.tie_patterns import agreed, tie_pairs, ties_hold
from estimator.architecture.surveying.tower_swaps import towers_of
from estimator.architecture.surveying.transforms import written_transform
from estimator.architecture.tie_names import expanded

_ENDLESS_SECONDS = 120  # tiny models take hundredths, the slowest two: what takes this long has no end
_COMBINATIONS = 8  # of changes that show, two to four at a time
_DEEPER = 24  # changes on top of another


class Surveyed(NamedTuple):
    structure: Structure
    facts: Mapping[str, Any]  # what is said of the class beside its structure
    unresolved: Sequence[str]
    conditions: frozenset[str]  # all that the structure asks


def survey(name: str) -> Surveyed:
    """The facts of one class. Raises whatever transformers raises where it can't be built at all."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(BUILD_DTYPE)
    try:
        built, model = _all_builds(name)
    finally:
        torch.set_default_dtype(previous)
    varying = _varying([one.setting for one in built])
    merger = Merger(varying, activations())
    structure = merger.merge([Sight(one.seen, one.setting) for one in built])
    ties = _ties(built, varying)
    facts = {**_said_of(model, built[0]), "ties": ties, **_heads(name, model, built)}
    facts["declared"] = _declared(built, ties)
    facts["transforms"], sizes = _told_by_size(facts["transforms"], built)
    facts["towers"] = towers_of(name, tiny.base_fields(name), model)
    facts["sets"] = one_embedding(model)
    facts["beside"] = beside_head(name, tiny.base_fields(name))
    asked = conditions_of(structure) | {tie[2] for tie in ties} | {f"?{path}" for path in sizes}
    facts["defaults"], facts["aliases"] = defaults_of(name, built[0].config, asked)
    return Surveyed(structure, facts, merger.unresolved, frozenset(asked))


def activations() -> dict[str, str]:
    """The class behind each name of transformers' ACT2FN."""
    found = {}
    for key in ACT2FN:
        try:
            found[key] = type(ACT2FN[key]).__name__
        except Exception:  # noqa: S112 - an activation whose package is missing
            continue
    return found


def _all_builds(name: str) -> tuple[list[Built], Any]:
    """Every build that shows something, the base first; and the base's model."""
    base = tiny.base_fields(name)
    with recorded() as read:
        first, model = _build(name, base)
    hints, config = hints_of(model), tiny.make(name, base)
    read = with_aliases(read, config)
    built, effective = [first], []
    for path, value in tiny.changes(config, hints=hints):
        fields = tiny.changed(base, path, value)
        if not _matters(name, config, path, fields, read):
            continue
        one = _try(name, fields)
        if one is None and value is True:
            one = _try(name, tiny.filled(fields, path, config))
        if one is not None and _signature(one) != _signature(first):
            effective.append((path, value))
            built.append(one)
    others = [one for fields in tiny.other_bases(name) if (one := _try(name, fields)) is not None]
    return [*built, *others, *_deeper(name, base, effective, read, hints), *_combined(name, base, effective)], model


def _deeper(
    name: str, base: Mapping[str, Any], effective: Sequence[tuple[tuple[str, ...], Any]], read: set[str], hints: Hints
) -> Iterator[Built]:
    """Changes of fields that are read only after another change: the options of what it switches on."""
    left = _DEEPER
    for path, value in effective:
        fields = tiny.changed(base, path, value)
        with recorded() as now:
            first = _try(name, fields)
        if first is None or not (new := now - read):
            continue
        for inner, other in tiny.changes(tiny.make(name, fields), hints=hints):
            if inner[-1] not in new or left == 0:
                continue
            left -= 1
            one = _try(name, tiny.changed(fields, inner, other))
            if one is not None and _signature(one) != _signature(first):
                yield one


def _matters(name: str, config: Any, path: tuple[str, ...], fields: Mapping[str, Any], read: set[str]) -> bool:
    """Whether a change can show: the class reads the field, or the config makes others of it."""
    if path[-1] in read:
        return True
    try:
        before, after = (flatten(one.to_dict()) for one in (config, tiny.make(name, fields)))
    except Exception:
        return False
    changed = {key for old, new in zip(before, after, strict=True) for key in old.keys() | new.keys()
               if old.get(key) != new.get(key)}  # fmt: skip
    return bool(changed - {".".join(path)})


def _combined(name: str, base: Mapping[str, Any], effective: list[tuple[tuple[str, ...], Any]]) -> Iterator[Built]:
    chance = random.Random(name)
    for _ in range(_COMBINATIONS if len(effective) > 1 else 0):
        fields = dict(base)
        for path, value in chance.sample(effective, min(len(effective), chance.randint(2, 4))):
            fields = tiny.changed(fields, path, value)
        one = _try(name, fields)
        if one is not None:
            yield one


def _try(name: str, fields: Mapping[str, Any]) -> Built | None:
    """None where the class refuses, or where the change makes a model that is no longer tiny."""
    signal.signal(signal.SIGALRM, _endless)
    signal.alarm(_ENDLESS_SECONDS)
    try:
        return _build(name, fields)[0]
    except Exception:
        return None
    finally:
        signal.alarm(0)


def _endless(*_: Any) -> None:
    raise TimeoutError


def _build(name: str, fields: Mapping[str, Any]) -> tuple[Built, Any]:
    config = tiny.make(name, fields)
    model = tiny.build(name, config)
    flat = flatten(config.to_dict() | {"num_labels": getattr(config, "num_labels", None)})
    setting = Setting(*flat, Place())
    return Built(config, setting, observe(model), ties_of(model), embeddings_of(model), declared_of(model)), model


def _signature(built: Built) -> Any:
    return structure_of(built.seen), tuple(sorted(built.ties.items())), built.embeddings


def _varying(settings: Sequence[Setting]) -> list[str]:
    paths = {path for setting in settings for path in setting.fields}
    return sorted(
        path
        for path in paths
        if not path.startswith(("transformers_version", "id2label", "label2id")) and not path.endswith("._name_or_path")
        and len({setting.fields.get(path, "null") for setting in settings}) > 1
    )  # fmt: skip


def _said_of(model: Any, base: Built) -> dict[str, Any]:
    declared = getattr(model, "_tied_weights_keys", None)
    return {
        "prefix": model.base_model_prefix,
        "in": base.embeddings[0],
        "out": base.embeddings[1],
        "fp32": sorted(model._keep_in_fp32_modules or ()),
        "fp32s": sorted(model._keep_in_fp32_modules_strict or ()),
        "unexpected": sorted(model._keys_to_ignore_on_load_unexpected or ()),
        "missing": sorted(model._keys_to_ignore_on_load_missing or ()),
        "declares": isinstance(declared, Mapping),
        "tie": getattr(base.config, "tie_word_embeddings", None),
        "composite": bool(tiny.sub_configs(base.config)),
        "transforms": [written_transform(t) for t in get_model_conversion_mapping(model, add_legacy=False)],
    }


def _ties(built: Sequence[Built], varying: Sequence[str]) -> list[list[str]]:
    """[parameter or module, the one that it shares, condition]."""
    names = [set(one.seen.names()) for one in built]
    chosen = agreed([tie_pairs(one.ties, known) for one, known in zip(built, names, strict=True)])
    found = []
    for target, source in ((target, source) for target, sources in chosen.items() for source in sources):
        told = [(one.setting, ties_hold(target, source, one.ties, n)) for one, n in zip(built, names, strict=True)]
        yes = [setting for setting, tied in told if tied]
        no = [setting for setting, tied in told if tied is False]
        found.append([target, source, find_condition(yes, no, varying) or ""])
    return found


def _declared(built: Sequence[Built], ties: Sequence[Sequence[str]]) -> list[list[str]] | None:
    """[parameter, source] pairs as the class declares them; None where they are the ties without "*"."""
    names = {name for one in built for name in one.seen.names()}
    declared = {target: source for one in built for target, source in one.declared.items()}
    plain = [tie[:2] for tie in ties if "*" not in tie[0] + tie[1]]
    return sorted(map(list, declared.items())) if declared != expanded(plain, names) else None


def _heads(name: str, model: Any, built: Sequence[Built]) -> dict[str, Any]:
    """Heads that are made fresh; `labels`, where the class takes no other number of them.

    Some have two outputs whatever the config says: a build with one label more tells, which no condition ever sees.
    """
    labels = getattr(built[0].config, "num_labels", None)
    if labels is None:
        return {"fresh": _fresh(model, built, built[0])}
    other = _try(name, {**tiny.base_fields(name), "num_labels": labels + 1})
    if other is None:
        return {"fresh": _fresh(model, built, built[0]), "labels": labels}
    return {"fresh": _fresh(model, [*built, other], other)}


def _fresh(model: Any, built: Sequence[Built], other: Built) -> dict[str, list[Any]]:
    """Shapes of what a checkpoint of the base model lacks: numbers and config fields by dimension.

    other: what differs there from the first build is sized by labels.
    """
    prefix = f"{model.base_model_prefix}." if model.base_model_prefix else "\0"
    has_base = any(child == model.base_model_prefix for child, _ in built[0].seen.children)
    absent = {*(model._keys_to_ignore_on_save or ()), *(model._keys_to_ignore_on_load_missing or ())}
    absent |= {re.escape(f"{key}.weight") for key, m in model.named_modules() if "Sinusoidal" in type(m).__name__}
    found = {}
    for parameter in (key for key, _ in model.named_parameters(remove_duplicate=False)):
        heads = has_base and not parameter.startswith(prefix)
        labelled = shape_of(other.seen, parameter) != shape_of(built[0].seen, parameter)
        if heads or labelled or "pooler" in parameter or any(re.search(pattern, parameter) for pattern in absent):
            found[parameter] = [
                dimension_of(parameter, axis, built) for axis in range(shape_of(built[0].seen, parameter)[1])
            ]
    return found


def _told_by_size(transforms: Sequence[Any], built: Sequence[Built]) -> tuple[list[Any], set[str]]:
    """The transforms, with the axis and the config field that tell whether a tensor is to be transposed; the fields."""
    told, fields = [], set()
    for transform in transforms:
        for _, arguments in transform[3] if len(transform) > 3 else ():
            name = next((n for n in built[0].seen.names() if n.endswith(f".{transform[2][0]}")), None)
            if not arguments.get("check_dims") or name is None:
                continue
            for axis in (arguments["dim0"], arguments["dim1"]):
                size = dimension_of(name, axis, built)
                if isinstance(size, str):
                    arguments["expected"] = [axis, size]
                    fields.add(size)
        told.append(transform)
    return told, fields
