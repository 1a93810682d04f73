"""Writes what names mean: python -m estimator.architecture.generate_names [--check]

From the facts of every class, by vote of model types. Needs transformers, which says which class is whose; no model is
built.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from estimator.architecture.facts import stamp, whole_text
from estimator.architecture.guess_kinds import MEANINGS
from estimator.architecture.structure import Structure, read_structure
from estimator.architecture.surveying.meanings import meanings


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
    said = {
        "": stamp().replace("architecture.generate ", "architecture.generate_names "),
        **meanings(structures(whole_text())),
    }
    return json.dumps(said, indent=0, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 1 where --check finds another text than the file's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the file; write nothing")
    options = parser.parse_args(arguments)
    sys.setrecursionlimit(10_000)
    text = generate()
    if options.check:
        return int(text != MEANINGS.read_text(encoding="utf-8"))
    MEANINGS.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
