"""A local folder as transformers saves one: config.json, one safetensors file, or shards with or without an index."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from estimator.errors import LoraSizeError, MalformedHeaderError, NotFoundError, UsageError
from estimator.source.bounded_json import MAX_TEXT_BYTES, NotUsable, parse_json
from estimator.source.config import MAX_CONFIG_BYTES, parse_config
from estimator.source.found import Found, StoredFile
from estimator.source.framing import LENGTH_BYTES, header_length
from estimator.source.opening import open_file, read_at_most
from estimator.source.place import folder_of
from estimator.source.plain import plain
from estimator.source.siblings import check_whole, unnamed_shard

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
OTHER_WEIGHTS = (".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".ckpt")
# What lies beside weights without being the model's: optimizer states, adapters, training arguments.
CONSOLIDATED = "consolidated"  # weights as their maker's own code names and reads them
_NOT_THE_MODEL = ("adapter_model", "optimizer", "scheduler", "training_args", "rng_state", CONSOLIDATED)
_OF_MLX = "adapters.safetensors"  # as mlx-lm ends the names of its adapters and their checkpoints


def find_in_folder(path: str, *, subfolder: str | None = None) -> Found:
    """Config and headers of a folder, or of the folder around a config.json or a .safetensors file.

    Raises NotFoundError where there is nothing, MalformedHeaderError and MalformedConfigError where what is there lies,
    UsageError where no such subfolder can be.
    """
    if os.path.isfile(path):
        if subfolder:
            what = f"{path} is a file, in which there is no folder {subfolder!r}."
            raise UsageError(what, where="--subfolder", way_out="name the folder around it, or leave --subfolder out")
        return _find_by_file(path)
    folder = os.path.join(path, folder_of(subfolder)) if subfolder else path
    if not subfolder and not os.path.isdir(folder):
        raise NotFoundError(f"{path} is neither a file nor a folder.", where="--model", way_out="check what it is")
    if not os.path.isdir(folder):
        way_out = "name one of: " + ", ".join(_subfolders(path)) if _subfolders(path) else "check the spelling"
        raise NotFoundError(f"there is no folder {subfolder!r} in {path}.", where="--subfolder", way_out=way_out)
    entries = _listed(folder)
    config = _config(os.path.join(folder, "config.json")) if "config.json" in entries else None
    names, index = _weight_files(folder, entries)
    files = tuple(read_stored_file(os.path.join(folder, name), name) for name in names)
    others = {name: os.path.getsize(path) for name, path in _other_weights(folder, entries)}
    if config is None and not files:
        _refuse_empty(folder, entries, others)
    return Found(id=path, revision=None, source="local", config=config, files=files, index=index, other_files=others)


def read_stored_file(path: str, name: str) -> StoredFile:
    """The header of one local safetensors file, never more of it. Raises MalformedHeaderError, NotFoundError."""
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = header_length(file.read(LENGTH_BYTES), size, where=path)
            header = file.read(length)
    except OSError as error:
        raise _unreadable(path, error) from error
    return StoredFile(name, header, length, size, os.path.abspath(path))


def _find_by_file(path: str) -> Found:
    if path.endswith(".safetensors"):
        folder, name = os.path.split(os.path.abspath(path))
        config_path = os.path.join(folder, "config.json")
        config = _config(config_path) if os.path.isfile(config_path) else None
        return Found(id=path, revision=None, source="local", config=config, files=(read_stored_file(path, name),))
    if path.endswith(".json"):
        return Found(id=path, revision=None, source="local", config=_config(path))
    raise NotFoundError(
        f"{path} is neither a folder, a config.json nor a .safetensors file.",
        where="--model",
        way_out="name the folder that holds config.json and the weights",
    )


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(path: str, error: OSError) -> LoraSizeError:
    reason, way_out = (error.strerror or type(error).__name__).lower(), "check what it is, and its permissions"
    if os.path.islink(path) and not os.path.exists(path):
        reason, way_out = "it is a link that leads nowhere", "fetch this file again"
    return NotFoundError(f"{path} can't be read: {reason}.", where=path, way_out=way_out)


def _config(path: str) -> Any:
    try:
        text = read_at_most(path, MAX_CONFIG_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from error
    return parse_config(text, where=path)


def _weight_files(folder: str, entries: list[str]) -> tuple[list[str], Any]:
    """The files that from_pretrained would read, in its order of preference, and the index that names them."""
    if SINGLE in entries:
        return [SINGLE], None
    if INDEX in entries:
        index = _index(os.path.join(folder, INDEX))
        return _shards(folder, index, entries), index
    names = weights_among(entries, ".safetensors")
    check_whole(names, where=folder)
    return names, None


def weights_among(names: Iterable[str], endings: str | tuple[str, ...]) -> list[str]:
    """Names of files in one folder that have such an ending and are the model's own."""
    own = (name for name in names if not name.startswith(_NOT_THE_MODEL) and not name.endswith(_OF_MLX))
    return [name for name in own if name.endswith(endings)]


