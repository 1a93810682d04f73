"""How many models are exact from config.json alone: python benchmarks/config_truth.py models.jsonl | FOLDER_OF_CASES

A line of models.jsonl: id, config, parameters, untied. A case: config, cls, runtime_modules, runtime_paramless, tied.
"""

from __future__ import annotations

import gzip
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from estimator.architecture.from_config import from_config
from estimator.architecture.module import ModuleTree
from estimator.errors import LoraSizeError


def parameters_of(tree: ModuleTree, untied: tuple[str, ...] = ()) -> int:
    """Tied weights counted once."""
    sizes = {f"{m.name}.{p.name}".lstrip("."): math.prod(p.shape) for m in tree.modules for p in m.parameters}
    return sum(size for name, size in sizes.items() if name not in tree.tied or name in untied)


def judge(config: Mapping[str, Any], wrong: Any) -> tuple[str, str]:
    """("exact" | "refused" | "wrong", why)."""
    try:
        tree = from_config(config)
    except LoraSizeError as error:
        return "refused", error.what
    problem = wrong(tree)
    return ("wrong", problem) if problem else ("exact", "")


def models(path: Path) -> Iterator[tuple[str, str, str]]:
    """(id, verdict, why) of each line."""
    for text in path.read_text().splitlines():
        model = json.loads(text)

        def wrong(tree: ModuleTree, model: Mapping[str, Any] = model) -> str:
            count = parameters_of(tree, tuple(model.get("untied", ())))
            return "" if count == model["parameters"] else f"{count:,} are {model['parameters']:,}"

        yield (f"{model['id']} {model['architecture']}", *judge(model["config"], wrong))


def cases(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(class, verdict, why) of each recorded case: names, classes, shapes, ties."""
    for path in sorted(folder.glob("*.json.gz")):
        case = json.loads(gzip.decompress(path.read_bytes()))
        yield (
            f"{case['model_type']} {case['cls']}",
            *judge(case["config"], lambda tree, case=case: different(tree, case)),
        )


def different(tree: ModuleTree, case: Mapping[str, Any]) -> str:
    """The first difference, or ""."""
    ours = {m.name: (m.cls, {p.name: list(p.shape) for p in m.parameters}) for m in tree.modules}
    theirs = {row[0]: (row[1], {key: list(shape) for key, shape in row[3].items()}) for row in case["runtime_modules"]}
    theirs |= {row[0]: (row[1], {}) for row in case.get("runtime_paramless", ())}
    if "runtime_paramless" not in case:  # some records list modules with parameters alone
        ours = {name: said for name, said in ours.items() if said[1]}
    for name in theirs.keys() | ours.keys():
        if name and ours.get(name) != theirs.get(name):
            return f"{name}: {ours.get(name)} is {theirs.get(name)}"
    pairs = {frozenset(pair) for pair in tree.tied.items()} ^ {frozenset(pair) for pair in case["tied"].items()}
    return f"ties: {[sorted(pair) for pair in pairs][:2]}" if pairs else ""


def main(argument: str) -> int:
    """Prints counts and what was not exact; 1 where a number was wrong."""
    path = Path(argument)
    verdicts = list(cases(path) if path.is_dir() else models(path))
    for name, verdict, why in verdicts:
        if verdict != "exact":
            print(f"{verdict}: {name}: {why[:300]}")
    counts = {key: sum(verdict == key for _, verdict, _ in verdicts) for key in ("exact", "refused", "wrong")}
    print(" ".join(f"{key} {count}" for key, count in counts.items()), f"of {len(verdicts)}")
    return int(counts["wrong"] > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
