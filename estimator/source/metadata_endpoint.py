"""The Hub's answer that holds every header of a sharded model at once.

`/api/models/{id}/safetensors-metadata/{index}` answers, of the default revision,

    {"headers": {shard: header, ...}, "index": {"metadata": {...}}}

without the index's weight_map, which repeats the names in the headers (huggingface_hub 2.4.0, hf_api.py,
`get_sharded_safetensors_metadata`). It does not say which commit it read, nor the files' sizes: both are checked
against the list of files of a known commit, where 8 + header + data must be the size of each file, to the byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from estimator.errors import MalformedHeaderError
from estimator.source.endpoint_answer import Answered, Shard
from estimator.source.found import StoredFile
from estimator.source.framing import LENGTH_BYTES, MAX_HEADER_BYTES
from estimator.source.place import Place
from estimator.source.plain import plain
from estimator.source.shard_names import check_shard_names
from estimator.source.siblings import unnamed_shard

MAX_BYTES = 64_000_000
_ALIGNMENT = 8  # safetensors pads the header with spaces, so that the data begins at a multiple of 8 bytes


class Described(NamedTuple):
    """A model's files as the metadata endpoint describes them."""

    files: tuple[StoredFile, ...]  # paths as the repository has them
    index: Mapping[str, Any] | None  # type: ignore[assignment]  # nobody asks a tuple's own index() of it
    unsure: Mapping[str, bytes | Mapping[str, Any]]  # headers that the files' sizes do not prove, by path


def described(answered: Answered, place: Place, sizes: Mapping[str, int]) -> Described:
    """What the endpoint's answer says of the model at `place`.

    Raises MalformedHeaderError where it contradicts itself or the files' `sizes`.
    """
    if answered.twice:
        raise _contradiction(f"in the metadata endpoint's answer, {answered.twice}.", place)
    check_shard_names([shard.name for shard in answered.shards], place)
    files = [_stored(place, shard, sizes) for shard in answered.shards]
    _check_complete(files, place, sizes)
    told = zip(files, answered.shards, strict=True)
    unsure = {file.path: shard.header for file, shard in told if file.header_length is None}
    return Described(tuple(files), answered.index, unsure)


def _stored(place: Place, shard: Shard, sizes: Mapping[str, int]) -> StoredFile:
    path, written, header = place.folder + shard.name, shard.written_bytes, shard.compact or shard.header
    if path not in sizes:
        what = f"the metadata endpoint describes {plain(shard.name, 100)!r}; the list of files has no such file."
        raise _contradiction(what, place)
    gap = sizes[path] - LENGTH_BYTES - shard.data_bytes
    if not 2 <= gap <= MAX_HEADER_BYTES:
        what = (
            f"the metadata endpoint describes {shard.data_bytes:,} bytes of tensors in {plain(shard.name, 100)!r}; "
            f"the list of files gives it {sizes[path]:,} bytes in all."
        )
        raise _contradiction(what, place)
    proven = written is not None and gap == -(-written // _ALIGNMENT) * _ALIGNMENT
    return StoredFile(path, header, gap if proven else None, sizes[path])


def _check_complete(files: list[StoredFile], place: Place, sizes: Mapping[str, int]) -> None:
    """A shard that lies beside the described ones, numbered as one of them, must be described too."""
    path = unnamed_shard({file.path for file in files}, sizes)
    if path is not None:
        what = f"the list of files has the shard {plain(path, 100)!r}, which the metadata endpoint does not describe."
        raise _contradiction(what, place)


def _contradiction(what: str, place: Place) -> MalformedHeaderError:
    way_out = (
        "try again, in case it was just changed; or name a commit with --revision, which reads the files themselves"
    )
    return MalformedHeaderError(what, where=place.where(), way_out=way_out)
