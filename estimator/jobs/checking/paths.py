"""What there is to check behind the paths given: adapter folders, training configs, and other files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from estimator.request.files import SHELL_ENDINGS
from estimator.source.adapter import CONFIG, PICKLED, WEIGHTS

ADAPTER_FILES = (CONFIG, WEIGHTS, PICKLED)
IN_FOLDERS = (".yaml", ".yml", *SHELL_ENDINGS)
CONFIG_ENDINGS = (*IN_FOLDERS, ".json", ".py", ".ipynb", ".toml")
SHORT_BYTES = 20_000
_PASSED_BY = frozenset({".git", "node_modules", "__pycache__", ".venv", ".tox"})
_WHOLE_MODEL = re.compile(
    r"((model|consolidated)([.-].*)?\.safetensors|pytorch_model(-.*)?\.bin|consolidated\..*pth)(\.index\.json)?$"
)


class Unit(NamedTuple):
    """One thing that is checked."""

    kind: str  # "adapter" | "config" | "weights": any other file | "missing"
    path: str
    named: bool  # given by the user itself, not found in a folder


def find_units(paths: Iterable[str]) -> list[Unit]:
    """Each once, in the order given."""
    units: dict[tuple[str, str], Unit] = {}
    for path in paths:
        for unit in _behind(path):
            units.setdefault((unit.kind, os.path.normpath(unit.path)), unit)
    return list(units.values())


def _behind(path: str) -> Iterator[Unit]:
    if os.path.isdir(path):
        yield from _in_folder(path)
    elif not os.path.lexists(path):
        yield Unit("missing", path, True)
    else:
        yield _of_file(path)


def _of_file(path: str) -> Unit:
    name = os.path.basename(path)
    if name in ADAPTER_FILES:
        return Unit("adapter", os.path.dirname(path) or ".", True)
    if os.path.exists(path) and not os.path.isfile(path):
        return Unit("weights", path, True)  # a pipe or a device, which nobody waits for
    if name.endswith(CONFIG_ENDINGS) and not name.endswith(".index.json"):
        return Unit("config", path, True)
    return Unit("weights", path, True)


def _in_folder(top: str) -> Iterator[Unit]:
    for folder, inner, names in os.walk(top):
        inner[:] = sorted(name for name in inner if name not in _PASSED_BY)
        is_adapter = any(name in names for name in ADAPTER_FILES)
        if is_adapter:
            yield Unit("adapter", folder, False)
        for name in sorted(names):
            path = os.path.join(folder, name)
            in_json = name.endswith(".json") and not is_adapter and _is_short(path)  # beside one: a tokenizer's
            if os.path.isfile(path) and (name.endswith(IN_FOLDERS) or in_json):
                yield Unit("config", path, False)


def _is_short(path: str) -> bool:
    """A training config in JSON is; tokenizers, data and lock files are not worth reading."""
    try:
        return os.path.getsize(path) <= SHORT_BYTES
    except OSError:
        return False


def is_whole_model(name: str) -> bool:
    return _WHOLE_MODEL.match(name) is not None


def is_training_state(name: str) -> bool:
    """What Trainer, DeepSpeed and FSDP leave beside an adapter in a checkpoint."""
    return name.endswith(".distcp") or name in (
        "optimizer.pt", "optimizer.bin", "optimizer_0", "pytorch_model_fsdp_0", "latest", "scaler.pt",
    )  # fmt: skip
