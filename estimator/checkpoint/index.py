"""Headers of all files, and the index beside them, into one Checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from estimator.checkpoint.checkpoint import CheckedFile, Checkpoint, Tensor, Tensors, names_more_modules
from estimator.checkpoint.header import Header, parse_header
from estimator.errors import MalformedHeaderError
from estimator.source.found import StoredFile
from estimator.source.framing import LENGTH_BYTES
from estimator.source.stack import Stack, same_name

MAX_TENSORS = 300_000  # of one model; the largest published ones have some 210,000
MAX_NAMES = 20_000_000  # characters of all names together; the largest have some 14 million
MAX_MODULES = 250_000  # of one model, what merely holds others included; the largest have some 95,000
_LONGEST_NAME, _MOST_PARTS = 1_000, 64  # characters; the longest of a published model has some 150 in 14


def to_checkpoint(files: Iterable[StoredFile], index: Mapping[str, Any] | None = None) -> Checkpoint:
    """All tensors of all files.

    Raises MalformedHeaderError for a header that safetensors would refuse, where two files hold the same name, and for
    more tensors, modules or names than a model has.
    """
    stacks: list[Stack] = []
    checked, stored_bytes, count = [], 0, 0
    for stored in files:
        header = parse_header(stored.header, file=stored.path)
        if not header.plain_names:
            _check_names(header.tensors, stored.path)
        stacks += header.tensors.stacks
        count += len(header.tensors)
        if count > MAX_TENSORS:
            what = f"the headers up to that of {stored.path} declare {count:,} tensors."
            raise _contradiction(what, f"this is no model: {MAX_TENSORS:,} tensors are read at most")
        checked.append(_checked(stored, header))
        stored_bytes += header.data_bytes
    if len(checked) > 1 and (twice := same_name(stacks)):
        raise _in_two_files(*twice)
    tensors = Tensors(stacks)
    if (letters := sum(map(_letters, stacks))) > MAX_NAMES:
        raise _contradiction(f"the tensors' names have {letters:,} characters.", "this is no model: shorten them")
    if _modules_at_most(stacks) > MAX_MODULES and names_more_modules(tensors, MAX_MODULES):
        way_out = f"this is no model: {MAX_MODULES:,} modules are read at most"
        raise _contradiction(f"the headers name more than {MAX_MODULES:,} modules.", way_out)
    complaints, total_size = _against_index(tensors, stored_bytes, index)
    return Checkpoint(
        tensors=tensors,
        files=tuple(checked),
        bytes=stored_bytes,
        index_total_size=total_size,
        index_total_parameters=_total_parameters(index),
        complaints=complaints,
    )


def _letters(stack: Stack) -> int:
    return len(stack.indices) * len(stack.before + stack.after) + sum(map(len, stack.indices))


def _modules_at_most(stacks: Iterable[Stack]) -> int:
    """In how many modules the tensors lie, what merely holds others included; no fewer than there are."""
    holders: dict[tuple[str, str], set[str]] = {}
    for stack in stacks:
        holders.setdefault((stack.before, stack.after.rpartition(".")[0]), set()).update(stack.indices)
    inside = sum(len(indices) * (1 + inner.count(".")) for (_, inner), indices in holders.items())
    return 1 + inside + sum(before.count(".") for before in {before for before, _ in holders})


def _check_names(names: Iterable[str], file: str) -> None:
    """Raises MalformedHeaderError for what safetensors reads and no module is called."""
    for name in names:
        parts = name.count(".") + 1
        if len(name) > _LONGEST_NAME or parts > _MOST_PARTS:
            odd = f"has {len(name):,} characters in {parts:,} parts"
        elif not name.isascii() and any(letter.isdigit() and not letter.isascii() for letter in name):
            odd = "counts in digits of another script"
        else:
            continue
        what = f"the tensor {name[:100]!r} {odd}, as no module's is called."
        raise MalformedHeaderError(what, where=f"header of {file}", way_out="rename this tensor")


def _in_two_files(name: str, stacks: Sequence[Stack]) -> MalformedHeaderError:
    what = f"tensor {name[:200]!r} is in {stacks[0].file} and in {stacks[1].file}."
    return _contradiction(what, "remove the file that does not belong")


def _contradiction(what: str, way_out: str) -> MalformedHeaderError:
    return MalformedHeaderError(what, where="the shards of this model", way_out=way_out)


def _checked(stored: StoredFile, header: Header) -> CheckedFile:
    data_start = None if stored.header_length is None else LENGTH_BYTES + stored.header_length
    return CheckedFile(
        path=stored.path,
        expected_bytes=None if data_start is None else data_start + header.data_bytes,
        actual_bytes=stored.actual_bytes,
        dtypes=_dtypes(header.tensors.stacks),
        metadata=header.metadata,
        data_start=data_start,
        local_path=stored.local_path,
    )


def _dtypes(stacks: Iterable[Stack]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for stack in stacks:
        counts[stack.kind.dtype] += len(stack.indices)
    return dict(sorted(counts.items()))


def _against_index(
    tensors: Mapping[str, Tensor], stored_bytes: int, index: Mapping[str, Any] | None
) -> tuple[tuple[str, ...], int | None]:
    """Complaints, and the size that the index claims. Its total is often that of another dtype: no reason to refuse."""
    if index is None:
        return (), None
    metadata = index.get("metadata")
    said: Any = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    total = int(said) if type(said) in (int, float) and 0 <= said < 2**63 else None
    weight_map = index.get("weight_map")  # which the Hub's metadata endpoint leaves out
    if isinstance(weight_map, Mapping):
        _check_weight_map(tensors, weight_map)
    if said is not None and (total is None or total != said):
        return (f"the index's total_size is {repr(said)[:60]}, no number of bytes",), None
    if total is None or total == stored_bytes:
        return (), total
    return (f"the index claims {total:,} bytes of tensors; the headers declare {stored_bytes:,}",), total


def _total_parameters(index: Mapping[str, Any] | None) -> int | None:
    """`num_parameters()` of the model that was saved (transformers 5.23.0, save_pretrained)."""
    metadata = (index or {}).get("metadata")
    said: Any = metadata.get("total_parameters") if isinstance(metadata, Mapping) else None
    return said if type(said) is int and said > 0 else None


def _check_weight_map(tensors: Mapping[str, Tensor], weight_map: Mapping[str, Any]) -> None:
    """Raises MalformedHeaderError where the index and the headers put a tensor in different files."""
    again = "fetch or write the index and the shards again"
    files = {name: tensor.file for name, tensor in tensors.items()}
    if missing := [name for name in weight_map if name not in files]:
        shard, more = str(weight_map[missing[0]])[:80], len(missing)
        what = f"the index puts {missing[0][:200]!r} into {shard!r}, whose header does not have it ({more:,} such)."
        raise _contradiction(what, again)
    if extra := [name for name in files if name not in weight_map]:
        file, more = files[extra[0]], len(extra)
        what = f"the header of {file} has {extra[0][:200]!r}, which the index does not name ({more:,} such)."
        raise _contradiction(what, again)
    for name, shard in weight_map.items():
        file = files[name]
        if file != shard and not file.endswith(f"/{shard}"):
            what = f"the index puts {name[:200]!r} into {str(shard)[:80]!r}; the header that has it is that of {file}."
            raise _contradiction(what, again)
