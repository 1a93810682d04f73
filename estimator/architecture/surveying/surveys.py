"""Many classes surveyed, in processes and in parts, kept in a folder so that a run can go on where one stopped.

A folder holds the surveys of one release and one state of these scripts: another state of either has another folder
below it.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import resource
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

_MEMORY_BYTES = 6 << 30
_RUN_TIME = ("buffers", "conditions", "structure", "tie_names")  # what surveys use of what estimates use


class Outcome(NamedTuple):
    name: str
    surveyed: Any  # a Surveyed, None where the class can't be built
    reason: str | None  # why it can't


def surveys(names: Iterable[str], jobs: int = 1, folder: Path | None = None) -> Iterator[Outcome]:
    """The outcome for every class, in order; from the folder where it has it."""
    place = _place(folder) if folder is not None else None
    one = partial(_survey, folder=place)
    if jobs == 1:
        yield from map(one, names)
        return
    with ProcessPoolExecutor(jobs, initializer=_limit_memory) as pool:
        yield from pool.map(one, names, chunksize=4)


def part_of(names: Sequence[str], part: str) -> list[str]:
    """The names of "2/4": every fourth, from the second on. Raises ValueError where the text is not of that form."""
    number, _, count = part.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise ValueError(f"a part is written as 2/4, not as {part}")
    return list(names)[int(number) - 1 :: int(count)]


def _place(folder: Path) -> Path:
    """The folder for this release and these scripts."""
    here = Path(__file__).parent
    digest = hashlib.sha256(version("transformers").encode() + version("torch").encode())
    for script in [*sorted(here.glob("*.py")), *(here.parent / f"{name}.py" for name in _RUN_TIME)]:
        digest.update(script.read_bytes())
    place = folder / digest.hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True)
    return place


def _survey(name: str, folder: Path | None) -> Outcome:
    path = folder / name if folder is not None else None
    if path is not None and path.exists():
        return pickle.loads(path.read_bytes())  # noqa: S301 - this script's own
    begin = time.process_time()
    outcome = _tried(name)
    if path is not None:
        waiting = path.with_suffix(f".{os.getpid()}")
        waiting.write_bytes(pickle.dumps(outcome))
        waiting.replace(path)
    print(f"{name}\t{time.process_time() - begin:.1f} s\t{outcome.reason or ''}", file=sys.stderr, flush=True)
    return outcome


def _tried(name: str) -> Outcome:
    from estimator.architecture.surveying.survey import survey

    warnings.simplefilter("ignore")
    try:
        return Outcome(name, survey(name), None)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return Outcome(name, None, f"{type(error).__name__}: {lines[0][:120]}")


def _limit_memory() -> None:
    """A change may make a huge model: it is to fail alone."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
