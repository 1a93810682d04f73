"""Weights that are no safetensors: what their sizes tell, and what is said to be unknown."""

from __future__ import annotations

import pytest

from estimator.sizes.other_files import notes_on_other_files


@pytest.mark.parametrize(
    ("files", "code", "said"),
    [
        pytest.param({"pytorch_model.bin": 2_010_000}, "pickled_weights", "at 16 bits", id="two bytes a parameter"),
        pytest.param({"a.bin": 2_000_000, "b.bin": 2_020_000}, "pickled_weights", "at 32 bits", id="two files"),
        pytest.param({"pytorch_model.bin": 2_900_000}, "pickled_weights", "no one precision", id="neither"),
        pytest.param({"m.gguf": 562_500}, "gguf_weights", "4.5 bits", id="a GGUF by its size"),
    ],
)
def test_other_formats_are_told_by_their_sizes(files, code, said):
    (note,) = notes_on_other_files(files, 1_000_000)
    assert note.code == code
    assert said in note.message


def test_a_format_that_is_no_checkpoint_is_passed_over():
    assert notes_on_other_files({"model.onnx": 5}, 10) == ()


def test_gguf_header(tmp_path):
    gguf = pytest.importorskip("gguf")
    numpy = pytest.importorskip("numpy")
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.add_tensor("blk.0.attn_q.weight", numpy.zeros((64, 32), dtype=numpy.float16))
    writer.add_tensor("output_norm.weight", numpy.zeros(32, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    size = (tmp_path / "m.gguf").stat().st_size
    (note,) = notes_on_other_files({"m.gguf": size}, 2_080, str(tmp_path))
    assert "2 tensors (F16, F32) of 2,080 elements in 4,224 bytes" in note.message


def test_a_broken_gguf_is_said_to_be_unread(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"not a model")
    (note,) = notes_on_other_files({"m.gguf": 11}, 100, str(tmp_path))
    assert "not read" in note.message
