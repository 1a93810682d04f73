"""What every source answers: config.json and the headers of the weight files, as found, nothing judged yet."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from estimator.notes import Note
from estimator.source.stack import Compact


class StoredFile(NamedTuple):
    """One safetensors file: its header and its real size."""

    path: str  # relative to the folder or repository, "/" between parts
    header: bytes | Compact | Mapping[str, Any]  # the JSON text, or what the source has made of it
    header_length: int | None  # bytes of the JSON text with its padding; None where the source does not tell
    actual_bytes: int | None  # of the real file; None where the source does not tell
    local_path: str | None = None  # where the bytes themselves can be read, for comparing ties


class Found(NamedTuple):
    """A model as its source has it."""

    id: str  # the resolved Hub id or the local path
    revision: str | None  # the commit, where known
    source: str  # "hub" | "cache" | "local" | "snapshot"
    config: Mapping[str, Any] | None  # config.json; None where there is none
    files: tuple[StoredFile, ...] = ()  # () where shapes have to come from the config
    # model.safetensors.index.json
    index: Mapping[str, Any] | None = None  # type: ignore[assignment]  # nobody asks a tuple's own index() of it
    other_files: Mapping[str, int] = {}  # weights in other formats: path -> bytes
    untied: tuple[str, ...] = ()  # parameters that the class ties and the files hold with values of their own
    notes: tuple[Note, ...] = ()
