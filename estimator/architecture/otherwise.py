"""In words: what a newer release builds otherwise of a model, from the rows of newer.py."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from estimator.architecture.config_fields import MISSING, get
from estimator.architecture.module import ModuleTree, named_buffers, named_parameters
from estimator.notes import Note

_VERBS = {"lacks": "no longer has", "has": "has", "other": "has another shape or tie of"}
_SHOWN = 3  # names of many
_RELEASES = re.compile(r"from transformers (\S+) and (\S+)")


class Otherwise(NamedTuple):
    """One mark of a module class."""

    mark: str
    names: Sequence[str]
    field: str
    tensors: Sequence[str] = ()  # of this model, that are so called


Rows = Mapping[str, Sequence[Otherwise]]


def note(tree: ModuleTree, written: Mapping[str, Sequence[str]], stamp: str) -> Iterator[Note]:
    """None where nothing of this model differs. `written`: module class -> its rows; `stamp`: the file's first line."""
    tensors = (*named_parameters(tree.modules), *named_buffers(tree.modules))
    sizes = {name: prod(own.shape) for name, own in tensors if name not in tree.tied}
    modules: dict[str, list[str]] = {}
    for module in tree.modules:
        for cls in (module.cls,) if module.name else (module.cls, f"^{module.cls}"):
            if cls in written:
                modules.setdefault(cls, []).append(module.name)
    rows = {cls: [_read(row, modules[cls], sizes) for row in written[cls]] for cls in modules}
    rows = {cls: [row for row in said if _holds(row, tree.config)] for cls, said in rows.items()}
    said = [*_of_modules(rows), *_of_dtypes(rows, sizes)]
    releases = _RELEASES.search(stamp)
    if said and releases:
        older, newer = releases.groups()
        message = f"transformers {newer} builds {tree.architecture} otherwise than {older}, whose numbers these are: "
        yield Note("newer_release_differs", f"{message}{'; '.join(said)}.")


def _read(row: str, modules: Sequence[str], known: Collection[str]) -> Otherwise:
    """With the full names of the tensors that the row is about."""
    mark, *names = row.split(" ")
    mark, _, field = mark.partition("?")
    own = "|".join(re.escape(name).replace(r"\#", r"\d+") for name in names)
    around = "|".join(re.escape(f"{module}." if module else "") for module in modules)
    whole = re.compile(f"(?:{around})(?:{own})(?:[.].*)?")
    return Otherwise(mark, names, field, [name for name in known if whole.fullmatch(name)])


def _holds(row: Otherwise, config: Mapping[str, Any]) -> bool:
    """Whether it is about anything here: what is there in place of something needs no more than its module."""
    stated = not row.field or get(config, row.field) not in (MISSING, None)
    return stated and (row.mark.startswith("has") or bool(row.tensors))


def _of_modules(rows: Rows) -> Iterator[str]:
    """Parameters and buffers that are others; counts, targets and files follow parameters alone."""
    for kind, follows in (("", "targets, counts and files may differ"), ("-buffer", "the footprint alone differs")):
        clauses = [clause for cls, own in rows.items() for clause in _of_class(cls.lstrip("^"), kind, own)]
        if clauses:
            yield f"{', '.join(clauses)} ({follows})"


def _of_class(cls: str, kind: str, rows: Sequence[Otherwise]) -> Iterator[str]:
    for mark, verb in _VERBS.items():
        if names := [name for row in rows if row.mark == mark + kind for name in row.names]:
            yield f"{cls} {verb} {'the buffer ' * bool(kind)}{_listed(names)}"


def _of_dtypes(rows: Rows, sizes: Mapping[str, int]) -> Iterator[str]:
    """Tensors that are loaded in another dtype, and the bytes that it makes."""
    for mark, comparison in (("float32", "more"), ("16-bit", "less")):
        rest = (row for own in rows.values() for row in own if row.mark == mark)
        found = {name for row in rest for name in row.tensors}
        if found:
            ends = sorted({".".join([part for part in name.split(".") if not part.isdigit()][-2:]) for name in found})
            tensors, are = ("tensor", "is") if len(found) == 1 else ("tensors", "are")
            count = 2 * sum(sizes[name] for name in found)
            loaded = "loaded in bf16 or fp16, parameters and the adapter's file the same"
            many = f"{len(found):,} {tensors} ({_listed(ends)}) {are}"
            yield f"{many} {mark} in it, {count:,} bytes {comparison} where the model is {loaded}"


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
