"""What a reader must know of a repository beside its numbers, and why one holds no model at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator.errors import LoraSizeError, NotFoundError, NoWeightsError
from estimator.notes import Note
from estimator.source.folder import CONSOLIDATED
from estimator.source.listing import model_folders, other_weights
from estimator.source.place import Place
from estimator.source.plain import plain

_SHOWN = 8


def notes_about(
    config: Mapping[str, Any] | None, has_headers: bool, files: Mapping[str, int] | None, place: Place
) -> tuple[Note, ...]:
    """Notes on code that is not run, pickles that are not read, and models in other folders."""
    notes = []
    if config is not None and config.get("auto_map"):
        notes.append(Note("custom_code", f"{place.id} brings code of its own (auto_map); it was not run."))
    if not has_headers and files is not None:
        others = other_weights(files, place.folder)
        if others:
            notes.append(Note("no_safetensors", f"{place.where()} has no safetensors files, only {_sizes(others)}."))
        if not place.folder and (folders := model_folders(files)):
            notes.append(Note("other_folders", f"models lie in folders of {place.id}: {_few(folders)} (--subfolder)."))
    return tuple(notes)


def nothing_here(place: Place, files: Mapping[str, int] | None) -> LoraSizeError:
    """The error of a folder with neither a config nor weights that are read."""
    listed = files or {}
    folders = [folder for folder in model_folders(listed) if folder + "/" != place.folder]
    others = {
        **other_weights(listed, place.folder),
        **{path: size for path, size in listed.items() if path.startswith(place.folder + CONSOLIDATED)},
    }
    if files is not None and place.folder and not any(path.startswith(place.folder) for path in files):
        what = f"{place.id} has no folder {plain(place.folder.rstrip('/'), 100)!r}."
        way_out = f"it has {_few(folders)}" if folders else "leave --subfolder out"
        return NotFoundError(what, where="--subfolder", way_out=way_out)
    if place.folder + "adapter_config.json" in listed:
        what = f"{place.where()} is an adapter, not a model."
        return NoWeightsError(
            what, where="--model", way_out="name its base with --model, and the adapter with --adapter"
        )
    if folders:
        what = f"{place.where()} has no config.json of its own; models lie in its folders."
        return NoWeightsError(what, where="--model", way_out=f"add --subfolder with one of: {_few(folders)}")
    if others:
        what = f"{place.where()} has no config.json and no safetensors files of transformers, only {_sizes(others)}."
        return NoWeightsError(what, where="--model", way_out="name the repository that these files were made from")
    what = f"{place.where()} holds neither config.json nor safetensors files."
    return NoWeightsError(what, where="--model", way_out="name the repository of a model")


def _sizes(files: Mapping[str, int]) -> str:
    named = [f"{plain(name, 80)} ({size:,} bytes)" for name, size in list(files.items())[:3]]
    more = f" and {len(files) - 3} more, {sum(files.values()):,} bytes in all" if len(files) > 3 else ""
    return ", ".join(named) + more


def _few(names: list[str]) -> str:
    shown = ", ".join(plain(name, 60) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
