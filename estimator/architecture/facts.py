"""What transformers builds for a class: read from the generated facts, only the lines that the class needs.

The file is text, one fact a line, packed as packed.py says:

    LlamaMLP            a module class (structure.py says how it is written); LlamaMLP.2 is another form of it
    =LlamaForCausalLM   what is said of a model class beside its modules
    @llama              the class of each task for a model type
    %internlm3          how a model type is read whose class is another's, as borrowed.py says
    ~transforms.7       the weight transforms of classes;  $legacy: those that every class has
    $activations        names of ACT2FN and their classes;  $refused: classes that could not be built, and why
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from estimator.architecture.packed import PackedLines
from estimator.architecture.structure import Structure, line_of, read_children, read_structure

FACTS = Path(__file__).with_name("classes.facts")
BLOCK_CHARACTERS = 112_000
_LINES = PackedLines(FACTS)


class Tower(NamedTuple):
    """A part of a model whose class is chosen by the model type that a section of the config names."""

    module: str  # its path
    section: str  # the config field that holds its config
    model_type: str  # the default
    task: str  # whose class is built: "BACKBONE", "CAUSAL_LM|SEQ_2_SEQ_LM" (the first that has one), ...

    def class_for(self, model_type: str) -> str | None:
        """The class that is built for this model type; None where there is none."""
        names = (class_for(model_type, task) for task in self.task.split("|"))
        return next((name for name in names if name), None)


class ClassOutline(NamedTuple):
    """What is said of one model class beside its modules and its files."""

    name: str
    input_embedding: str | None = None
    output_embedding: str | None = None
    one_embedding: tuple[str, ...] = ()  # as in module.py
    keep_in_fp32: tuple[str, ...] = ()
    keep_in_fp32_strict: tuple[str, ...] = ()
    declares_ties: bool = False
    declared_ties: tuple[tuple[str, str], ...] = ()  # parameter, source; `declared_ties` in module.py
    tie_word_embeddings: bool | None = None  # the class's default; None: no such field
    beside_head: Mapping[str, str | None] = {}  # as in module.py
    is_composite: bool = False
    labels: int | None = None  # the only number of labels that the class takes; None: any
    towers: tuple[Tower, ...] = ()  # parts that an Auto class chooses by a section's model_type
    release: str | None = None  # of transformers, of a class that the stamp's lacks


class ClassFacts(NamedTuple):
    """The facts of one model class."""

    said: ClassOutline
    root: Structure
    fresh: Mapping[str, Sequence[Any]]  # shapes of heads: numbers and config fields
    defaults: Mapping[str, Any]
    aliases: Mapping[str, str]
    activations: Mapping[str, str]
    prefix: str = ""  # base_model_prefix
    transforms: tuple[Sequence[Any], ...] = ()  # as transforms.py writes them, legacy ones included
    ties: tuple[tuple[str, str, str], ...] = ()  # parameter, the one that it shares, condition
    ignored_unexpected: tuple[str, ...] = ()  # regular expressions of tensors that are skipped in silence


def whole_text() -> str:
    """The file as text, one fact a line."""
    return _LINES.whole_text()


def names(mark: str) -> list[str]:
    """What the file knows of a kind of lines, "=" classes or "@" model types, in order."""
    return [row.partition("\t")[0][1:] for row in whole_text().splitlines() if row.startswith(mark)]


def stamp() -> str:
    """The file's first line: which releases it states."""
    return _LINES.first_line()


def line(name: str) -> Any:
    """The JSON behind a line's name; None where there is no such line."""
    return _LINES.parsed(name)


def class_outline(name: str) -> ClassOutline | None:
    """What needs no module of the class to be read; None where the file does not know it."""
    said = line(f"={name}")
    return None if said is None else _outlined(name, said)


def newer_release(name: str | None, model_type: Any = None) -> str | None:
    """The release of transformers that brought the class or the model type, where that which the file states lacks
    it.
    """
    said, kind = class_outline(name) if name else None, line(f"%{model_type}") or {}
    return (said.release if said else None) or kind.get("release")


