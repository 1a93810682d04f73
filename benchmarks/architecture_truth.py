"""Is the module tree the one that transformers builds? Compares with recorded models, one by one.

    python benchmarks/architecture_truth.py CASES [--inferred] [--only TEXT] [--show N]

CASES is a folder of *.json.gz: each with `config`, `files` {name: {header}}, and what transformers had after loading:
`runtime_modules` [[name, class, kind, {parameter: shape}, {groups}?]], `runtime_paramless` [[name, class]], `tied`,
`runtime_total_params`, `transposed_params`, `facts` {head, embedding}. With --inferred the architecture facts are taken
away: names, kinds, shapes and ties must still be right, class names and modules without parameters need not.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from estimator.architecture.build import build
from estimator.architecture.module import ModuleTree
from estimator.checkpoint.checkpoint import CheckedFile, Checkpoint
from estimator.checkpoint.header import parse_header


def checkpoint_of(case: Mapping[str, Any]) -> Checkpoint:
    """The recorded headers as a checkpoint whose files are not at hand."""
    tensors, files = {}, []
    for path, file in case["files"].items():
        header = parse_header(file["header"], file=path)
        tensors |= header.tensors
        files.append(CheckedFile(path, None, None, {}, header.metadata))
    return Checkpoint(tensors=tensors, files=tuple(files), bytes=0)


def total_of(tree: ModuleTree) -> int:
    """Parameters, tied ones counted once."""
    return sum(
        math.prod(parameter.shape)
        for module in tree.modules
        for parameter in module.parameters
        if f"{module.name}.{parameter.name}".lstrip(".") not in tree.tied
    )


def differences(case: Mapping[str, Any], tree: ModuleTree, inferred: bool = False) -> Iterator[tuple[str, str]]:
    """(what differs, where and how)."""
    weighty = [module for module in tree.modules if module.parameters]
    ours = {m.name: m for m in weighty}
    truth = {row[0]: row for row in case["runtime_modules"]}
    yield from (("module missing", f"{name} {truth[name][1:4]}") for name in truth if name not in ours)
    yield from (("module too many", f"{name} {ours[name][1:4]}") for name in ours if name not in truth)
    for name in truth.keys() & ours.keys():
        yield from _of_module(truth[name], ours[name], inferred)
    if dict(tree.tied) != case["tied"]:
        yield "ties", f"{dict(tree.tied)} but {case['tied']}"
    if total_of(tree) != case["runtime_total_params"]:
        yield "total", f"{total_of(tree):,} but {case['runtime_total_params']:,}"
    for key, value in (("embedding", tree.input_embedding), ("head", tree.output_embedding)):
        if case["facts"].get(key) != value and not inferred:
            yield key, f"{value} but {case['facts'].get(key)}"
    if not inferred:
        yield from _of_order(case, tree)


def _of_module(row: list[Any], module: Any, inferred: bool) -> Iterator[tuple[str, str]]:
    groups = row[4].get("groups", 1) if len(row) > 4 else 1
    shapes = {parameter.name: list(parameter.shape) for parameter in module.parameters}
    pairs = [("kind", row[2], module.kind), ("shapes", row[3], shapes), ("groups", groups, module.groups)]
    if not inferred:
        pairs.append(("class", row[1], module.cls))
        pairs.append(("order of parameters", list(row[3]), list(shapes)))
    for what, right, ours in pairs:
        if right != ours:
            yield what, f"{row[0]}: {ours} but {right}"


def _of_order(case: Mapping[str, Any], tree: ModuleTree) -> Iterator[tuple[str, str]]:
    names = [module.name for module in tree.modules if module.parameters]
    wanted = [row[0] for row in case["runtime_modules"]]
    if names != wanted and set(names) == set(wanted):
        yield "order", str(next(pair for pair in zip(names, wanted, strict=True) if pair[0] != pair[1]))
    if "runtime_paramless" not in case:
        return
    ours = [[module.name, module.cls] for module in tree.modules if not module.parameters and module.name]
    truth = [row for row in case["runtime_paramless"] if row[0]]
    if ours != truth:
        there, there_truly = {tuple(row) for row in ours}, {tuple(row) for row in truth}
        many, missing = sorted(there - there_truly)[:3], sorted(there_truly - there)[:3]
        yield "without parameters", f"too many {many} missing {missing}"
    if {name.rpartition(".")[0] for name in tree.transposed} != set(case["transposed_params"]):
        yield "transposed", f"{tree.transposed[:2]} but {case['transposed_params'][:2]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--inferred", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--show", type=int, default=3)
    options = parser.parse_args()
    right, faults, spent = 0, Counter(), 0.0
    paths = [path for path in sorted(options.cases.glob("*.json.gz")) if options.only in path.name]
    for path in paths:
        case = json.loads(gzip.decompress(path.read_bytes()))
        started = time.perf_counter()
        try:
            tree = build(case["config"], checkpoint_of(case), use_facts=not options.inferred)
            found = list(differences(case, tree, options.inferred))
        except Exception as error:
            found = [("error", repr(error)[:200])]
        spent += time.perf_counter() - started
        right += not found
        faults.update({what for what, _ in found})
        for what, how in found[: options.show]:
            print(f"{path.name.removesuffix('.json.gz')}: {what}: {how[:300]}")
    print(f"{right} of {len(paths)} right, {spent:.1f} s; faults by case: {dict(faults)}")


if __name__ == "__main__":
    main()
