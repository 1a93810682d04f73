"""A published adapter in a folder: adapter_config.json and the header of adapter_model.safetensors."""

from __future__ import annotations

import os
import re
from typing import Any

from estimator.errors import NotFoundError
from estimator.source.config import LFS_POINTER, MAX_CONFIG_BYTES, parse_object
from estimator.source.folder import read_stored_file
from estimator.source.found import Found, StoredFile
from estimator.source.opening import read_at_most

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
_POINTER = re.compile(LFS_POINTER + rb".*?^size (\d{1,19})$", re.DOTALL | re.MULTILINE)
_POINTER_BYTES = 1_024


def adapter_in_folder(folder: str) -> Found:
    """Raises NotFoundError, MalformedHeaderError, MalformedConfigError."""
    config = _read(os.path.join(folder, CONFIG), folder)
    files: tuple[StoredFile, ...] = ()
    others: dict[str, int] = {}
    if os.path.isfile(path := os.path.join(folder, WEIGHTS)):
        pointed = pointed_bytes(path)
        if pointed is None:
            files = (read_stored_file(path, WEIGHTS),)
        else:
            others[WEIGHTS] = pointed
    if os.path.isfile(path := os.path.join(folder, PICKLED)):
        others[PICKLED] = pointed_bytes(path) or os.path.getsize(path)
    return Found(id=folder, revision=None, source="local", config=config, files=files, other_files=others)


def _read(path: str, folder: str) -> Any:
    try:
        text = read_at_most(path, MAX_CONFIG_BYTES)
    except OSError as error:
        raise NotFoundError(
            f"{folder} holds no {CONFIG} that can be read.", where="--adapter", way_out="name the adapter's own folder"
        ) from error
    return parse_object(text, where=path)


def pointed_bytes(path: str) -> int | None:
    """The size that a Git LFS pointer names; None for a file that is none."""
    match = _POINTER.match(read_at_most(path, _POINTER_BYTES))
    return int(match[1]) if match else None
