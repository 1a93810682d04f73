"""Writes what names mean: python -m estimator.architecture.generate_names [--check]

From the facts of every class, by vote of model types. Needs transformers, which says which class is whose; no model is
built.
"""

from __future__ import annotations

import json
import sys

from estimator.architecture.facts import stamp, whole_text
from estimator.architecture.inference.kinds import MEANINGS
from estimator.architecture.structure import Structure, read_structure
from estimator.architecture.surveying.meanings import meanings
from estimator.generated import run


def structures(text: str) -> dict[str, list[Structure]]:
    """Model type -> the structures of its classes, as the facts' text has them."""
    from estimator.architecture.surveying.tiny import classes

    lines = dict(entry.split("\t", 1) for entry in text.splitlines() if "\t" in entry)
    parsed = {name: json.loads(written) for name, written in lines.items() if name[0] not in "=@$~"}
    known: dict[str, Structure] = {}
    found: dict[str, list[Structure]] = {}
    for name, entry in classes().items():
        if f"={name}" in lines:
            root = json.loads(lines[f"={name}"]).get("root") or name
            found.setdefault(entry.model_type, []).append(read_structure(root, parsed, known))
    return found


def generate() -> str:
    """The file's text: one name a line."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        meant = meanings(structures(whole_text()))
    finally:  # what is nested without end is refused by this limit
        sys.setrecursionlimit(limit)
    said = {"": stamp().replace("architecture.generate ", "architecture.generate_names "), **meant}
    return json.dumps(said, indent=0, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(run(__doc__, MEANINGS, generate))
