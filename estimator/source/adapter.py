"""A published adapter: adapter_config.json and the header of adapter_model.safetensors, from a folder or the Hub."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Unpack

from estimator.errors import LoraSizeError, NotFoundError
from estimator.source.config import LFS_POINTER, MAX_CONFIG_BYTES, parse_object
from estimator.source.find import at_revision
from estimator.source.folder import read_stored_file
from estimator.source.found import Found, StoredFile
from estimator.source.opening import read_at_most
from estimator.source.place import is_path

if TYPE_CHECKING:
    from estimator.source.visit import How

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
_POINTER = re.compile(LFS_POINTER + rb".*?^size (\d{1,19})$", re.DOTALL | re.MULTILINE)
_POINTER_BYTES = 1_024


def find_adapter(
    name: str,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    token: str | None = None,
    offline: bool = False,
    timeout: float = 60.0,
) -> Found:
    """`config` is adapter_config.json; `files` the safetensors file where its header can be read; `other_files` the
    size of a pickled one, or of one that is a Git LFS pointer here; of the Hub's, neither is known.

    Raises NotFoundError, GatedError, NetworkError, OfflineError, MalformedHeaderError, MalformedConfigError.
    """
    path = os.path.expanduser(name)
    path = os.path.join(path, subfolder) if subfolder else path
    if os.path.isfile(path) and os.path.basename(path) in (CONFIG, WEIGHTS, PICKLED):
        path = os.path.dirname(path) or "."
    if os.path.isdir(path):
        return _in_folder(path)
    if os.path.lexists(path):
        what = f"{path} is neither a folder nor one of {CONFIG}, {WEIGHTS} and {PICKLED}."
        raise NotFoundError(what, where="--adapter", way_out="name the adapter's own folder")
    if is_path(name):
        way_out = "name a folder with adapter_config.json in it, or an adapter's id on the Hub"
        raise NotFoundError(f"there is no folder {path}.", where="--adapter", way_out=way_out)
    id_, revision = at_revision(name, revision, "--adapter")
    return _on_hub(id_, revision=revision, subfolder=subfolder, token=token, offline=offline, timeout=timeout)


def _in_folder(folder: str) -> Found:
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


def _on_hub(id_: str, **how: Unpack[How]) -> Found:
    from estimator.source.hub_adapter import find_adapter_on_hub

    try:
        return find_adapter_on_hub(id_, **how)
    except LoraSizeError as error:
        if error.where != "--model":
            raise
        raise type(error)(error.what, where="--adapter", way_out=error.way_out) from error  # no base is asked for yet
