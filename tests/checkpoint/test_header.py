"""Each malformed header against what the safetensors library itself says of the same bytes."""

from __future__ import annotations

import ctypes
import struct
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, TensorSpec, deserialize, serialize

from estimator.checkpoint.header import parse_header
from estimator.dtypes import BITS
from estimator.errors import MalformedHeaderError
from estimator.source.framing import LENGTH_BYTES, MAX_HEADER_BYTES, header_length

GOOD = '"dtype":"F32","shape":[1],"data_offsets":[0,4]'


def framed(header: str | bytes, data_bytes: int = 4, length: int | None = None) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data_bytes)


def tensor(**fields: str) -> str:
    described = {"dtype": '"F32"', "shape": "[1]", "data_offsets": "[0,4]", **fields}
    return '{"a":{' + ",".join(f'"{key}":{value}' for key, value in described.items()) + "}}"


def ours(file: bytes) -> dict[str, tuple[str, tuple[int, ...]]]:
    length = header_length(file[:LENGTH_BYTES], len(file), where="a file")
    header = parse_header(file[LENGTH_BYTES : LENGTH_BYTES + length], file="a file")
    if LENGTH_BYTES + length + header.data_bytes != len(file):
        raise MalformedHeaderError("size", where="a file", way_out="none")
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in header.tensors.values()}


def theirs(file: bytes) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (described["dtype"], tuple(described["shape"])) for name, described in deserialize(file)}


ODD_FILES = [
    pytest.param(b"", id="empty file"),
    pytest.param(b"\x01\x00\x00", id="shorter than the length itself"),
    pytest.param(framed("", 0), id="header of no bytes"),
    pytest.param(framed("{}", 0), id="no tensors"),
    pytest.param(framed("{}", 1), id="data behind no tensors"),
    pytest.param(framed("[]", 0), id="a list"),
    pytest.param(framed("1", 0), id="a number"),
    pytest.param(framed("{", 0), id="unfinished JSON"),
    pytest.param(framed("{}", 0, length=3), id="length over the file's end"),
    pytest.param(framed("{}", 0, length=2**63), id="length of half the address space"),
    pytest.param(framed(" " + tensor()), id="space before the object"),
    pytest.param(framed(tensor() + "   "), id="padding behind the object"),
    pytest.param(framed(tensor() + "\n"), id="line end behind the object"),
    pytest.param(framed(tensor() + "x"), id="letter behind the object"),
    pytest.param(framed(tensor() + "\x0c"), id="form feed behind the object"),
    pytest.param(framed(b"\xef\xbb\xbf" + tensor().encode()), id="byte order mark"),
    pytest.param(framed(b'{"\xff":{' + GOOD.encode() + b"}}"), id="not UTF-8"),
    pytest.param(framed('{"\\ud800":{%s}}' % GOOD), id="half a surrogate pair"),
    pytest.param(framed('{"\\ud83d\\ude00":{%s}}' % GOOD), id="a whole surrogate pair"),
    pytest.param(framed('{"a\x01":{%s}}' % GOOD), id="control character in a name"),
    pytest.param(framed('{"":{%s}}' % GOOD), id="empty name"),
    pytest.param(framed(tensor(shape="[1.0]")), id="shape with a point"),
    pytest.param(framed(tensor(shape="[1e0]")), id="shape with an exponent"),
    pytest.param(framed(tensor(shape="[-1]")), id="negative shape"),
    pytest.param(framed(tensor(shape="[true]")), id="boolean shape"),
    pytest.param(framed(tensor(shape="null")), id="no shape"),
    pytest.param(framed(tensor(shape='"1"')), id="shape as text"),
    pytest.param(framed(tensor(shape="[]")), id="scalar"),
    pytest.param(framed(tensor(shape="[0]", data_offsets="[0,0]"), 0), id="tensor of no elements"),
    pytest.param(
        framed(tensor(shape="[0,18446744073709551615]", data_offsets="[0,0]"), 0), id="zero times the largest"
    ),
    pytest.param(framed(tensor(shape="[0,18446744073709551616]", data_offsets="[0,0]"), 0), id="over 64 bits"),
    pytest.param(framed(tensor(shape="[18446744073709551615,2,0]", data_offsets="[0,0]"), 0), id="overflow, then zero"),
    pytest.param(framed(tensor(shape="[4294967296,4294967296]")), id="overflow"),
    pytest.param(framed(tensor(data_offsets="[4,0]")), id="offsets backwards"),
    pytest.param(framed(tensor(data_offsets="[4,8]"), 8), id="hole at the beginning"),
    pytest.param(framed(tensor(data_offsets="[0,8]"), 8), id="more bytes than the shape"),
    pytest.param(framed(tensor(data_offsets="[0,4,8]")), id="three offsets"),
    pytest.param(framed(tensor(data_offsets="[0]")), id="one offset"),
    pytest.param(framed(tensor(data_offsets="[0.0,4]")), id="offset with a point"),
    pytest.param(framed(tensor(data_offsets="[-0,4]")), id="minus zero"),
    pytest.param(framed(tensor(data_offsets='["0","4"]')), id="offsets as texts"),
    pytest.param(framed(tensor(dtype='"f32"')), id="small letters"),
    pytest.param(framed(tensor(dtype='"Q8"')), id="unknown dtype"),
    pytest.param(framed(tensor(dtype="4")), id="dtype as a number"),
    pytest.param(framed(tensor(dtype='{"F32":null}')), id="dtype as an object, which the library reads"),
    pytest.param(framed('{"a":["F32",[1],[0,4]]}'), id="tensor as a list, which the library reads"),
    pytest.param(framed('{"a":null}', 0), id="tensor is null"),
    pytest.param(framed('{"a":{"dtype":"F32","shape":[1]}}'), id="no offsets"),
    pytest.param(framed('{"a":{"dtype":"F32",%s}}' % GOOD), id="field given twice"),
    pytest.param(framed('{"a":{"more":[1,{"b":2}],%s}}' % GOOD), id="unknown field"),
    pytest.param(framed('{"a":{"more":1,"more":2,%s}}' % GOOD), id="unknown field given twice"),
    pytest.param(framed('{"a":{"more":NaN,%s}}' % GOOD), id="NaN"),
    pytest.param(framed('{"a":{"more":1e999,%s}}' % GOOD), id="infinite number"),
    pytest.param(framed('{"a":{"more":%s%s,%s}}' % ("[" * 120, "]" * 120, GOOD)), id="nested, within the limit"),
    pytest.param(framed('{"a":{"more":%s%s,%s}}' % ("[" * 126, "]" * 126, GOOD)), id="nested, at the limit"),
    pytest.param(framed('{"a":{"more":%s%s,%s}}' % ("[" * 5000, "]" * 5000, GOOD)), id="nested, far over the limit"),
    pytest.param(framed('{"__metadata__":null}', 0), id="metadata null"),
    pytest.param(framed('{"__metadata__":{"a":1}}', 0), id="metadata with a number"),
    pytest.param(framed('{"__metadata__":[]}', 0), id="metadata as a list"),
    pytest.param(framed('{"__metadata__":{},"__metadata__":{}}', 0), id="metadata given twice"),
    pytest.param(framed('{"__metadata__":{"a":"b","a":"c"}}', 0), id="metadata with a name given twice"),
    pytest.param(framed('{"__metadata__":{%s}}' % GOOD), id="metadata that is a tensor"),
    pytest.param(framed(tensor(), 3), id="data cut short"),
    pytest.param(framed(tensor(), 5), id="data too long"),
    pytest.param(framed('{"a":{%s},"b":{%s}}' % (GOOD, GOOD)), id="two tensors on the same bytes"),
    pytest.param(framed('{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}', 1), id="half a byte"),
]


