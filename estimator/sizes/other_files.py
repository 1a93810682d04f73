"""What the sizes of files tell that are no safetensors: pickles (.bin, .pt) and GGUF."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod

from estimator.checkpoint.gguf import read_gguf
from estimator.errors import LoraSizeError
from estimator.notes import Note

# A pickle beside its tensors: names, a directory and padding; a checkpoint of a few MB has more than a large one.
SLACK = 0.02
WIDTHS = ((2, "16 bits"), (4, "32 bits"), (1, "8 bits"))


def notes_on_other_files(files: Mapping[str, int], parameters: int, folder: str | None = None) -> tuple[Note, ...]:
    """What is known of a model whose weights are in other formats, and what is not.

    files: path -> bytes; parameters: what config.json implies; folder: where the files lie, if they are local.
    """
    gguf = {name: size for name, size in files.items() if name.endswith(".gguf")}
    pickles = {name: size for name, size in files.items() if name.endswith((".bin", ".pt", ".pth", ".ckpt"))}
    notes = [_on_gguf(name, size, parameters, folder) for name, size in sorted(gguf.items())]
    return (*((_on_pickles(pickles, parameters),) if pickles else ()), *notes)


def _on_pickles(files: Mapping[str, int], parameters: int) -> Note:
    total = sum(files.values())
    fits = next((said for width, said in WIDTHS if 0 <= total - parameters * width <= SLACK * total), None)
    known = f"as config.json's {parameters:,} parameters have at {fits}" if fits else "which no one precision explains"
    return Note(
        "pickled_weights",
        f"The weights are pickles ({len(files)} files, {total:,} bytes, {known}): their names, dtypes and ties are not "
        "read, and shapes come from config.json.",
    )


def _on_gguf(name: str, size: int, parameters: int, folder: str | None) -> Note:
    bits = 8 * size / parameters if parameters else 0.0
    known = f"{name} has {size:,} bytes, {bits:.1f} bits for each of config.json's parameters"
    path = os.path.join(folder, name) if folder else None
    if path is None or not os.path.isfile(path):
        return Note("gguf_weights", f"{known}; its tensors are not read.")
    try:
        tensors = read_gguf(path)
    except LoraSizeError as error:
        return Note("gguf_weights", f"{known}; its tensors are not read: {error.what}")
    elements = sum(prod(tensor.shape) for tensor in tensors)
    types = ", ".join(sorted({tensor.type for tensor in tensors}))
    stored = sum(tensor.bytes for tensor in tensors)
    return Note(
        "gguf_weights",
        f"{name} has {size:,} bytes: {len(tensors)} tensors ({types}) of {elements:,} elements in {stored:,} bytes. "
        "PEFT adapts the model that transformers unpacks from it.",
    )
