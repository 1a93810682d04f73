"""Who answers for a published adapter: a folder or the Hub."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Unpack

from estimator.errors import LoraSizeError, NotFoundError
from estimator.source.adapter import CONFIG, PICKLED, WEIGHTS, adapter_in_folder
from estimator.source.find import at_revision
from estimator.source.found import Found
from estimator.source.place import is_path

if TYPE_CHECKING:
    from estimator.source.visit import How


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
        return adapter_in_folder(path)
    if os.path.lexists(path):
        what = f"{path} is neither a folder nor one of {CONFIG}, {WEIGHTS} and {PICKLED}."
        raise NotFoundError(what, where="--adapter", way_out="name the adapter's own folder")
    if is_path(name):
        way_out = "name a folder with adapter_config.json in it, or an adapter's id on the Hub"
        raise NotFoundError(f"there is no folder {path}.", where="--adapter", way_out=way_out)
    id_, revision = at_revision(name, revision, "--adapter")
    return _on_hub(id_, revision=revision, subfolder=subfolder, token=token, offline=offline, timeout=timeout)


def _on_hub(id_: str, **how: Unpack[How]) -> Found:
    from estimator.source.hub_adapter import find_adapter_on_hub

    try:
        return find_adapter_on_hub(id_, **how)
    except LoraSizeError as error:
        if error.where != "--model":
            raise
        raise type(error)(error.what, where="--adapter", way_out=error.way_out) from error  # no base is asked for yet
