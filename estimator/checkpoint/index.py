"""Headers of all files, and the index beside them, into one Checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from operator import attrgetter
from typing import Any

from estimator.checkpoint.checkpoint import CheckedFile, Checkpoint, Tensor
from estimator.checkpoint.header import parse_header
from estimator.dtypes import BITS
from estimator.errors import MalformedHeaderError
from estimator.source.found import StoredFile
from estimator.source.framing import LENGTH_BYTES

_NAME, _DTYPE = attrgetter("name"), attrgetter("dtype")


def to_checkpoint(files: Iterable[StoredFile], index: Mapping[str, Any] | None = None) -> Checkpoint:
    """All tensors of all files.

    Raises MalformedHeaderError for a header that safetensors would refuse, and where two files hold the same name.
    """
    tensors: dict[str, Tensor] = {}
    checked, stored_bytes = [], 0
    for stored in files:
        header = parse_header(stored.header, file=stored.path, columns=stored.columns)
        mine = dict(zip(map(_NAME, header.tensors), header.tensors, strict=True))
        if not tensors.keys().isdisjoint(mine):
            raise _in_two_files(tensors, mine)
        tensors |= mine
        checked.append(_checked(stored, header.tensors, header.data_bytes, header.metadata))
        stored_bytes += header.data_bytes
    complaints, total_size = _against_index(tensors, stored_bytes, index)
    return Checkpoint(
        tensors=tensors, files=tuple(checked), bytes=stored_bytes, index_total_size=total_size, complaints=complaints
    )


def _in_two_files(tensors: Mapping[str, Tensor], mine: Mapping[str, Tensor]) -> MalformedHeaderError:
    name = next(name for name in mine if name in tensors)
    what = f"tensor {name[:200]!r} is in {tensors[name].file} and in {mine[name].file}."
    way_out = "remove the file that does not belong"
    return MalformedHeaderError(what, where="the shards of this model", way_out=way_out)


def declared_checkpoint(shapes: Mapping[str, tuple[int, ...]], dtype: str) -> Checkpoint:
    """Tensors that are known by name and shape alone, of one dtype, in no file."""
    tensors = {name: Tensor(name, dtype, shape, "") for name, shape in shapes.items()}
    stored_bytes = sum(prod(shape) for shape in shapes.values()) * BITS[dtype] // 8
    return Checkpoint(tensors=tensors, files=(), bytes=stored_bytes)


def _checked(
    stored: StoredFile, tensors: Iterable[Tensor], data_bytes: int, metadata: Mapping[str, str]
) -> CheckedFile:
    data_start = None if stored.header_length is None else LENGTH_BYTES + stored.header_length
    return CheckedFile(
        path=stored.path,
        expected_bytes=None if data_start is None else data_start + data_bytes,
        actual_bytes=stored.actual_bytes,
        dtypes=dict(sorted(Counter(map(_DTYPE, tensors)).items())),
        metadata=metadata,
        data_start=data_start,
        local_path=stored.local_path,
    )


def _against_index(
    tensors: Mapping[str, Tensor], stored_bytes: int, index: Mapping[str, Any] | None
) -> tuple[tuple[str, ...], int | None]:
    if index is None:
        return (), None
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    total = int(total) if isinstance(total, (int, float)) and 0 <= total < 2**63 else None
    weight_map = index.get("weight_map")  # which the Hub's metadata endpoint leaves out
    complaints = _against_weight_map(tensors, weight_map) if isinstance(weight_map, Mapping) else []
    if total is not None and total != stored_bytes:
        complaints.append(f"the index claims {total:,} bytes of tensors; the headers declare {stored_bytes:,}")
    return tuple(complaints), total


def _against_weight_map(tensors: Mapping[str, Tensor], weight_map: Mapping[str, Any]) -> list[str]:
    complaints = []
    if missing := [name for name in weight_map if name not in tensors]:
        complaints.append(f"the index names {missing[0][:200]!r}, which no shard holds ({len(missing)} such)")
    if extra := [name for name in tensors if name not in weight_map]:
        complaints.append(
            f"{extra[0][:200]!r} is in {tensors[extra[0]].file}, but not in the index ({len(extra)} such)"
        )
    moved = [
        name for name, file in weight_map.items() if name in tensors and tensors[name].file.rpartition("/")[2] != file
    ]
    if moved:
        complaints.append(
            f"the index says {moved[0][:200]!r} is in {str(weight_map[moved[0]])[:80]!r}, "
            f"it is in {tensors[moved[0]].file}"
        )
    return complaints
