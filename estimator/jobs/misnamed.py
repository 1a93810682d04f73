"""Weights that from_pretrained does not look for (transformers 5.23.0, `_get_resolved_checkpoint_files`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from estimator.notes import Note
from estimator.source.folder import INDEX, SINGLE
from estimator.source.found import Found

_OLDER = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")


def misnamed(found: Found, config: Mapping[str, Any]) -> Iterator[Note]:
    """On a local folder whose headers were read and are not those of the weights that from_pretrained loads."""
    names, named = [file.path for file in found.files], config.get("transformers_weights")
    if found.source != "local" or found.id.endswith(".safetensors"):
        return
    if isinstance(named, str):
        if names != [named] and (named != INDEX or found.index is None):
            message = (
                f"from_pretrained reads {named[:80]} alone, as transformers_weights in config.json says: {names[0]} "
            )
            yield Note("weights_not_found", message + "was read here.")
        return
    if names == [SINGLE] or found.index is not None:
        return
    variant = names[0].removeprefix("model.").removesuffix(".safetensors")
    hint = f'; variant="{variant}" has it read' if names == [f"model.{variant}.safetensors"] else ""
    older = next((name for name in found.other_files if _OLDER.fullmatch(name)), None)
    message = f"from_pretrained looks for {SINGLE}, or for the shards that {INDEX} names, and "
    message += f"loads {older}" if older else "finds no weights"
    yield Note("weights_not_found", f"{message} in this folder: {names[0]} was read here{hint}.")