def _index(path: str) -> Any:
    try:
        index = parse_json(read_at_most(path, MAX_TEXT_BYTES))
        weight_map = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(weight_map, dict) or not weight_map:
            raise NotUsable("it has no weight_map")
    except OSError as error:
        raise _unreadable(path, error) from error
    except NotUsable as error:
        what = f"the index of the shards can't be read: {plain(error)}."
        raise MalformedHeaderError(what, where=path, way_out="fetch this file again") from error
    return index


def _shards(folder: str, index: Any, entries: list[str]) -> list[str]:
    names = list({str(name): name for name in index["weight_map"].values()}.values())
    for name in names:
        if not isinstance(name, str) or os.path.basename(name) != name or name not in entries:
            present = sum(isinstance(other, str) and other in entries for other in names)
            raise MalformedHeaderError(
                f"the index names the shard {plain(name, 100)!r}, which is not in the folder.",
                where=os.path.join(folder, INDEX),
                way_out=f"fetch the missing shards again ({present} of {len(names)} are there)",
            )
    if (extra := unnamed_shard(names, entries)) is not None:
        raise MalformedHeaderError(
            f"the folder has the shard {plain(extra, 100)!r}, which the index does not name.",
            where=os.path.join(folder, INDEX),
            way_out="fetch the index again, or remove the file",
        )
    return names


def _other_weights(folder: str, entries: list[str]) -> Iterator[tuple[str, str]]:
    """Name and path. A link that leads nowhere is no file: tools that tidy the Hub's cache leave such."""
    paths = ((name, os.path.join(folder, name)) for name in weights_among(entries, OTHER_WEIGHTS))
    return ((name, path) for name, path in paths if os.path.isfile(path))


def _subfolders(path: str) -> list[str]:
    def holds_model(folder: str) -> Iterator[bool]:
        with os.scandir(folder) as entries:
            yield from (entry.name == "config.json" or entry.name.endswith(".safetensors") for entry in entries)

    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and any(holds_model(entry.path)))
    except OSError:
        return []


def _refuse_empty(folder: str, entries: list[str], others: dict[str, int]) -> None:
    if "adapter_config.json" in entries:
        what, way_out = (
            f"{folder} holds an adapter, not a model.",
            f"--adapter {folder} explains its file, --config {folder} estimates what its config says",
        )
    elif inside := _subfolders(folder):
        what, way_out = (
            f"{folder} has no config.json; its subfolders do.",
            "add --subfolder with one of: " + ", ".join(inside),
        )
    elif passed_by := [*others, *(name for name in entries if name.startswith(CONSOLIDATED))]:
        what = (
            f"{folder} holds {', '.join(passed_by[:3])}, and neither config.json nor safetensors files of transformers."
        )
        way_out = "put the model's config.json beside them"
    else:
        what, way_out = f"{folder} holds neither config.json nor safetensors files.", "name the folder of a model"
    raise NotFoundError(what, where="--model", way_out=way_out)