@pytest.mark.parametrize("file", ODD_FILES)
def test_accepts_and_refuses_what_the_library_does(file: bytes) -> None:
    try:
        truth = theirs(file)
    except SafetensorError:
        with pytest.raises(MalformedHeaderError):
            ours(file)
    else:
        assert ours(file) == truth


@pytest.mark.parametrize("dtype", sorted(BITS))
def test_every_dtype_of_the_library(dtype: str) -> None:
    file = framed(tensor(dtype=f'"{dtype}"', shape="[8]", data_offsets=f"[0,{BITS[dtype]}]"), BITS[dtype])
    assert ours(file) == theirs(file) == {"a": (dtype, (8,))}


def test_a_name_given_twice_is_refused_although_the_library_lets_it_pass() -> None:
    file = framed('{"a":{%s},"a":{%s}}' % (GOOD, GOOD))
    assert theirs(file) == {"a": ("F32", (1,))}
    with pytest.raises(MalformedHeaderError, match="given twice"):
        ours(file)


def test_the_length_has_the_formats_limit() -> None:
    limit = struct.pack("<Q", MAX_HEADER_BYTES)
    assert header_length(limit, None, where="a file") == MAX_HEADER_BYTES
    with pytest.raises(MalformedHeaderError, match="100,000,000"):
        header_length(struct.pack("<Q", MAX_HEADER_BYTES + 1), None, where="a file")


def test_a_git_lfs_pointer_is_named_as_one() -> None:
    with pytest.raises(MalformedHeaderError, match="Git LFS"):
        header_length(b"version https://git-lfs.github.com/spec/v1\n"[:40], 130, where="a file")


DTYPES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1, "BOOL": 1}
TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 5), max_size=3)),
    max_size=6,
)


@given(TENSORS)
def test_reads_back_what_the_library_writes(tensors: dict[str, tuple[str, list[int]]]) -> None:
    zeros = ctypes.create_string_buffer(8 * 5**3)
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "U8": "uint8", "BOOL": "bool"}
    written = serialize(
        {
            name: TensorSpec(
                dtype=names[dtype], shape=shape, data_ptr=ctypes.addressof(zeros), data_len=prod(shape) * DTYPES[dtype]
            )
            for name, (dtype, shape) in tensors.items()
        }
    )
    assert ours(written) == {name: (dtype, tuple(shape)) for name, (dtype, shape) in tensors.items()}


@given(st.binary(max_size=40), st.integers(0, 150), st.integers(0, 8))
def test_damaged_bytes_end_as_the_library_ends(noise: bytes, at: int, cut: int) -> None:
    file = framed('{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"__metadata__":{"format":"pt"}}', 16)
    damaged = (file[:at] + noise + file[at + len(noise) :])[: len(file) - cut]
    try:
        truth = theirs(damaged)
    except SafetensorError:
        with pytest.raises(MalformedHeaderError):
            ours(damaged)
    else:
        assert ours(damaged) == truth
