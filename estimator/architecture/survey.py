"""One model class, built under many configs, into its facts. Only generators import this file."""

from __future__ import annotations

import random
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from transformers.activations import ACT2FN
from transformers.conversion_mapping import get_model_conversion_mapping

from estimator.architecture import buffers, tiny
from estimator.architecture.conditions import Place
from estimator.architecture.discover import Setting, find_condition, flatten
from estimator.architecture.merge import Merger, Sight
from estimator.architecture.observe import BUILD_DTYPE, Seen, embeddings_of, observe, ties_of
from estimator.architecture.structure import Structure
from estimator.architecture.transforms import written_transform

_SECONDS = 3  # tiny models take hundredths
_COMBINATIONS = 8  # of changes that show, two to four at a time


class Built(NamedTuple):
    config: Any
    setting: Setting
    seen: Seen
    ties: Mapping[str, str]
    embeddings: tuple[str | None, str | None]


class Surveyed(NamedTuple):
    structure: Structure
    facts: Mapping[str, Any]  # what is said of the class beside its structure
    unresolved: Sequence[str]


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
    facts = {**_said_of(model, built[0]), "ties": _ties(built, varying), "fresh": _fresh(name, model, built)}
    paths = sorted(paths_in(structure) | {p for tie in facts["ties"] for p in paths_of(tie[2])})
    paths += ["num_labels", *_buffer_paths(built[0].config)]
    facts["defaults"], facts["aliases"] = _defaults(name, built[0].config, paths)
    return Surveyed(structure, facts, merger.unresolved)


def _buffer_paths(config: Any) -> list[str]:
    """The fields that size buffers, in every section of the config."""
    sections = ["", *(f"{section}." for section in tiny.sub_configs(config))]
    return [section + field for section in sections for field in buffers.FIELDS]


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
    base = tiny.base_fields(name)
    first, model = _build(name, base)
    built, effective = [first], []
    known = {_signature(first)}
    for path, value in tiny.changes(tiny.make(name, base)):
        fields = tiny.changed(base, path, value)
        one = _try(name, fields)
        if one is None:
            continue
        if _signature(one) != _signature(first):
            effective.append((path, value))
            built.append(one)
            known.add(_signature(one))
        elif path[-1] in ("num_labels",):
            built.append(one)
    others = (one for fields in tiny.other_bases(name) if (one := _try(name, fields)) is not None)
    return [*built, *others, *_combined(name, base, effective)], model


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
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(_SECONDS)
    try:
        return _build(name, fields)[0]
    except Exception:
        return None
    finally:
        signal.alarm(0)


def _too_long(*_: Any) -> None:
    raise TimeoutError


def _build(name: str, fields: Mapping[str, Any]) -> tuple[Built, Any]:
    config = tiny.make(name, fields)
    model = tiny.build(name, config)
    flat = flatten(config.to_dict() | {"num_labels": getattr(config, "num_labels", None)})
    setting = Setting(*flat, Place())
    return Built(config, setting, observe(model), ties_of(model), embeddings_of(model)), model


def _signature(built: Built) -> Any:
    return _shape_free(built.seen), tuple(sorted(built.ties.items())), built.embeddings


def _shape_free(seen: Seen) -> Any:
    return (
        seen.cls,
        tuple((t.name, len(t.shape), t.dtype) for t in seen.parameters),
        tuple((t.name, t.persistent) for t in seen.buffers),
        seen.groups,
        tuple((name, _shape_free(child)) for name, child in seen.children),
    )


