"""Headers read a kind of tensors at a time say what they say to the JSON parser, and only ordinary ones are so read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimator.checkpoint.header import parse_header
from estimator.errors import MalformedHeaderError
from estimator.source.compact import compact, of_json, to_json

TWO = (
    b'{"__metadata__":{"format":"pt"},'
    b'"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},'
    b'"b.0":{"dtype":"BF16","shape":[],"data_offsets":[24,26]}}'
)


def by_parser(header: bytes) -> object:
    """What the parser alone makes of a header."""
    try:
        return parse_header(json.loads(header), file="a file")[:3]
    except (MalformedHeaderError, ValueError) as error:
        return type(error) if isinstance(error, ValueError) else error.what


def test_an_ordinary_header() -> None:
    read = compact(TWO + b"   ")
    assert read is not None
    assert [stack.names() for stack in read.stacks] == [["a"], ["b.0"]]
    assert [list(stack.begins) for stack in read.stacks] == [[0], [24]]
    assert (read.data_bytes, read.metadata) == (26, {"format": "pt"})
    assert parse_header(TWO, file="a file")[:3] == by_parser(TWO)


def expert(name: str, begin: int, size: int = 24) -> str:
    """An entry of a header; its shape is that of `size` bytes."""
    return f'"{name}":{{"dtype":"F32","shape":[{size // 4}],"data_offsets":[{begin},{begin + size}]}}'


@pytest.mark.parametrize(
    ("names", "stacks"),
    [
        pytest.param(("e.0.up.w", "e.1.up.w"), [["e.0.up.w", "e.1.up.w"]], id="experts"),
        pytest.param(("l.1.e.0.w", "l.2.e.0.w"), [["l.1.e.0.w"], ["l.2.e.0.w"]], id="the last index alone"),
        pytest.param(("e.0.w1.w", "e.0.w2.w"), [["e.0.w1.w"], ["e.0.w2.w"]], id="a digit that is part of a word"),
        pytest.param(("e.0.a", "b", "e.1.a"), [["e.0.a", "e.1.a"], ["b"]], id="one in between"),
        pytest.param(("e.01.a", "e.1.a"), [["e.01.a", "e.1.a"]], id="a leading zero is another name"),
        pytest.param(("conv.0", "conv.1"), [["conv.0"], ["conv.1"]], id="an index at the end"),
    ],
)
def test_tensors_alike_are_one_stack(names: tuple[str, ...], stacks: list[list[str]]) -> None:
    header = "{" + ",".join(expert(name, 24 * at) for at, name in enumerate(names)) + "}"
    read = compact(header.encode())
    assert read is not None
    assert [stack.names() for stack in read.stacks] == stacks
    tensors = parse_header(read, file="a file").tensors
    assert [(tensor.name, tensor.offsets[0]) for tensor in tensors.values()] == [
        (name, 24 * at) for at, name in enumerate(names)
    ]
    kept = of_json(to_json(read))
    assert parse_header(kept, file="a file") == parse_header(read, file="a file")


def test_tensors_of_other_shapes_are_another_stack() -> None:
    read = compact(f"{{{expert('e.0.w', 0)},{expert('e.1.w', 24, 8)},{expert('e.2.w', 32)}}}".encode())
    assert read is not None
    assert [stack.names() for stack in read.stacks] == [["e.0.w", "e.2.w"], ["e.1.w"]]
    assert parse_header(of_json(to_json(read)), file="a file")[:3] == parse_header(read, file="a file")[:3]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b"}}", b"}", id="no end"),
        pytest.param(b"},", b"}", id="no comma"),
        pytest.param(b'},"b', b'}}"b', id="a brace for a comma"),
        pytest.param(b'},"b', b'},,"b', id="two commas"),
        pytest.param(b'},"b', b'},"c":7,"b', id="something else between"),
        pytest.param(b"}}", b"}}{", id="something behind"),
        pytest.param(b"}}", b"},}", id="a comma behind the last"),
        pytest.param(b"[0,24]", b"[0,024]", id="a leading zero"),
        pytest.param(b"[0,24]", b"[0,24.0]", id="a float"),
        pytest.param(b"[0,24]", b"[0,2_4]", id="an underscore"),
        pytest.param(b"[0,24]", "[0,٢٤]".encode(), id="digits of another script"),
        pytest.param(b"[0,24]", b"[-0,24]", id="minus nought"),
        pytest.param(b"[0,24]", b"[0,24,24]", id="three offsets"),
        pytest.param(b"[24,26]", b"[25,27]", id="a hole"),
        pytest.param(b"[24,26]", b"[22,24]", id="an overlap"),
        pytest.param(b"[2,3]", b"[2,03]", id="a leading zero in a shape"),
        pytest.param(b"[2,3]", b"[2,3,]", id="a comma in a shape"),
        pytest.param(b"[2,3]", b"[[2,3]]", id="a nested shape"),
        pytest.param(b"[2,3]", b"[2, 3]", id="a space"),
        pytest.param(b'"a"', b'"\\u0061"', id="an escape"),
        pytest.param(b'"a"', b'"a\x01"', id="a control character"),
        pytest.param(b'"a"', b'"\xff"', id="no UTF-8"),
        pytest.param(b'"a"', b'"__metadata__"', id="metadata that is a tensor"),
        pytest.param(b'"pt"', b'{"x":1}', id="nested metadata"),
        pytest.param(b'"pt"', b"7", id="metadata that is no text"),
        pytest.param(b'"pt"', b"pt", id="metadata that is no JSON"),
        pytest.param(b'{"__metadata__":{"format":"pt"},', b'[{"__metadata__":{"format":"pt"},', id="a list"),
        pytest.param(TWO, b'{"__metadata__":{"format":"pt"}}', id="no tensor"),
    ],
)
def test_what_is_written_otherwise_is_left_to_the_parser(old: bytes, new: bytes) -> None:
    assert old in TWO
    assert compact(TWO.replace(old, new, 1) if new.find(b"}}") < 0 else new.join(TWO.rsplit(old, 1))) is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        pytest.param(b"[24,26]", b"[24,28]", "needs", id="more bytes than the shape needs"),
        pytest.param(b"BF16", b"BF17", "unknown dtype", id="an unknown dtype"),
        pytest.param(b"[2,3]", b"[2,18446744073709551616]", "whole numbers", id="a dimension over 64 bits"),
        pytest.param(b"[2,3]", b"[4294967296,4294967296]", "larger", id="larger than any file in two dimensions"),
        pytest.param(b'"b.0"', b'"a"', "twice", id="a name given twice"),
        pytest.param(b"F32", b"F4", "needs", id="half the bytes"),
    ],
)
def test_what_is_written_well_and_wrong_is_refused_all_the_same(old: bytes, new: bytes, words: str) -> None:
    with pytest.raises(MalformedHeaderError, match=words):
        parse_header(TWO.replace(old, new, 1), file="a file")


DTYPES = {"F32": 4, "BF16": 2, "U8": 1}
TENSOR = st.tuples(st.text(max_size=8), st.sampled_from(list(DTYPES)), st.lists(st.integers(0, 5), max_size=3))


@given(st.lists(TENSOR, min_size=1, max_size=6, unique_by=lambda tensor: tensor[0]), st.booleans())
def test_both_ways_agree(tensors: list[tuple[str, str, list[int]]], with_escapes: bool) -> None:
    at, entries = 0, {}
    for name, dtype, shape in tensors:
        size = DTYPES[dtype]
        for dimension in shape:
            size *= dimension
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=with_escapes)
    header = text.encode(errors="replace")
    assert parse_header(header, file="a file")[:3] == by_parser(header)
