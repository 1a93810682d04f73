"""A checkpoint's tensors, all files together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Tensor(NamedTuple):
    name: str  # as stored in the file
    dtype: str  # safetensors' name
    shape: tuple[int, ...]  # as stored
    file: str  # path of the file that holds it
    offsets: tuple[int, int] = (0, 0)  # bytes within the file's data


class CheckedFile(NamedTuple):
    path: str
    expected_bytes: int | None  # 8 + header + data, as the header promises
    actual_bytes: int | None  # of the real file
    dtypes: Mapping[str, int]  # dtype -> number of tensors
    metadata: Mapping[str, str]  # the header's __metadata__
    data_start: int | None = None  # byte at which the data begins
    local_path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    tensors: Mapping[str, Tensor]  # by stored name
    files: tuple[CheckedFile, ...]
    bytes: int  # of all tensors as stored
    index_total_size: int | None = None  # what the index claims
    complaints: tuple[str, ...] = ()  # index against headers, in words


def names_more_modules(tensors: Iterable[str], most: int) -> bool:
    """Whether the names of tensors lie in more than so many modules, the root and what merely holds others included."""
    modules = {""}
    for name in tensors:
        module = name.rpartition(".")[0]
        while module not in modules:
            modules.add(module)
            module = module.rpartition(".")[0]
        if len(modules) > most:
            return True
    return False
