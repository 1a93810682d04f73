"""The frame of a safetensors file.

    bytes 0..8        N, the header's length: unsigned, 64 bits, little-endian
    bytes 8..8+N      the header: a JSON object in UTF-8, padded with spaces
    bytes 8+N..       the data of all tensors, without holes

Limits as in safetensors 0.8.0, safetensors/src/tensor.rs.
"""

from __future__ import annotations

from estimator.errors import MalformedHeaderError

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000


def header_length(first_bytes: bytes, file_bytes: int | None, *, where: str) -> int:
    """The header's length in bytes, from a file's first 8 bytes and its size (None: not known).

    Raises MalformedHeaderError where the file is too short, or the length is over the format's limit or the file's end.
    """
    again = "fetch this file again; safetensors would refuse it too"
    if first_bytes[:LENGTH_BYTES] == b"version ":
        raise MalformedHeaderError(
            "this is a Git LFS pointer, not the file itself.",
            where=where,
            way_out="run `git lfs pull` to fetch the file",
        )
    if len(first_bytes) < LENGTH_BYTES:
        what = f"the file has {len(first_bytes)} bytes; the length of a safetensors header alone takes 8."
        raise MalformedHeaderError(what, where=where, way_out=again)
    length = int.from_bytes(first_bytes[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        what = f"the header claims {length:,} bytes; the format allows {MAX_HEADER_BYTES:,}."
        raise MalformedHeaderError(
            what, where=where, way_out="this is not a safetensors file, or it is damaged; " + again
        )
    if file_bytes is not None and LENGTH_BYTES + length > file_bytes:
        what = f"the header claims {length:,} bytes, but the file ends after {file_bytes:,}."
        raise MalformedHeaderError(what, where=where, way_out=again)
    return length
