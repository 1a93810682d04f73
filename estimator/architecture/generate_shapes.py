"""Writes the formulas: python -m estimator.architecture.generate_shapes [CLASS ...] [--check] [--explain CLASS]

Each class is built on the meta device under many configs; what can't be explained by formulas, or fails on fresh random
configs, is left out: that class needs headers. Needs torch, transformers and numpy. `--cache FOLDER` keeps each class's
line; `--only-cached` packs those that are there.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from estimator.architecture.conditions import Place
from estimator.architecture.fields_used import given, paths_of, without
from estimator.architecture.fit import default_rule
from estimator.architecture.shapes import SHAPES, pack, shapes_of, whole_text

_SECONDS, _WANTED, _FRESH = 6.0, 50, 9


def learn(name: str, seconds: float = _SECONDS) -> tuple[dict[str, Any] | None, str]:
    """The class's facts, or None and why not."""
    import torch

    from estimator.architecture.experiments import experiments
    from estimator.architecture.observe import BUILD_DTYPE

    torch.set_default_dtype(BUILD_DTYPE)
    builds = experiments(name, seconds, _WANTED + _FRESH)
    fresh, known = builds[-_FRESH - 1 :], builds[: -_FRESH - 1]
    if len(known) < 6:
        known = builds
    reason = ""
    for _ in range(4):
        try:
            facts = _facts(name, known)
        except Exception as error:
            reason = f"{type(error).__name__} {error}"
            break
        found = [(one, difference(name, facts, one)) for one in fresh]
        wrong = [(one, why) for one, why in found if why and not why.startswith("Unfit")]
        if not wrong and any(not why for _, why in found):
            return facts, ""
        wrong = wrong or found
        reason = wrong[0][1]
        added = [one for one, _ in wrong if one not in known][:3]
        if not added:
            break
        known += added
    return None, reason


def _facts(name: str, builds: Sequence[Any]) -> dict[str, Any]:
    from estimator.architecture import tiny
    from estimator.architecture.fit import conditions_of
    from estimator.architecture.fit_class import Glimpse, Learner
    from estimator.architecture.survey import _said_of, _ties, _varying, activations

    varying = _varying([one.at.setting for one in builds])
    learner = Learner(varying, activations())
    learner.root([Glimpse(one.seen, one.at) for one in builds])
    config = tiny.make(name, builds[0].fields)
    model = tiny.build(name, config)
    shims = [_Shim(one, config) for one in builds]
    said = _said_of(model, shims[0])
    for problem in learner.unresolved[:4]:
        print(f"    {name}{problem}", file=sys.stderr)
    facts: dict[str, Any] = {
        "n": [json.loads(node) for node in learner.nodes],
        "types": list(tiny.classes()[name].model_types),
        "ties": _ties(shims, varying),
        **{key: said[key] for key in ("fp32", "fp32s", "declares", "tie", "composite")},
    }
    for at, key in enumerate(("in", "out")):
        groups: dict[str, Any] = {}
        for one in builds:
            groups.setdefault(json.dumps(one.embeddings[at]), []).append(one.at.setting)
        options = conditions_of(groups, varying)
        if options is None:
            raise ValueError(f"embedding {list(groups)}")
        facts[key] = [[condition, json.loads(value)] for condition, value in options]
    paths = paths_of(facts)
    if said["tie"] is not None:
        paths.add("tie_word_embeddings")
    rules: dict[str, Any] = {}
    aliases: dict[str, list[str]] = {}
    waiting = set(paths)
    while waiting:
        path = waiting.pop()
        if path in rules or path == "num_labels":
            continue
        rules[path] = _rules(name, path, builds, learner)
        aliases |= _aliases(config, path)
        waiting |= paths_of(rules[path]) - set(rules)
        paths |= waiting
    facts["rules"] = {path: rule for path, rule in sorted(rules.items()) if rule}
    facts["aliases"] = dict(sorted(aliases.items()))
    facts["seen"] = _seen(facts, builds)
    return facts


class _Shim:
    """What survey's functions read of a build."""

    def __init__(self, build: Any, config: Any) -> None:
        self.config, self.setting, self.seen = config, build.at.setting, build.seen
        self.ties, self.embeddings = build.ties, build.embeddings