def _varying(settings: Sequence[Setting]) -> list[str]:
    paths = {path for setting in settings for path in setting.fields}
    return sorted(
        path
        for path in paths
        if not path.startswith(("transformers_version", "id2label", "label2id")) and "._" not in path
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
    """[parameter, the one that it shares, condition]: indices as "*", the source's by the target's where equal."""
    patterns = [{_tie_pattern(*tie) for tie in one.ties.items()} for one in built]
    found = []
    for target, source in sorted(set().union(*patterns)):
        yes = [one.setting for one, has in zip(built, patterns, strict=True) if (target, source) in has]
        no = [one.setting for one, has in zip(built, patterns, strict=True) if (target, source) not in has]
        found.append([target, source, find_condition(yes, no, varying) or ""])
    return found


def _tie_pattern(target: str, source: str) -> tuple[str, str]:
    indices = re.findall(r"(?<=\.)\d+(?=\.)", target)
    starred = re.sub(r"(?<=\.)\d+(?=\.)", "*", target)
    at = iter(indices)
    kept = re.sub(r"(?<=\.)\d+(?=\.)", lambda found: "*" if next(at, None) == found.group() else found.group(), source)
    return starred, kept


def _fresh(name: str, model: Any, built: Sequence[Built]) -> dict[str, list[Any]]:
    """Shapes of what a checkpoint of the base model lacks: numbers and config fields by dimension."""
    prefix = f"{model.base_model_prefix}." if model.base_model_prefix else "\0"
    has_base = any(child == model.base_model_prefix for child, _ in built[0].seen.children)
    absent = {*(model._keys_to_ignore_on_save or ()), *(model._keys_to_ignore_on_load_missing or ())}
    absent |= {re.escape(f"{key}.weight") for key, m in model.named_modules() if "Sinusoidal" in type(m).__name__}
    found = {}
    for parameter in (key for key, _ in model.named_parameters(remove_duplicate=False)):
        heads = has_base and not parameter.startswith(prefix)
        if heads or "pooler" in parameter or any(re.search(pattern, parameter) for pattern in absent):
            found[parameter] = [
                _dimension(parameter, axis, built) for axis in range(_shape(built[0].seen, parameter)[1])
            ]
    return found


def _shape(seen: Seen, name: str) -> tuple[tuple[int, ...] | None, int]:
    *path, leaf = name.split(".")
    for key in path:
        seen = dict(seen.children).get(key)
        if seen is None:
            return None, 0
    shape = next((tensor.shape for tensor in seen.parameters if tensor.name == leaf), None)
    return shape, len(shape or ())


def _dimension(parameter: str, axis: int, built: Sequence[Built]) -> Any:
    pairs = [(_shape(one.seen, parameter)[0], one.setting.fields) for one in built]
    pairs = [(shape[axis], fields) for shape, fields in pairs if shape is not None and axis < len(shape)]
    paths = sorted(
        pairs[0][1], key=lambda path: (path != "num_labels", path.count("."), _rank(path, parameter), len(path), path)
    )
    for path in paths:
        if "2label" not in path and "2id" not in path and all(fields.get(path) == str(size) for size, fields in pairs):
            return path
    return pairs[0][0]


def _rank(path: str, parameter: str) -> int:
    if "position" in parameter and "position" in path:
        return -1
    return 0 if re.search(r"(^|\.)(hidden_size|d_model|n_embd|vocab_size|embedding_size)$", path) else 1


def paths_of(condition: str) -> set[str]:
    """The config fields that a condition reads."""
    parts = re.split(r" & | / ", condition)
    return {
        path
        for part in parts
        if (found := re.match(r"\^?[?!]?(?:n:)?([A-Za-z_][\w.\-]*)", part))
        for path in found.group(1).split("-")
        if path != "1"
    }


def paths_in(structure: Structure) -> set[str]:
    """The config fields that the structure's conditions read."""
    found = paths_of(structure.groups) if structure.groups != "out" else set()
    if structure.cls.startswith("ACT2FN:"):
        found.add(structure.cls.partition(":")[2])
    for child in structure.children:
        found |= paths_of(child.when or "")
        for condition, option in child.options:
            found |= paths_of(condition) | paths_in(option)
    return found


def _field(holder: Any, name: str) -> Any:
    try:
        return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
    except Exception:  # a field that differs by layer
        return None


def _defaults(name: str, config: Any, paths: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What a field is where config.json lacks it, and the other name that it may have there."""
    try:
        plain = tiny.config_class(name)()
    except Exception:
        plain = config
    defaults, aliases = {}, {}
    for path in paths:
        *parents, leaf = path.split(".")
        holder = plain
        for parent in parents:
            holder = _field(holder, parent)
        value = _field(holder, leaf)
        if isinstance(value, (bool, int, float, str)) or (isinstance(value, (list, tuple)) and len(value) <= 50):
            defaults[path] = list(value) if isinstance(value, tuple) else value
        for alias, real in getattr(holder, "attribute_map", {}).items():
            if real == leaf:
                aliases[path] = ".".join([*parents, alias])
    return defaults, aliases
