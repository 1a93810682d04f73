"""Writes the facts: python -m estimator.architecture.generate [--check] [--explain CLASS] [--jobs N]

Every class of every Auto mapping of the installed transformers is built tiny, under many configs, without weights; what
is common becomes one line. Needs torch and transformers, and timm, pillow and torchvision for the classes that wrap
timm's models. The same releases give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from typing import Any

from estimator.architecture.facts import FACTS, explain, pack, whole_text
from estimator.architecture.meanings import meanings
from estimator.architecture.structure import Structure, line_of, read_children, write_list, write_structure

_MEMORY_BYTES = 6 << 30
_TASKS = {
    "SEQ_CLS": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "SEQ_2_SEQ_LM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "CAUSAL_LM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "TOKEN_CLS": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "QUESTION_ANS": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "FEATURE_EXTRACTION": "MODEL_MAPPING_NAMES",
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


def keep(key: str, value: Any) -> bool:
    """Whether a fact is written: what is empty or false goes without saying, but for the default of a tie."""
    return value is not None and (key == "tie" or value not in ([], {}, "", False))


def dumped(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _survey(name: str) -> tuple[str, Any, str | None]:
    from estimator.architecture.survey import survey

    warnings.simplefilter("ignore")
    try:
        return name, survey(name), None
    except Exception as error:
        return name, None, f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"


def cyclic(ties: Sequence[Sequence[str]]) -> list[list[str]]:
    """Ties to a layer that differs by config, in one: "%" for the index of a stored copy, taken in turn."""
    groups: dict[tuple[str, str], list[Sequence[str]]] = {}
    for tie in ties:
        groups.setdefault((tie[0], re.sub(r"(?<=\.)\d+(?=\.)", "%", tie[1], count=1)), []).append(tie)
    found = []
    for (target, source), alike in groups.items():
        if len({tie[1] for tie in alike}) > 1 and "*" in target:
            found.append([target, source, ""])
        else:
            found += [list(tie) for tie in alike]
    return found


def _limit_memory() -> None:
    """A change may make a huge model: it is to fail alone."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


def surveys(names: Iterable[str], jobs: int) -> Iterable[tuple[str, Any, str | None]]:
    if jobs == 1:
        yield from map(_survey, names)
        return
    with ProcessPoolExecutor(jobs, initializer=_limit_memory) as pool:
        yield from pool.map(_survey, names, chunksize=8)


def generate(jobs: int = 1) -> str:
    """The facts file's text."""
    from estimator.architecture import tiny
    from estimator.architecture.survey import activations

    classes = tiny.classes()
    lines, refused, built = Lines(), {}, {}
    for name, surveyed, reason in surveys(classes, jobs):
        if surveyed is None:
            refused[name] = reason
            continue
        facts = dict(surveyed.facts)
        built.setdefault(classes[name].model_type, []).append(surveyed.structure)
        facts["ties"] = cyclic(facts["ties"])
        facts["transforms"] = [lines.shared("~transform", transform) for transform in facts["transforms"]]
        facts["root"] = lines.structure(surveyed.structure)
        facts["fresh"] = _needed_fresh(facts["fresh"], classes[name].mappings)
        facts["defaults"] = _needed_defaults(facts["defaults"], dumped(facts["ties"]) + _text_of(lines, facts["root"]))
        facts["root"] = "" if facts["root"] == name else facts["root"]
        lines.lines[f"={name}"] = dumped({key: value for key, value in facts.items() if keep(key, value)})
        for problem in surveyed.unresolved:
            print(f"{name}: {problem}", file=sys.stderr)
    lines.lines["$names"] = dumped(meanings(built))
    lines.lines["$refused"] = dumped(refused)
    lines.lines["$activations"] = dumped(activations())
    lines.lines["$legacy"] = dumped(_legacy())
    lines.lines.update(_model_types())
    body = "\n".join(f"{name}\t{text}" for name, text in sorted(lines.lines.items()))
    stamp = f"# Generated by python -m estimator.architecture.generate from transformers {version('transformers')}"
    return f"{stamp}, torch {version('torch').partition('+')[0]}\n{body}\n"


def _legacy() -> list[Any]:
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from estimator.architecture.transforms import written_transform

    return [written_transform(transform) for transform in get_checkpoint_conversion_mapping("legacy")]


def _model_types() -> dict[str, str]:
    from transformers.models.auto import modeling_auto

    found: dict[str, dict[str, str]] = {}
    for task, mapping in _TASKS.items():
        for model_type, name in getattr(modeling_auto, mapping).items():
            found.setdefault(model_type, {})[task] = name if isinstance(name, str) else name[0]
    for mapping in sorted(vars(modeling_auto), key=_likelihood):
        names = getattr(modeling_auto, mapping)
        if mapping.endswith("_MAPPING_NAMES") and mapping != "CONFIG_MAPPING_NAMES":
            for model_type, name in names.items():
                found.setdefault(model_type, {}).setdefault("any", name if isinstance(name, str) else name[0])
    return {f"@{model_type}": dumped(_by_stem(tasks)) for model_type, tasks in found.items()}


def _by_stem(tasks: dict[str, str]) -> dict[str, str]:
    """The common beginning of the names said once; what "any" says only where nothing likelier does."""
    if {"CAUSAL_LM", "SEQ_2_SEQ_LM"} & set(tasks):
        tasks = {task: name for task, name in tasks.items() if task != "any"}
    stem = os.path.commonprefix(list(tasks.values()))
    return {"": stem, **{task: f"-{name[len(stem) :]}" for task, name in tasks.items()}} if stem else tasks


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


def _text_of(lines: Lines, root: str) -> str:
    """All lines below one."""
    done: dict[str, str] = {}
    waiting = [line_of(root)]
    while waiting:
        name = waiting.pop()
        if name not in done:
            done[name] = lines.lines[name]
            written = json.loads(done[name])
            children = read_children(written[1]) if len(written) > 1 else []
            waiting += [line_of(ref) for _, _, options in children for _, ref in options]
    return "".join(done.values())


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
    parser.add_argument("--check", action="store_true", help="compare with the file; write nothing")
    parser.add_argument("--explain", metavar="CLASS", help="print what the file says of a class")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.explain:
        print(explain(options.explain))
        return 0
    text = generate(options.jobs)
    if not options.check:
        FACTS.write_bytes(pack(text))
        return 0
    return _difference(whole_text(), text)


def _difference(old: str, new: str) -> int:
    import difflib

    changes = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "facts", "generated now", lineterm="", n=0))
    print("\n".join(line[:300] for line in changes[:200]))
    return int(bool(changes))


if __name__ == "__main__":
    raise SystemExit(main())