def _rules(name: str, path: str, builds: Sequence[Any], learner: Any) -> dict[str, Any]:
    """What the field is where config.json leaves it out, and where it says null."""
    from estimator.architecture import tiny
    from estimator.architecture.experiments import observation_of

    rules: dict[str, Any] = {}
    parts = tuple(path.split("."))
    given = [(given(one.fields, parts), one.at.values.get(path)) for one in builds]
    if any(value is not None and type(value) is int and value != kept for value, kept in given):
        rules["ignored"] = True  # the class computes the field whatever config.json says
    for key in ("absent", "null"):
        observed, values = [], []
        for one in builds[:: max(1, len(builds) // 24)]:
            fields = without(one.fields, parts) if key == "absent" else tiny.changed(one.fields, parts, None)
            try:
                at = observation_of(tiny.make(name, fields))
            except Exception:
                continue
            if path in at.values:
                values.append(at.values.pop(path))
                at.features = {k: v for k, v in at.features.items() if k != path and not k.startswith(f"{path}[")}
                at.setting.fields.pop(path, None)
                at.setting.lists.pop(path, None)
                observed.append(at)
            elif key == "absent":  # a field that only the model reads
                observed.append(at)
                values.append(None)
        if len(values) >= 3 and (rule := default_rule(learner.fitter, observed, values)) is not None:
            rules[key] = rule
        elif key == "absent" and len(values) < 3 and (plain := _plain(name, path)) is not None:
            rules[key] = {"is": plain}
    return rules


def _plain(name: str, path: str) -> Any:
    """The class's own default, where a config without the field is refused beside small numbers."""
    from estimator.architecture import tiny
    from estimator.architecture.experiments import observation_of

    try:
        return observation_of(tiny.config_class(name)()).values.get(path)
    except Exception:
        return None


def _aliases(config: Any, path: str) -> dict[str, list[str]]:
    *parents, leaf = path.split(".")
    holder = config
    for parent in parents:
        holder = holder.get(parent) if isinstance(holder, Mapping) else getattr(holder, parent, None)
    names = [alias for alias, real in (getattr(holder, "attribute_map", None) or {}).items() if real == leaf]
    return {path: [".".join([*parents, alias]) for alias in names]} if names else {}


def _seen(facts: Mapping[str, Any], builds: Sequence[Any]) -> dict[str, list[str]]:
    """Texts and booleans that conditions read, with the values that were tried."""
    seen: dict[str, list[str]] = {}
    for path in sorted(paths_of(facts) | {p for rule in facts["rules"].values() for p in paths_of(rule)}):
        values = {one.at.setting.fields[path] for one in builds if path in one.at.setting.fields}
        values |= {v for one in builds for v in one.at.setting.lists.get(path, ())}
        is_activation = any(node[0] == f"ACT2FN:{path}" for node in facts["n"])
        numbers = any(re.fullmatch(r"-?[\d.]+(e-?\d+)?", value) for value in values)
        if 0 < len(values) < 40 and not numbers and not is_activation:
            seen[path] = sorted(values)
    return seen


def difference(name: str, facts: Mapping[str, Any], build: Any) -> str:
    """ "" where the formulas make the very tree of the build, else the first difference."""
    from estimator.architecture.formula import Unfit
    from estimator.architecture.from_config import _check_region, _Grower, _named, _ties, lookup_for

    config = dict(build.fields)
    lookup = lookup_for(config, facts)
    try:
        _check_region(facts, lookup)
        grower = _Grower(facts, lookup, "BF16")
        grower.module("", len(facts["n"]) - 1, Place())
    except (Unfit, IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    unsized = set(grower.unsized)
    ours = [_row(m) for m in grower.modules]
    theirs = [_without_buffers(row, unsized) for row in _rows("", build.seen)]
    for one, two in zip(ours, theirs, strict=False):
        if one != two:
            return f"{one} is {two}"
    if len(ours) != len(theirs):
        return f"{len(ours)} modules are {len(theirs)}"
    ties = _ties(facts["ties"], grower.modules, lookup)
    if set(ties.items()) != set(build.ties.items()):
        return f"ties {ties} are {build.ties}"
    here = {module.name for module in grower.modules}
    named = tuple(_named(facts[key], lookup, here) for key in ("in", "out"))
    return "" if named == tuple(build.embeddings) else f"{named} are {build.embeddings}"


def _without_buffers(row: Any, unsized: set[str]) -> Any:
    kept = [buffer for buffer in row[4] if f"{row[0]}.{buffer[0]}".lstrip(".") not in unsized]
    return (*row[:4], kept, row[5])


def _row(module: Any) -> Any:
    tensors = [(p.name, p.shape, p.dtype if p.fixed else None) for p in module.parameters]
    buffers = [(p.name, p.shape, p.dtype if p.fixed else None, p.persistent) for p in module.buffers]
    return module.name, module.cls, module.kind, tensors, buffers, module.groups


def _rows(name: str, seen: Any) -> Any:
    tensors = [(t.name, t.shape, t.dtype) for t in seen.parameters]
    buffers = [(t.name, t.shape, t.dtype, t.persistent) for t in seen.buffers]
    yield name, seen.cls, seen.kind, tensors, buffers, seen.groups
    for key, child in seen.children:
        yield from _rows(f"{name}.{key}".lstrip("."), child)


def generate(names: Sequence[str], cache: Path | None) -> dict[str, str]:
    """Class -> its line; classes that need headers are named on stderr."""
    lines = {}
    for name in names:
        kept = cache / name if cache else None
        if kept is None or not kept.exists():
            start = time.monotonic()
            try:
                facts, reason = learn(name)
            except Exception as error:
                facts, reason = None, f"{type(error).__name__}: {error}"
            signal.alarm(0)
            text = json.dumps(facts, separators=(",", ":")) if facts else ""
            print(f"{name}: {time.monotonic() - start:.1f} s {len(text)} {reason[:300]}", file=sys.stderr, flush=True)
            if kept:
                kept.write_text(text)
        else:
            text = kept.read_text()
        if text:
            lines[name] = text
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 1 where --check finds another text than the file's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("classes", nargs="*")
    parser.add_argument("--check", action="store_true", help="compare with the file; write nothing")
    parser.add_argument("--explain", metavar="CLASS", help="print what the file says of a class")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--only-cached", action="store_true")
    options = parser.parse_args(arguments)
    if options.explain:
        print(json.dumps(shapes_of(options.explain), indent=1))
        return 0
    warnings.simplefilter("ignore")
    random.seed(0)
    names = options.classes
    if options.only_cached:
        names = sorted(path.name for path in options.cache.iterdir() if path.stat().st_size)
    elif not names:
        from estimator.architecture import tiny

        names = list(tiny.classes())
    lines = generate(names, options.cache)
    text = "\n".join(f"{name}\t{lines[name]}" for name in sorted(lines)) + "\n"
    if options.check:
        return int(whole_text() != text)
    if options.only_cached or not options.classes:
        SHAPES.write_bytes(pack(text))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
