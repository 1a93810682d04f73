"""Every bundled model built without weights and compared with its estimate: how a release is checked.

    python benchmarks/verify_suite.py [--only SUBSTRING] [--variant NAME] [--task TASK|all] [--all]
                                      [--rows FILE [--again STATUS]] [--table FILE.md]

Models with one and the same config are built once; --all builds each. With --task each is built as the class that
transformers has for that task, classifiers with 1, 2 and 5 labels. `--rows FILE` keeps every row as it comes and
goes on where a run was stopped: what is in the file is not built again, but for the statuses that --again names.
`--table` writes counts and exceptions as Markdown. Exit 1 where anything differs. Needs
`pip install 'lora-size[verify]'`; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from estimator.errors import LoraSizeError  # noqa: E402
from estimator.jobs.base import BaseCache  # noqa: E402
from estimator.jobs.estimate import estimate  # noqa: E402
from estimator.jobs.verifying.adapter import put_on  # noqa: E402
from estimator.jobs.verifying.model import AUTO_CLASSES, Wanted, build_on_meta, config_folder  # noqa: E402
from estimator.jobs.verifying.verify import verify, versions  # noqa: E402
from estimator.request.load_options import LoadOptions  # noqa: E402
from estimator.request.request import Request  # noqa: E402
from estimator.source.snapshot import known_models  # noqa: E402

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "r64-all-linear": {"r": 64, "target_modules": "all-linear"},
    "dora": {"r": 16, "target_modules": "all-linear", "use_dora": True},
    "modules-to-save": {"r": 8, "target_modules": "all-linear", "modules_to_save": ["lm_head", "embed_tokens"]},
}
_LABELLED, _LABELS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"), (1, 2, 5)
_GOOD = ("equal", "both refuse")


class Case(NamedTuple):
    name: str
    lora: dict[str, Any]
    num_labels: int | None = None


class Row(NamedTuple):
    model: str
    architecture: str
    variant: str
    status: str  # "equal" | "both refuse" | "differs" | "refused" (no estimate) | "not built" (the libraries can't)
    remark: str
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of a model's id")
    parser.add_argument("--variant", choices=VARIANTS, action="append")
    parser.add_argument("--task", choices=[*AUTO_CLASSES, "all"], action="append", default=[])
    parser.add_argument("--rows", help="a JSON Lines file that the rows are kept in, and read from")
    parser.add_argument("--again", action="append", default=[], help="check rows of this status once more")
    parser.add_argument("--all", action="store_true", help="models with the same config as well")
    parser.add_argument("--table", help="write the counts and what is not equal into this Markdown file")
    options = parser.parse_args()
    rows = kept_rows(options.rows, options.again)
    tasks = list(AUTO_CLASSES) if "all" in options.task else options.task
    cases = list(cases_of(options.variant or list(VARIANTS), tasks))
    wanted = [case.name for case in cases]
    for row in check_all(options.only, cases, options.all, done=frozenset(rows)):
        rows[row.model, row.variant] = row
        if row.status not in _GOOD:
            print(f"{row.status:11} {row.model:48} {row.architecture:36} {row.variant:16} {row.remark}", flush=True)
        if options.rows:
            with open(options.rows, "a", encoding="utf-8") as file:
                print(json.dumps(row._asdict()), file=file)
    shown = [row for row in rows.values() if row.variant in wanted and options.only.lower() in row.model.lower()]
    print("\n" + counts_of(shown))
    if options.table:
        with open(options.table, "w", encoding="utf-8") as file:
            file.write(as_markdown(shown))
    return 1 if any(row.status == "differs" for row in shown) else 0


def kept_rows(path: str | None, again: list[str]) -> dict[tuple[str, str], Row]:
    """Rows of an earlier run by model and variant, the last of each; {} without a file."""
    if path is None or not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        rows = [Row(**json.loads(line)) for line in file if line.endswith("}\n")]  # a last line may be cut
    last = {(row.model, row.variant): row for row in rows}
    return {key: row for key, row in last.items() if row.status not in again}


def cases_of(variants: list[str], tasks: list[str]) -> Iterator[Case]:
    """Each variant for each task, and where its head has labels for some numbers of them."""
    for variant in variants:
        if not tasks:
            yield Case(variant, VARIANTS[variant])
        for task in tasks:
            for labels in _LABELS if task in _LABELLED else (None,):
                name = f"{variant} {task}" + (f" {labels}" if labels else "")
                yield Case(name, {**VARIANTS[variant], "task_type": task}, labels)


def check_all(
    only: str, cases: list[Case], every: bool, done: frozenset[tuple[str, str]] = frozenset()
) -> Iterator[Row]:
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for known in sorted(known_models(), key=_modules):
        if only.lower() not in known.id.lower() or (not every and (known.config_text, known.untied) in seen):
            continue
        seen.add((known.config_text, known.untied))
        bases = BaseCache()
        architecture = next(iter(json.loads(known.config_text).get("architectures") or ()), "-")
        for case in cases:
            if (known.id, case.name) in done:
                continue
            begin = time.perf_counter()
            request = Request(model=known.id, lora=case.lora, num_labels=case.num_labels, offline=True)
            status, remark = check(request, bases)
            yield Row(known.id, architecture, case.name, status, remark, round(time.perf_counter() - begin, 2))


def _modules(known: Any) -> int:
    """Roughly how many modules a model has: small ones first, so that a run that is stopped has seen most classes."""
    config = json.loads(known.config_text)
    config = config.get("text_config") or config
    layers = next((config[n] for n in ("num_hidden_layers", "n_layer", "num_layers", "n_layers") if n in config), 12)
    return layers * (2 if any(config.get(n) for n in ("num_experts", "num_local_experts", "n_routed_experts")) else 1)


def check(request: Request, bases: BaseCache) -> tuple[str, str]:
    try:
        answer = estimate(request, bases=bases)
    except LoraSizeError as error:
        return refused(error, request, bases)
    try:
        verification = verify(request, answer, device="meta")
    except LoraSizeError as error:
        return "not built", error.what
    differing = [f"{c.what}: {c.estimate} and really {c.real}" for c in verification.comparisons if not c.equal]
    first = [f"{d.name}: {d.estimate} and really {d.real}" for d in verification.differences[:1]]
    remark = answer.tree.basis + "; " + "; ".join(differing + first)
    return ("equal", "") if verification.equal else ("differs", remark)


def refused(error: LoraSizeError, request: Request, bases: BaseCache) -> tuple[str, str]:
    """Where the estimate says that PEFT refuses, PEFT is asked."""
    said = f"{error.code}: {error.what}"
    if error.code not in ("no_target_modules", "unsupported_module", "invalid_lora"):
        return "refused", said
    task, labels = request.lora.get("task_type"), request.num_labels
    base = bases.base(request, task)
    wanted = Wanted(
        config=base.config,
        place=None,
        subfolder="",
        revision=None,
        task=task,
        num_labels=labels,
        dtype="auto",
        untied=base.found.untied,
        load=LoadOptions(),
        trust_remote_code=False,
    )
    with config_folder(base.config) as folder:
        try:
            model = build_on_meta(wanted, folder)
        except LoraSizeError as unbuilt:
            return "not built", unbuilt.what
        try:
            put_on(model, request.lora, None, on_meta=True)
        except Exception as theirs:  # whatever PEFT raises is a refusal
            return "both refuse", f"{said} PEFT: {str(theirs).splitlines()[0][:200]}"
    return "differs", f"{said} PEFT does not refuse."


_STATUSES = ("equal", "both refuse", "differs", "refused", "not built")


def counts_of(rows: list[Row]) -> str:
    """A Markdown table, which is readable as text as well."""
    counts = Counter((row.variant, row.status) for row in rows)
    lines = ["| variant | " + " | ".join(_STATUSES) + " |", "| --- |" + " ---: |" * len(_STATUSES)]
    for variant in dict.fromkeys(row.variant for row in rows):
        lines.append(f"| {variant} | " + " | ".join(str(counts[variant, status]) for status in _STATUSES) + " |")
    models = len({row.model for row in rows})
    return "\n".join([*lines, "", f"{models} models of {len({row.architecture for row in rows})} classes."])


def as_markdown(rows: list[Row]) -> str:
    """Counts, the releases, and each model that is not equal with the reason."""
    releases = ", ".join(f"{name} {release}" for name, release in versions().items())
    lines = ["# Every bundled model on the meta device", "", "Written by `benchmarks/verify_suite.py --table`.", "",
             counts_of(rows), "", releases + ".", ""]  # fmt: skip
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.status not in _GOOD:
            reasons.setdefault((row.model, row.status, row.remark), []).append(row.variant)
    for (model, status, remark), variants in sorted(reasons.items()):
        lines.append(f"- {model} ({', '.join(variants)}): {status}; {remark}")
    return "\n".join(lines).rstrip("\n") + "\n"


if __name__ == "__main__":
    sys.exit(main())
