"""The index of a sharded model against the headers of its shards."""

from __future__ import annotations

import json

import pytest

from estimator.checkpoint.index import to_checkpoint
from estimator.errors import MalformedHeaderError
from estimator.source.found import StoredFile


def shard(path: str, *names: str) -> StoredFile:
    """A file with one F32 of two elements for each name."""
    entries = {
        name: {"dtype": "F32", "shape": [2], "data_offsets": [8 * at, 8 * at + 8]} for at, name in enumerate(names)
    }
    header = json.dumps(entries, separators=(",", ":")).encode()
    return StoredFile(path, header, len(header), 8 + len(header) + 8 * len(names))


ONE, OTHER = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
FILES = (shard(ONE, "a", "b"), shard(OTHER, "c"))
MAP = {"a": ONE, "b": ONE, "c": OTHER}


@pytest.mark.parametrize(
    ("files", "index"),
    [
        pytest.param(FILES, None, id="no index"),
        pytest.param(FILES, {"weight_map": MAP, "metadata": {"total_size": 24}}, id="all agree"),
        pytest.param(FILES, {"metadata": {"total_size": 24}}, id="no weight_map, as the metadata endpoint answers"),
        pytest.param(FILES, {"weight_map": MAP, "metadata": {"total_size": 24.0}}, id="the size as a float"),
        pytest.param(FILES, {"weight_map": MAP, "metadata": None}, id="no metadata"),
        pytest.param((FILES[0]._replace(path=f"text/{ONE}"), FILES[1]), {"weight_map": MAP}, id="in a subfolder"),
    ],
)
def test_files_and_index_that_agree_raise_no_complaint(
    files: tuple[StoredFile, ...], index: dict[str, object] | None
) -> None:
    checkpoint = to_checkpoint(files, index)
    assert list(checkpoint.tensors) == ["a", "b", "c"]
    assert checkpoint.bytes == 24
    assert checkpoint.complaints == ()
    assert all(file.expected_bytes == file.actual_bytes for file in checkpoint.files)


def test_another_total_is_a_complaint() -> None:
    checkpoint = to_checkpoint(FILES, {"weight_map": MAP, "metadata": {"total_size": 48}})
    assert checkpoint.complaints == ("the index claims 48 bytes of tensors; the headers declare 24",)


@pytest.mark.parametrize(("said", "read"), [(6, 6), (0, None), ("6", None), (True, None), (None, None)])
def test_the_parameters_that_the_index_claims_are_read(said: object, read: int | None) -> None:
    """ZeRO-3 leaves 0 there."""
    index = {"weight_map": MAP, "metadata": {"total_size": 24, "total_parameters": said}}
    assert to_checkpoint(FILES, index).index_total_parameters == read


@pytest.mark.parametrize("said", ["24", -24, 24.5, True, [24], 2**63, float("nan")])
def test_a_total_that_is_no_number_of_bytes_is_a_complaint(said: object) -> None:
    checkpoint = to_checkpoint(FILES, {"weight_map": MAP, "metadata": {"total_size": said}})
    assert checkpoint.complaints == (f"the index's total_size is {said!r}, no number of bytes",)
    assert checkpoint.index_total_size is None


@pytest.mark.parametrize(
    ("files", "weight_map", "words"),
    [
        pytest.param(FILES, {**MAP, "d": OTHER}, ("'d'", OTHER, "does not have it"), id="named, in no header"),
        pytest.param(FILES, {"a": ONE, "c": OTHER}, ("'b'", ONE, "does not name"), id="in a header, not named"),
        pytest.param(FILES, {**MAP, "b": OTHER}, ("'b'", ONE, OTHER), id="named for another shard"),
        pytest.param((*FILES, shard("x.safetensors", "c")), MAP, ("'c'", OTHER, "x.safetensors"), id="in two headers"),
        pytest.param(FILES, {}, ("'a'", "does not name"), id="an empty index"),
    ],
)
def test_a_contradiction_names_both_sides(
    files: tuple[StoredFile, ...], weight_map: dict[str, str], words: tuple[str, ...]
) -> None:
    with pytest.raises(MalformedHeaderError) as refused:
        to_checkpoint(files, {"weight_map": weight_map})
    assert all(word in refused.value.what for word in words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("a" * 1_001, "characters", id="a thousand letters"),
        pytest.param("0." * 64 + "weight", "parts", id="65 parts"),
        pytest.param("model.layers.²." + "weight", "another script", id="a superscript"),
        pytest.param("model.layers.٣.weight", "another script", id="an Arabic three"),
    ],
)
def test_a_name_that_no_module_has(name: str, words: str) -> None:
    with pytest.raises(MalformedHeaderError, match=words):
        to_checkpoint([shard(ONE, name)])


@pytest.mark.parametrize("name", ["base_model.model." * 20 + "weight", "层.0.weight", "", ".", "a..b"])
def test_an_odd_name_that_a_module_may_have(name: str) -> None:
    assert list(to_checkpoint([shard(ONE, name)]).tensors) == [name]
