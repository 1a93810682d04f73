"""What resize_token_embeddings() makes of the biases and matrices beside a head."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from estimator.architecture.surveying import tiny
from estimator.architecture.surveying.observe import embeddings_of

_MORE = 3


def beside_head(name: str, fields: Mapping[str, Any]) -> dict[str, str | None]:
    """What becomes of each parameter beside the head that is as long as the vocabulary and not tied to it.

    "" where it is kept, None where it is dropped, else the name of the parameter that takes its place. One that gets
    the new rows is left out, and one of which tied and untied weights say different things.
    """
    found: dict[str, set[str | None]] = {}
    for tied, more in itertools.product((False, True), (0, _MORE)):
        with contextlib.suppress(Exception):  # the class can't be resized
            for parameter, becomes in _resized(name, fields, tied, more):
                found.setdefault(parameter, set()).add(becomes)
    return {parameter: becomes.pop() for parameter, becomes in found.items() if len(becomes) == 1}


def _resized(name: str, fields: Mapping[str, Any], tied: bool, more: int) -> Iterator[tuple[str, str | None]]:
    config = tiny.make(name, fields)
    for section in (config, *tiny.sub_configs(config).values()):
        section.tie_word_embeddings = tied
    model = tiny.build(name, config)
    model.tie_weights()
    embedding, head = embeddings_of(model)
    rows = model.get_parameter(f"{embedding}.weight").shape[0]
    beside = _beside(model, head, rows) if head else []
    if beside:
        with torch.device("meta"):
            model.resize_token_embeddings(rows + more, mean_resizing=False)
        after = dict(model.named_parameters(remove_duplicate=False))
        for parameter in beside:
            becomes = _becomes(parameter, head, after)
            if becomes != "" or rows + more not in after[parameter].shape:
                yield parameter, becomes


def _beside(model: torch.nn.Module, head: str, rows: int) -> list[str]:
    """Parameters of the module around a Linear head and of those in it, that have its rows and are none of its own."""
    around, own = head.rpartition(".")[0], {id(one) for one in model.get_submodule(head).parameters()}
    if not around or not isinstance(model.get_submodule(head), torch.nn.Linear):
        return []
    return [
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if around in ((module := name.rpartition(".")[0]), module.rpartition(".")[0])
        and rows in parameter.shape and id(parameter) not in own
        and not isinstance(model.get_submodule(module), torch.nn.Embedding)
    ]  # fmt: skip


def _becomes(parameter: str, head: str, after: Mapping[str, torch.nn.Parameter]) -> str | None:
    """The head's own parameter that has taken its place; "" where none has, None where it is gone."""
    if parameter not in after:
        return None
    return next((n for n, one in after.items() if one is after[parameter] and n.startswith(f"{head}.")), "")
