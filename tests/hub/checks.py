"""How a row of a table of faults is judged."""

from __future__ import annotations

import time
from typing import Any

import pytest

from estimator.checkpoint.index import to_checkpoint
from estimator.errors import (
    LoraSizeError,
)
from estimator.source.found import Found
from estimator.source.hub import find_on_hub
from tests.hub.handler import Fault
from tests.hub.models import TINY, config_file, tiny_sharded

TIMEOUT = 8.0  # seconds given to the Hub
SHORT = 1.0  # seconds, where it never answers
MARGIN = 2.0  # seconds over them in which everything has ended, on a busy machine
RIGHT = None
OTHER_COMMIT = "b" * 40


def shapes_of(found: Found) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What an estimate would read from the answer."""
    checkpoint = to_checkpoint(found.files, found.index)
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in checkpoint.tensors.values()}


def outcome(id_: str, timeout: float) -> dict[str, tuple[str, tuple[int, ...]]] | LoraSizeError:
    """The answer, or the error that came instead."""
    try:
        return shapes_of(find_on_hub(id_, timeout=timeout))
    except LoraSizeError as error:
        return error


def check(id_: str, expected: type[LoraSizeError] | None, words: str) -> None:
    """The answer is right, or one error of that class with those words; and it has come in time."""
    begun = time.monotonic()
    timeout = SHORT if words == "--timeout" else TIMEOUT
    if expected is RIGHT and words == "--timeout":
        timeout = 3 * SHORT  # half of it is waited out, and the rest has to do on a busy machine
    got = outcome(id_, timeout)
    assert time.monotonic() - begun < timeout + MARGIN
    if not isinstance(got, LoraSizeError):
        assert expected is RIGHT
        assert got == TINY
        return
    shown = f"{got.what} {got.where} {got.way_out}"
    assert expected is not RIGHT, shown
    assert isinstance(got, expected), shown
    assert words in shown
    assert shown.isprintable()
    assert len(shown) < 1_200


CONFIG_TEXT = config_file().head
METADATA = tiny_sharded().metadata["model.safetensors.index.json"]
NESTED = b"[" * 200_000
HTML = b"<html><body>Log in to the guest network <script>alert(1)</script></body></html>"


def row(route: str, fault: Fault, expected: type[LoraSizeError] | None, *words: str, id: str) -> object:  # noqa: A002
    return pytest.param(route, fault, expected, *(words or ("",)), id=id)


def on(model: str, *tables: list[Any]) -> list[Any]:
    """The rows of tables beside the model that they are tried on."""
    return [pytest.param(model, *one.values, id=one.id) for table in tables for one in table]
