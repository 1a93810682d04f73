"""What the scripts that write facts have in common: a file is written, or held against what would be written."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

_MOST_LINES, _MOST_CHARACTERS = 200, 300  # that are shown of a difference; a line of facts may be a class


def run(description: str | None, output: Path, facts: Callable[..., str], **paths: str) -> int:
    """The script's exit code. It writes what `facts` says; with --check it shows where the file says otherwise.

    paths: arguments that `facts` is given, with their help.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, said in paths.items():
        parser.add_argument(name, type=Path, help=said)
    parser.add_argument("--check", action="store_true", help="compare with the file; write nothing")
    options = vars(parser.parse_args())
    text = facts(*(options[name] for name in paths))
    if options["check"]:
        return difference(output.read_text(encoding="utf-8"), text)
    output.write_text(text, encoding="utf-8")
    return 0


def difference(old: str, new: str) -> int:
    """Prints what differs between the file's text and the one that would be written; 1 where anything does, else 0."""
    from difflib import unified_diff
    from itertools import islice

    changes = unified_diff(old.splitlines(), new.splitlines(), "the file", "generated now", lineterm="", n=0)
    for line in islice(changes, _MOST_LINES):
        print(line[:_MOST_CHARACTERS])
    return int(old != new)
