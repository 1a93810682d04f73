"""A local adapter: its config, the header of its file, and sizes where there is no header."""

from __future__ import annotations

import json
import struct

import pytest

from estimator.errors import MalformedConfigError, MalformedHeaderError, NotFoundError
from estimator.source.adapter import CONFIG, PICKLED, WEIGHTS
from estimator.source.find_adapter import find_adapter

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00ff\nsize 109069176\n"


def safetensors(shape=(8, 64)):
    size = 4 * shape[0] * shape[1]
    header = json.dumps({"a": {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "gpt2"}))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "headers", "sizes"),
    [
        pytest.param(WEIGHTS, safetensors(), [WEIGHTS], {}, id="a safetensors file"),
        pytest.param(WEIGHTS, POINTER, [], {WEIGHTS: 109_069_176}, id="a Git LFS pointer tells the size"),
        pytest.param(PICKLED, b"\0" * 500, [], {PICKLED: 500}, id="a pickle tells its size"),
        pytest.param(PICKLED, POINTER, [], {PICKLED: 109_069_176}, id="a pointer to a pickle"),
        pytest.param("README.md", b"", [], {}, id="no weights at all"),
    ],
)
def test_what_lies_in_a_folder(folder, name, content, headers, sizes):
    (folder / name).write_bytes(content)
    found = find_adapter(str(folder))
    assert [file.path for file in found.files] == headers
    assert (dict(found.other_files), found.config["base_model_name_or_path"]) == (sizes, "gpt2")


def test_a_file_stands_for_its_folder(folder, monkeypatch):
    assert find_adapter(str(folder / CONFIG)).id == str(folder)
    monkeypatch.chdir(folder)
    assert find_adapter(CONFIG).id == "."


@pytest.mark.parametrize("name", ["config.json", "dead"])
def test_what_is_here_and_no_adapter_is_not_asked_of_the_hub(folder, monkeypatch, name):
    (folder / "config.json").write_text("{}")
    (folder / "dead").symlink_to("nowhere")
    monkeypatch.chdir(folder)
    with pytest.raises(NotFoundError, match=f"{name} is neither a folder nor one of"):
        find_adapter(name)


@pytest.mark.parametrize(
    ("write", "error"),
    [
        pytest.param({}, NotFoundError, id="no config"),
        pytest.param({CONFIG: b"[1"}, MalformedConfigError, id="a config that is no JSON"),
        pytest.param({CONFIG: b"{}", WEIGHTS: b"\xff" * 30}, MalformedHeaderError, id="a header beyond the file"),
    ],
)
def test_a_folder_without_a_whole_adapter_is_refused(tmp_path, write, error):
    for name, content in write.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error):
        find_adapter(str(tmp_path))


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(NotFoundError):
        find_adapter(str(tmp_path / "nothing"))