def class_facts(name: str) -> ClassFacts | None:
    """The facts of a model class; None where the file knows none."""
    said = line(f"={name}")
    if said is None:
        return None
    root = said.get("root", name)
    parsed = _needed(root)
    own = line(said["transforms"]) if "transforms" in said else ()
    return ClassFacts(
        said=_outlined(name, said),
        root=read_structure(root, parsed, {}),
        prefix=said.get("prefix", ""),
        transforms=(*own, *line("$legacy")),
        ties=tuple(map(tuple, said.get("ties", ()))),
        fresh=said.get("fresh", {}),
        defaults=said.get("defaults", {}),
        aliases=said.get("aliases", {}),
        ignored_unexpected=tuple(said.get("unexpected", ())),
        activations=line("$activations"),
    )


def _outlined(name: str, said: Mapping[str, Any]) -> ClassOutline:
    return ClassOutline(
        name=name,
        input_embedding=said.get("in"),
        output_embedding=said.get("out"),
        one_embedding=tuple(said.get("sets", ())),
        keep_in_fp32=tuple(said.get("fp32", ())),
        keep_in_fp32_strict=tuple(said.get("fp32s", ())),
        declares_ties=said.get("declares", False),
        declared_ties=tuple(map(tuple, said.get("declared", _plain(said.get("ties", ()))))),
        tie_word_embeddings=said.get("tie"),
        beside_head=said.get("beside", {}),
        is_composite=said.get("composite", False),
        labels=said.get("labels"),
        towers=tuple(Tower(*tower) for tower in said.get("towers", ())),
        release=said.get("release"),
    )


def _plain(ties: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """What is declared, where the file does not say it: the ties of single parameters."""
    return [tie[:2] for tie in ties if "*" not in tie[0] + tie[1]]


def _needed(root: str) -> dict[str, Sequence[Any]]:
    """The lines of a structure and of all below it."""
    parsed: dict[str, Sequence[Any]] = {}
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name not in parsed:
            parsed[name] = line(name)
            waiting += [line_of(ref) for _, _, options in _children(parsed[name]) for _, ref in options]
    return parsed


def class_for(model_type: str | None, task: str | None, named: str | None = None) -> str | None:
    """The class that transformers' Auto class of a task (PEFT's name for it) builds for a model type.

    `named`: by config.json, which is built where a task has several classes (`_get_model_class`: Funnel's). Without a
    task: the causal language model, else the first that there is. None where the model type is unknown.
    """
    tasks = tasks_of(model_type)
    order = (task,) if task is not None else ("CAUSAL_LM", "SEQ_2_SEQ_LM", "any", "FEATURE_EXTRACTION")
    built = next((tasks[kind] for kind in order if kind in tasks), (None,))
    return named if named in built else built[0]


def classes_for(model_type: Any) -> frozenset[str]:
    """Every class that an Auto class builds for a model type; none where it is unknown, or no name."""
    return frozenset(name for built in tasks_of(model_type).values() for name in built)


def tasks_of(model_type: Any) -> dict[str, tuple[str, ...]]:
    """Task -> class, the usual one first where there are several: in the file a name that begins with "-" goes on after
    the stem that stands first, and "|" parts two names.
    """
    written = line(f"@{model_type}") or {}
    stem = written.get("", "")
    names = ((task, name.split("|")) for task, name in written.items() if task)
    return {task: tuple(stem + one[1:] if one[0] == "-" else one for one in built) for task, built in names}


def explain(name: str) -> str:
    """What the file says of a class, for people."""
    said = line(f"={name}")
    if said is None:
        reason = (line("$refused") or {}).get(name, "no such class in the Auto mappings")
        return f"{name}: no facts ({reason})"
    root = said.get("root", name)
    rows = [f"{key}: {json.dumps(value)}" for key, value in said.items()]
    return "\n".join([stamp(), name, *rows, *_tree(root, _needed(root), 1)])


def _children(written: Sequence[Any]) -> list[tuple[str, str | None, list[tuple[str, str]]]]:
    return read_children(written[1]) if len(written) > 1 else []


def _tree(ref: str, parsed: Mapping[str, Sequence[Any]], depth: int) -> list[str]:
    rows = []
    for child, when, options in _children(parsed[line_of(ref)]):
        for condition, option in options:
            written = parsed[line_of(option)]
            slots = written[2] if len(written) > 2 else ()
            where = " ".join(text for text in ("?" if when is None else when, condition) if text)
            rows.append(f"{'  ' * depth}{child}: {option} {' '.join(slots)} {f'[{where}]' if where else ''}".rstrip())
            rows += _tree(option, parsed, depth + 1)
    return rows
