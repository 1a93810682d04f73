"""What the scripts that write facts have in common: a file is written, or held against what would be written."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

_MOST_LINES, _MOST_CHARACTERS = 200, 300  # that are shown of a difference; a line of facts may be a class


class Rows(NamedTuple):
    """How the lines of a file say something of model types or classes of transformers."""

    pattern: str  # of a line, with the groups `said` and `names`
    form: str  # "{said} {names}"
    is_newer: Callable[[str], bool]  # whether only a release newer than the file's has what is named so
    order: Callable[[str], Any] = str  # of what is said, or of the names where each has a line of its own


def run(
    description: str | None, output: Path, facts: Callable[..., str], rows: Rows | None = None, **paths: str
) -> int:
    """The script's exit code. It writes what `facts` says; with --check it shows where the file says otherwise.

    rows: of a file that keeps what it says of a newer release's types and classes; --newer, with that one installed,
    writes these and keeps all the rest. paths: arguments that `facts` is given, with their help.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, said in paths.items():
        parser.add_argument(name, type=Path, help=said)
    if rows:
        parser.add_argument("--newer", action="store_true", help="only what the file's release of transformers lacks")
    parser.add_argument("--check", action="store_true", help="compare with the file; write nothing")
    options = vars(parser.parse_args())
    text = facts(*(options[name] for name in paths))
    if rows:
        before = output.read_text(encoding="utf-8")
        text = with_newer(before, text, rows) if options["newer"] else with_newer(text, before, rows)
    if options["check"]:
        return difference(output.read_text(encoding="utf-8"), text)
    output.write_text(text, encoding="utf-8")
    return 0


def with_newer(text: str, newer: str, rows: Rows) -> str:
    """The text with the other's rows on what is newer in place of its own."""
    first, *lines = text.splitlines()
    kept = {pair for pair in _pairs(lines, rows) if not rows.is_newer(pair[1])}
    added = {pair for pair in _pairs(newer.splitlines()[1:], rows) if rows.is_newer(pair[1])}
    if rows.form.startswith("{names}"):
        written = [(name, rows.form.format(said=said, names=name)) for said, name in kept | added]
    else:
        named: dict[str, list[str]] = {}
        for said, name in sorted(kept | added):
            named.setdefault(said, []).append(name)
        written = [(said, rows.form.format(said=said, names=" ".join(names))) for said, names in named.items()]
    ordered = sorted(written, key=lambda row: rows.order(row[0]))
    return "\n".join([first, *(line for _, line in ordered)]) + "\n"


def _pairs(lines: list[str], rows: Rows) -> Iterator[tuple[str, str]]:
    """What is said, and of whom."""
    for line in lines:
        if found := re.fullmatch(rows.pattern, line):
            yield from ((found["said"], name) for name in found["names"].split(" "))


def difference(old: str, new: str) -> int:
    """Prints what differs between the file's text and the one that would be written; 1 where anything does, else 0."""
    from difflib import unified_diff
    from itertools import islice

    changes = unified_diff(old.splitlines(), new.splitlines(), "the file", "generated now", lineterm="", n=0)
    for line in islice(changes, _MOST_LINES):
        print(line[:_MOST_CHARACTERS])
    return int(old != new)
