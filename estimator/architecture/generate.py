"""Writes the facts: python -m estimator.architecture.generate [--newer] [--check [--sample N]] [--explain CLASS]
[--jobs N] [--cache FOLDER [--part K/N]]

Every class of every Auto mapping of the installed transformers is built tiny, under many configs, without weights; what
is common becomes one line. Needs torch and transformers, and timm, pillow and torchvision for the classes that wrap
timm's models. The same releases give the same bytes. With `--newer` the file's classes stay as they are, and those that
it lacks are added, as the installed release has them; a run without it keeps what a newer release has added.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Collection, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from estimator.architecture.facts import (
    BLOCK_CHARACTERS,
    FACTS,
    class_facts,
    explain,
    line,
    names,
    newer_release,
    stamp,
    tasks_of,
    whole_text,
)
from estimator.architecture.packed import pack
from estimator.architecture.structure import Structure, write_list, write_structure
from estimator.architecture.surveying.surveys import part_of, surveys
from estimator.generated import difference

_TASKS = {
    "SEQ_CLS": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "SEQ_2_SEQ_LM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "CAUSAL_LM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "TOKEN_CLS": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "QUESTION_ANS": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "FEATURE_EXTRACTION": "MODEL_MAPPING_NAMES",
}
_PARTS = {  # what else an Auto class builds inside another model
    "TEXT_ENCODING": "MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES",
    "BACKBONE": "MODEL_FOR_BACKBONE_MAPPING_NAMES",
}


class Lines:
    """The lines of the file: structures and transforms that are alike share one."""

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._used: dict[str, int] = {}

    def shared(self, stem: str, value: Any) -> str:
        """The name of the line that holds this value: the stem, or the stem and a number."""
        text = dumped(value)
        if (stem, text) not in self._names:
            number = self._used[stem] = self._used.get(stem, 0) + 1
            name = stem if number == 1 else f"{stem}.{number}"
            self._names[stem, text] = name
            self.lines[name] = text
        return self._names[stem, text]

    def structure(self, structure: Structure) -> str:
        if (inline := write_list(structure, self.structure)) is not None:
            return inline
        stem = structure.cls.replace(" ", "_")
        return self.shared(stem, write_structure(stem, structure, self.structure))

    def add(self, name: str, facts: dict[str, Any], structure: Structure) -> None:
        """The line of a class, whose transforms are in full."""
        root = self.structure(structure)
        self.put(f"={name}", {**facts, "root": "" if root == name else root})

    def put(self, name: str, facts: dict[str, Any]) -> None:
        """A line whose transforms stand in one of their own."""
        transforms = facts.get("transforms")
        facts = {**facts, "transforms": self.shared("~transforms", transforms) if transforms else ""}
        self.lines[name] = dumped({key: value for key, value in facts.items() if keep(key, value)})


def keep(key: str, value: Any) -> bool:
    """Whether a fact is written: what is empty or false goes without saying, but for the default of a tie."""
    return value is not None and (key == "tie" or value not in ([], {}, "", False))


def dumped(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def generate(jobs: int = 1, folder: Path | None = None, newer: bool = False) -> str:
    """The facts file's text; surveys are kept in the folder, and taken from it. `newer`: beside the file's classes."""
    from estimator.architecture.surveying import tiny
    from estimator.architecture.surveying.borrowing import borrowing
    from estimator.architecture.surveying.survey import activations

    classes = tiny.classes()
    lines, refused = Lines(), dict(line("$refused")) if newer else {}
    kept = {name for name in names("=") if newer or name not in classes and newer_release(name)}
    asked = classes.keys() - kept - refused.keys()
    surveyed = surveys(sorted(asked), jobs, folder)
    for name in sorted(kept | asked):
        if name in kept and (known := class_facts(name)):
            lines.add(name, in_full(line(f"={name}")), known.root)
            continue
        outcome = next(surveyed)
        if outcome.surveyed is None:
            refused[name] = outcome.reason
            continue
        facts = said_of(outcome.surveyed, classes[name].mappings)
        facts["release"] = version("transformers") if newer else ""
        lines.add(name, facts, outcome.surveyed.structure)
        for problem in outcome.surveyed.unresolved:
            print(f"{name}: {problem}", file=sys.stderr)
    lines.lines["$refused"] = dumped(refused)
    lines.lines["$activations"] = dumped(line("$activations") if newer else activations())
    lines.lines["$legacy"] = dumped(line("$legacy") if newer else _legacy())
    borrowed = borrowing(_installed_types(), {kind: in_full(line(f"%{kind}")) for kind in names("%")}, newer)
    for kind, said in sorted(borrowed.items()):
        lines.put(f"%{kind}", said)
    newest = {kind for kind, said in borrowed.items() if said.get("release")}
    lines.lines.update(_model_types(asked if newer else kept, newest, newer))
    body = "\n".join(f"{name}\t{text}" for name, text in sorted(lines.lines.items()))
    return f"{stamp() if newer else _stamp()}\n{body}\n"


def _stamp() -> str:
    script = "python -m estimator.architecture.generate"
    torch = version("torch").partition("+")[0]
    return f"# Generated by {script} from transformers {version('transformers')}, torch {torch}"


def in_full(said: dict[str, Any]) -> dict[str, Any]:
    """A class's line with its transforms in place of their line's name, and without that of its modules."""
    said = {key: value for key, value in said.items() if key != "root"}
    return {**said, "transforms": line(said["transforms"])} if "transforms" in said else said


def said_of(surveyed: Any, mappings: Sequence[str]) -> dict[str, Any]:
    """What is written of a class beside its modules, with more than is kept of it."""
    facts = dict(surveyed.facts)
    facts["fresh"] = _needed_fresh(facts["fresh"], mappings)
    conditions = dumped(facts["ties"]) + dumped(sorted(surveyed.conditions))
    facts["defaults"] = _needed_defaults(facts["defaults"], conditions)
    return facts


def _legacy() -> list[Any]:
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from estimator.architecture.surveying.transforms import written_transform

    return [written_transform(transform) for transform in get_checkpoint_conversion_mapping("legacy")]


def _model_types(added: Collection[str], kinds: Collection[str], newer: bool) -> dict[str, str]:
    """Those of the installed release (`newer`: of the file), and the other's tasks that lead to added classes or are of
    these types.
    """
    installed, before = _installed_types(), {kind: tasks_of(kind) for kind in names("@")}
    found, other = (before, installed) if newer else (installed, before)
    for kind, tasks in other.items():
        for task in (task for task, built in tasks.items() if kind in kinds or built[0] in added):
            found.setdefault(kind, {}).setdefault(task, tasks[task])
    return {f"@{kind}": dumped(_by_stem(tasks)) for kind, tasks in found.items()}


def _installed_types() -> dict[str, dict[str, tuple[str, ...]]]:
    from transformers.models.auto import modeling_auto

    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for task, mapping in {**_TASKS, **_PARTS}.items():
        for model_type, name in getattr(modeling_auto, mapping).items():
            found.setdefault(model_type, {})[task] = (name,) if isinstance(name, str) else name
    for mapping in sorted(vars(modeling_auto), key=_likelihood):
        names = getattr(modeling_auto, mapping)
        if mapping.endswith("_MAPPING_NAMES") and mapping != "CONFIG_MAPPING_NAMES":
            for model_type, name in names.items():
                found.setdefault(model_type, {}).setdefault("any", (name,) if isinstance(name, str) else name)
    return found


def _by_stem(tasks: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """The common beginning of the names said once; what "any" says only where nothing likelier does."""
    if {"CAUSAL_LM", "SEQ_2_SEQ_LM"} & set(tasks):
        tasks = {task: name for task, name in tasks.items() if task != "any"}
    tasks = {task: tasks[task] for task in (*_TASKS, *_PARTS, "any") if task in tasks}
    stem = os.path.commonprefix([name for built in tasks.values() for name in built])
    cut = {task: "|".join(f"-{name[len(stem) :]}" if stem else name for name in built) for task, built in tasks.items()}
    return {"": stem, **cut} if stem else cut


def _needed_fresh(fresh: dict[str, Any], mappings: Sequence[str]) -> dict[str, Any]:
    """Heads of the classes that PEFT's tasks lead to, and what no checkpoint of the class holds."""
    heads = set(mappings) & set(_TASKS.values()) - {"MODEL_MAPPING_NAMES"}
    return {name: shape for name, shape in fresh.items() if heads or "position" in name}


