"""Files that are read, and nothing else: a pipe or a device in their place keeps one waiting, or never ends."""

from __future__ import annotations

import errno
import os
from typing import BinaryIO


def open_file(path: str) -> BinaryIO:
    """A file to read. Raises OSError for what can't be opened or is no file."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(errno.EINVAL, "it is no file", path)
    return open(path, "rb")


def read_at_most(path: str, limit: int) -> bytes:
    """A file's bytes, and of one that is larger the first `limit` and one more. Raises what `open_file` raises."""
    with open_file(path) as file:
        return file.read(limit + 1)
