"""What a folder, a file or a name is answered with, and what each odd one says."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from estimator.errors import LoraSizeError, NotFoundError, UsageError
from estimator.source.folder import find_in_folder
from estimator.source.siblings import check_whole

HEADER = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


def weights(header: bytes = HEADER) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(4)


CONFIG = json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}).encode()
INDEX = json.dumps({"metadata": {"total_size": 4}, "weight_map": {"a": "one.safetensors"}}).encode()


def model_files(*names: str) -> dict[str, bytes]:
    known = {
        "config.json": CONFIG,
        "model.safetensors": weights(),
        "one.safetensors": weights(),
        "two.safetensors": weights(HEADER.replace(b'"a"', b'"b"')),
        "model.safetensors.index.json": INDEX,
        "adapter_model.safetensors": weights(),
        "pytorch_model.bin": b"12345",
        "m-00001-of-00002.safetensors": weights(),
        "m-00002-of-00002.safetensors": weights(),
    }
    return {name: known[name] for name in names}


def put(folder: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(folder)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        pytest.param(["config.json", "model.safetensors"], ["model.safetensors"], id="one file"),
        pytest.param(
            ["config.json", "model.safetensors", "two.safetensors"],
            ["model.safetensors"],
            id="the file with the known name wins",
        ),
        pytest.param(
            ["config.json", "one.safetensors", "two.safetensors", "model.safetensors.index.json"],
            ["one.safetensors"],
            id="shards that the index names",
        ),
        pytest.param(
            ["config.json", "one.safetensors", "two.safetensors"],
            ["one.safetensors", "two.safetensors"],
            id="shards without an index",
        ),
        pytest.param(
            ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"],
            ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"],
            id="numbered shards without an index",
        ),
        pytest.param(["one.safetensors"], ["one.safetensors"], id="no config.json"),
        pytest.param(["config.json"], [], id="config.json alone"),
        pytest.param(["config.json", "pytorch_model.bin"], [], id="weights in another format"),
        pytest.param(
            ["config.json", "one.safetensors", "adapter_model.safetensors"], ["one.safetensors"], id="an adapter beside"
        ),
    ],
)
def test_which_files_are_the_model(tmp_path: Path, names: list[str], found: list[str]) -> None:
    answer = find_in_folder(put(tmp_path, model_files(*names)))
    assert [stored.path for stored in answer.files] == found
    assert (answer.config is not None) == ("config.json" in names)
    assert all(stored.header == HEADER or b'"b"' in bytes(stored.header) for stored in answer.files)
    assert dict(answer.other_files) == ({"pytorch_model.bin": 5} if "pytorch_model.bin" in names else {})


@pytest.mark.parametrize("beside", [["config.json"], []], ids=["with its config", "alone"])
def test_a_file_of_weights_is_read_with_the_config_beside_it(tmp_path: Path, beside: list[str]) -> None:
    put(tmp_path, model_files("one.safetensors", *beside))
    found = find_in_folder(str(tmp_path / "one.safetensors"))
    assert [file.path for file in found.files] == ["one.safetensors"]
    assert (found.config is not None) == bool(beside)


def test_a_subfolder_is_read_in_place_of_the_folder(tmp_path: Path) -> None:
    put(tmp_path / "text_encoder", model_files("config.json", "model.safetensors"))
    assert find_in_folder(str(tmp_path), subfolder="text_encoder").files[0].actual_bytes == len(weights())


@pytest.mark.parametrize(
    ("path", "subfolder", "says"),
    [
        pytest.param(".", "/etc", "lies outside the model", id="a path from the root"),
        pytest.param("config.json", "text_encoder", "is a file", id="of a file"),
    ],
)
def test_a_subfolder_that_none_can_be(tmp_path: Path, path: str, subfolder: str, says: str) -> None:
    put(tmp_path, {"config.json": CONFIG})
    with pytest.raises(UsageError, match=says) as caught:
        find_in_folder(str(tmp_path / path), subfolder=subfolder)
    assert caught.value.where == "--subfolder"


ODD = [
    pytest.param({}, None, "not_found", "neither config.json nor safetensors", id="empty folder"),
    pytest.param({"a.bin": b"1"}, None, "not_found", "holds a.bin, and neither", id="weights that are not read"),
    pytest.param(
        {"consolidated.safetensors": b"1"},
        None,
        "not_found",
        "holds consolidated.safetensors, and neither",
        id="weights of Mistral's own format",
    ),
    pytest.param(
        {"adapter_config.json": b"{}", "0000100_adapters.safetensors": weights()},
        None,
        "not_found",
        "holds an adapter",
        id="an adapter of mlx-lm's",
    ),
    pytest.param({"config.json": b"{"}, None, "malformed_config", "not JSON", id="config.json is broken"),
    pytest.param({"config.json": b"[]"}, None, "malformed_config", "not an object", id="config.json is a list"),
    pytest.param(
        {"config.json": b'{"architectures": "X"}'},
        None,
        "malformed_config",
        "architectures",
        id="architectures is a text",
    ),
    pytest.param(
        {"config.json": b'{"hidden_size": "8"}'}, None, "malformed_config", "hidden_size", id="hidden_size is a text"
    ),
    pytest.param({"config.json": b"\xff\xfe"}, None, "malformed_config", "not UTF-8", id="config.json is no text"),
    pytest.param({"config.json": b"[" * 9000}, None, "malformed_config", "", id="config.json is nested without end"),
    pytest.param({"model.safetensors": b"1234"}, None, "malformed_header", "8", id="file cut within its length"),
    pytest.param(
        {"model.safetensors": weights()[:20]}, None, "malformed_header", "ends after", id="file cut within its header"
    ),
    pytest.param(
        {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"},
        None,
        "malformed_header",
        "LFS",
        id="LFS pointer",
    ),
    pytest.param(
        {"model.safetensors.index.json": b"{}"}, None, "malformed_header", "weight_map", id="index without a map"
    ),
    pytest.param(
        {"model.safetensors.index.json": INDEX}, None, "malformed_header", "one.safetensors", id="shard is missing"
    ),
    pytest.param(
        {"model.safetensors.index.json": INDEX.replace(b"one", b"../one")},
        None,
        "malformed_header",
        "../one",
        id="shard outside",
    ),
    *(
        pytest.param(
            {"model.safetensors.index.json": b'{"weight_map":%s}' % text, "one.safetensors": weights()},
            None,
            "malformed_header",
            says,
            id=f"a weight_map of {text[:24]!r}",
        )
        for text, says in (
            (b"{}", "weight_map"),
            (b"[1]", "weight_map"),
            (b"null", "weight_map"),
            (b"NaN", "NaN"),
            (b'{"a":["one.safetensors"]}', "not in the folder"),
            (b'{"a":null}', "not in the folder"),
            (b'{"a":{}}', "not in the folder"),
            (b'{"a":1.5}', "not in the folder"),
            (b'{"a":"\\u001b[2J"}', "not in the folder"),
            (b'{"a":' * 9_000, "nested"),
            (b"\xff", "UTF-8"),
        )
    ),
    pytest.param(
        {
            "model.safetensors.index.json": INDEX.replace(b"one", b"m-00001-of-00002"),
            "m-00001-of-00002.safetensors": weights(),
            "m-00002-of-00002.safetensors": weights(),
        },
        None,
        "malformed_header",
        "m-00002-of-00002",
        id="a shard that the index leaves out",
    ),
    pytest.param(
        {"config.json": b'{"a":"' + b"x" * 20_000_000 + b'"}'}, None, "malformed_config", "bytes", id="20 MB of config"
    ),
    pytest.param({"unet/config.json": CONFIG}, None, "not_found", "unet", id="models are in subfolders"),
    pytest.param({"unet/config.json": CONFIG}, "vae", "not_found", "unet", id="another subfolder"),
    pytest.param({"config.json": CONFIG}, "../x", "usage", "outside", id="subfolder outside"),
    pytest.param({"adapter_config.json": b"{}"}, None, "not_found", "--config", id="an adapter alone"),
    *(
        pytest.param(dict.fromkeys(names, weights()), None, "malformed_header", said, id=said)
        for names, said in (
            (["m-00001-of-00002.safetensors"], "1 of 2 shards m-*-of-00002.safetensors are there"),
            (["a.safetensors", "m-00000-of-3.safetensors", "m-00002-of-3.safetensors"], "2 of 3 shards m-*-of-3"),
        )
    ),
]


@pytest.mark.parametrize(("files", "subfolder", "code", "says"), ODD)
def test_odd_folders_are_refused(
    tmp_path: Path, files: dict[str, bytes], subfolder: str | None, code: str, says: str
) -> None:
    with pytest.raises(LoraSizeError) as caught:
        find_in_folder(put(tmp_path, files), subfolder=subfolder)
    assert caught.value.code == code
    assert says in caught.value.what + caught.value.way_out


def test_digits_without_end_number_no_shards() -> None:
    check_whole([f"m-1-of-{'9' * 5000}.safetensors"], where="a repository")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.safetensors.index.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    put(tmp_path, {"config.json": CONFIG} if name != "config.json" else {})
    make(tmp_path / name)
    with pytest.raises(NotFoundError, match="it is no file"):
        find_in_folder(str(tmp_path))


def test_a_link_that_leads_nowhere_is_no_file(tmp_path: Path) -> None:
    put(tmp_path, {"config.json": CONFIG})
    (tmp_path / "pytorch_model.bin").symlink_to("nowhere")
    assert find_in_folder(str(tmp_path)).other_files == {}
    (tmp_path / "model.safetensors").symlink_to("nowhere")
    with pytest.raises(NotFoundError, match="it is a link that leads nowhere"):
        find_in_folder(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    tmp_path.chmod(0)
    with pytest.raises(LoraSizeError, match="permission"):
        find_in_folder(str(tmp_path))
