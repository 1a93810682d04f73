"""Writes the formulas: python -m estimator.architecture.generate_shapes [CLASS ...] [--jobs N] [--check]

Each class is built on the meta device under many configs; what can't be explained by formulas, or fails on fresh random
configs, is left out: that class needs headers. Needs torch, transformers and numpy. The same releases give the same
bytes. With `--cache FOLDER` each class's line is kept there, and an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from estimator.architecture.packed import pack
from estimator.architecture.shapes import BLOCK_CHARACTERS, SHAPES, shapes_of, whole_text


def line_of(name: str, cache: Path | None) -> tuple[str, str, str]:
    """(class, its line or "", why it has none)."""
    from estimator.architecture.learning.learn import learn

    kept = cache / name if cache else None
    if kept is not None and kept.exists():
        return name, kept.read_text(), ""
    warnings.simplefilter("ignore")
    start = time.monotonic()
    try:
        facts, reason = learn(name)
    except Exception as error:  # a class that can't be built
        facts, reason = None, f"{type(error).__name__}: {error}"
    text = json.dumps(facts, separators=(",", ":")) if facts else ""
    print(f"{name} {time.monotonic() - start:.1f} s {len(text)} {reason[:200]}", file=sys.stderr, flush=True)
    if kept is not None:
        kept.write_text(text)
    return name, text, reason


def lines_of(names: Sequence[str], jobs: int, cache: Path | None) -> Iterator[tuple[str, str, str]]:
    """What line_of says of each class, in order."""
    work = partial(line_of, cache=cache)
    if jobs == 1:
        yield from map(work, names)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(work, names)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 1 where --check finds other lines than the file's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classes", nargs="*")
    parser.add_argument("--jobs", type=int, default=1, metavar="N")
    parser.add_argument("--check", action="store_true", help="compare with the file; write nothing")
    parser.add_argument("--explain", metavar="CLASS", help="print what the file says of a class")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep each class's line here")
    options = parser.parse_args(arguments)
    if options.explain:
        print(json.dumps(shapes_of(options.explain), indent=1))
        return 0
    names = options.classes
    if not names:
        from estimator.architecture.surveying import tiny

        names = list(tiny.classes())
    lines = {name: text for name, text, _ in lines_of(names, options.jobs, options.cache)}
    kept = dict(entry.split("\t", 1) for entry in whole_text().splitlines())
    if options.check:
        other = [name for name in names if kept.get(name, "") != lines[name]]
        print("\n".join(other) if other else "as in the file")
        return int(bool(other))
    kept = {name: text for name, text in (kept | lines if options.classes else lines).items() if text}
    SHAPES.write_bytes(pack("".join(f"{name}\t{kept[name]}\n" for name in sorted(kept)), BLOCK_CHARACTERS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