def _needed_defaults(defaults: dict[str, Any], conditions: str) -> dict[str, Any]:
    """Without what is false by default, where conditions ask for no more than truth."""
    return {
        path: value
        for path, value in defaults.items()
        if value or any(f"{path}{mark}" in conditions for mark in "=~@<>")
    }


def _likelihood(mapping: str) -> tuple[int, str]:
    """Which mapping a checkpoint that names no class is most likely of: generation first, the bare model last."""
    first = (
        "MODEL_FOR_IMAGE_TEXT_TO_TEXT",
        "MODEL_FOR_MULTIMODAL_LM",
        "MODEL_FOR_SPEECH_SEQ_2_SEQ",
        "MODEL_FOR_MASKED_LM",
    )
    stem = mapping.removesuffix("_MAPPING_NAMES")
    rank = first.index(stem) if stem in first else len(first) + (stem == "MODEL")
    return rank, mapping


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 1 where --check finds another text than the file's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--newer", action="store_true", help="add classes that the file lacks; keep it as it is")
    parser.add_argument("--check", action="store_true", help="compare with the file; write nothing")
    parser.add_argument("--sample", type=int, metavar="N", help="check N classes, spread over the alphabet")
    parser.add_argument("--explain", metavar="CLASS", help="print what the file says of a class")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep surveys there, and go on from them")
    parser.add_argument("--part", metavar="K/N", help="only survey the K-th of N parts into --cache; write nothing")
    options = parser.parse_args(arguments)
    if options.explain:
        print(explain(options.explain))
        return 0
    if options.part:
        return _survey_part(options.part, options.jobs, options.cache)
    if options.check and options.sample:
        return _check_sample(options.sample)
    text = generate(options.jobs, options.cache, options.newer)
    if not options.check:
        FACTS.write_bytes(pack(text, BLOCK_CHARACTERS))
        return 0
    return difference(whole_text(), text)


