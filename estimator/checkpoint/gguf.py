"""A GGUF file's tensors, read by the `gguf` library where it is installed (`pip install gguf`).

GGUF keeps a quantised tensor as blocks: elements / block size x bytes a block, each tensor padded to the alignment
(gguf 0.19.0, gguf/gguf_reader.py). Dimensions come in the reverse of torch's order.
"""

from typing import NamedTuple

from estimator.errors import MalformedHeaderError, UnsupportedError


class GgufTensor(NamedTuple):
    name: str
    type: str  # "Q4_0", "F16"
    shape: tuple[int, ...]  # torch's order
    bytes: int


def read_gguf(path: str) -> tuple[GgufTensor, ...]:
    """The tensors of a local file; its weights are not read.

    Raises UnsupportedError without the library, MalformedHeaderError where it can't read the file.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise UnsupportedError(
            "reading a GGUF header needs the gguf library.", where=path, way_out="pip install gguf"
        ) from error
    try:
        reader = GGUFReader(path)
        return tuple(
            GgufTensor(t.name, t.tensor_type.name, tuple(int(size) for size in reversed(t.shape)), int(t.n_bytes))
            for t in reader.tensors
        )
    except (ValueError, IndexError, OSError, KeyError, UnicodeError) as error:
        what = f"this is no GGUF file that can be read: {type(error).__name__}."
        raise MalformedHeaderError(what, where=path, way_out="fetch this file again") from error
