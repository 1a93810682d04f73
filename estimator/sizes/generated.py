"""What the scripts that write facts files have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def run(description: str | None, output: Path, facts: Callable[..., str], **folders: str) -> int:
    """Writes what `facts` says; with --check, exit code 1 where the file says otherwise.

    folders: arguments that `facts` is given, with their help.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, said in folders.items():
        parser.add_argument(name, type=Path, help=said)
    parser.add_argument("--check", action="store_true")
    options = vars(parser.parse_args())
    text = facts(*(options[name] for name in folders))
    if options["check"]:
        return 0 if output.read_text(encoding="utf-8") == text else 1
    output.write_text(text, encoding="utf-8")
    return 0