def _survey_part(part: str, jobs: int, folder: Path | None) -> int:
    from estimator.architecture.surveying import tiny

    if folder is None:
        raise SystemExit("--part needs --cache: what it surveys is put together by a run without --part")
    for _ in surveys(part_of(list(tiny.classes()), part), jobs, folder):
        pass
    return 0


def _check_sample(count: int) -> int:
    """Compares some classes as they are surveyed now with what the file says of them."""
    from estimator.architecture.surveying import tiny

    classes = tiny.classes()
    changes = [change for name in list(classes)[:: max(1, len(classes) // count)] for change in differences(name)]
    print("\n".join(changes))
    return int(bool(changes))


def differences(name: str) -> list[str]:
    """What the file says of a class that a survey of it does not, now."""
    from estimator.architecture.surveying import tiny

    (outcome,) = surveys([name])
    said = line(f"={name}")
    if outcome.surveyed is None or said is None:
        same = outcome.surveyed is None and said is None
        return [] if same else [f"{name}: {'no longer built' if said else 'not in the file'} ({outcome.reason})"]
    facts = said_of(outcome.surveyed, tiny.classes()[name].mappings)
    now = json.loads(dumped({key: value for key, value in facts.items() if keep(key, value)}))
    then = in_full(said)
    then.pop("release", None)
    found = [
        f"{name}: {key}: {str(then.get(key))[:200]} in the file, {str(now.get(key))[:200]} now"
        for key in sorted({*then, *now})
        if then.get(key) != now.get(key)
    ]
    known = class_facts(name)
    same = known is not None and outcome.surveyed.structure == known.root
    return found + ([] if same else [f"{name}: modules differ"])


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # some classes of transformers register buffers in the order of a set
        command = [sys.executable, "-m", "estimator.architecture.generate", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606 - this very script
    raise SystemExit(main())
