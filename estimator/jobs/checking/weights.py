"""A file by itself, neither an adapter's nor a config: a whole model, training state, a broken safetensors file."""

from __future__ import annotations

import os

from estimator.checkpoint.index import to_checkpoint
from estimator.jobs.checking.paths import is_training_state, is_whole_model
from estimator.report.findings import CheckedPath, Problem
from estimator.report.units import exact_size
from estimator.source.adapter import WEIGHTS, pointed_bytes
from estimator.source.folder import read_stored_file


def check_weights(path: str) -> CheckedPath:
    """Fails where the file belongs in no repository or is broken; else it is none of this tool's, and says so.

    Raises MalformedHeaderError for a safetensors file whose header safetensors itself would refuse.
    """
    name = os.path.basename(path)
    if is_whole_model(name):
        message = f"{name} is a whole model. Remove it and name it by its id."
        return CheckedPath(path, "failed", (Problem("base_model_committed", message),))
    if is_training_state(name):
        message = f"{name} is training state. Remove it."
        return CheckedPath(path, "failed", (Problem("training_state_committed", message),))
    if not os.path.isfile(path):
        return CheckedPath(path, "skipped", (Problem("not_an_adapter", "It is no regular file, and was not read."),))
    broken = _broken(path, name) if name.endswith(".safetensors") else None
    if broken:
        return CheckedPath(path, "failed", (broken,))
    message = f"It is neither an adapter's file nor a training config. An adapter's weights are called {WEIGHTS}."
    return CheckedPath(path, "skipped", (Problem("not_an_adapter", message),))


def _broken(path: str, name: str) -> Problem | None:
    if os.path.getsize(path) == 0:
        return Problem("empty_file", f"{name} has no bytes. Copy or save it again.")
    if pointed_bytes(path) is not None:
        return None
    (file,) = to_checkpoint((read_stored_file(path, name),)).files
    return wrong_size(name, file.expected_bytes, file.actual_bytes)


def wrong_size(name: str, expected: int | None, actual: int | None) -> Problem | None:
    """A file that is shorter or longer than its header promises."""
    if expected is None or actual is None or expected == actual:
        return None
    message = f"{name} has {exact_size(actual)}, its header promises {exact_size(expected)}. Copy it again."
    return Problem("cut_short" if actual < expected else "too_long", message)
