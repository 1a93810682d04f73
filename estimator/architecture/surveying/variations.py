"""Other values of a config's fields, one at a time, that may show in the modules."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedConfig
from transformers.configuration_utils import ALLOWED_LAYER_TYPES

from estimator.architecture.surveying.source_hints import Hints

_IGNORED = re.compile(
    r"use_cache|output_.*|return_dict|.*_token_(id|index)|torchscript|.*dtype|initializer.*|.*_eps|.*epsilon|transformers_version"
    r"|architectures|.*dropout(_rate|_prob)?|pretraining_tp|problem_type|.*_loss.*|.*_ids|.*scale.*|rope_.*|id2label|label2id"
)
_OTHER_NUMBERS = {0: (1,), 1: (0, 2), 2: (1, 3), 3: (2, 4), 4: (2,)}
_MOST_TEXTS = 5
_NOTHING = Hints()
Change = tuple[tuple[str, ...], Any]  # path of a field, another value


def changes(config: PreTrainedConfig, prefix: tuple[str, ...] = (), hints: Hints = _NOTHING) -> Iterator[Change]:
    """Switches turned, small counts moved, activations, layer kinds and texts exchanged; fields that code names."""
    for key in sorted(hints.asked - set(vars(config))):
        if not _IGNORED.fullmatch(key) and is_field(config, key):
            yield from (((*prefix, key), other) for other in (True, *hints.texts.get(key, ())))
    for key, value in sorted(vars(config).items()):
        path = (*prefix, key)
        if isinstance(value, PreTrainedConfig):
            yield from changes(value, path, hints)
        elif not _IGNORED.fullmatch(key) and is_field(config, key):
            yield from ((path, other) for other in _others(key, value, hints))


def is_field(config: PreTrainedConfig, key: str) -> bool:
    """Whether config.json has a say in it: names that begin with a stroke are a class's own affair, but for switches
    that it declares (OPT's `_remove_final_layer_norm`).
    """
    return not key.startswith("_") or _is_switch(type(config), key)


@functools.cache
def _is_switch(cls: type, key: str) -> bool:
    """Whether the class or one that it is made of declares it as one."""
    return any(vars(one).get("__annotations__", {}).get(key) is bool for one in cls.__mro__)


def _others(key: str, value: Any, hints: Hints) -> tuple[Any, ...]:
    texts = tuple(text for text in hints.texts.get(key, ()) if text != value)[:_MOST_TEXTS]
    if isinstance(value, bool):
        return (not value,)
    if type(value) is int:
        return _other_numbers(key, value, key in hints.switches)
    if isinstance(value, float):
        return (0.0,) if value else (0.1,)
    if isinstance(value, str):
        is_activation = re.search(r"act|hidden_act|activation", key)
        return (("gelu",) if value != "gelu" else ("relu",)) + texts if is_activation else texts
    if value is None:
        return (True, 2, [1], *texts)
    return _other_lists(key, value, texts) if isinstance(value, list) else ()


def _other_numbers(key: str, value: int, switch: bool) -> tuple[int | None, ...]:
    if re.search(r"period|interval|freq|step|offset|every", key):
        return (1, 2) if value > 2 else _OTHER_NUMBERS.get(value, ())
    if value and re.search(r"proj_dim|embedding_size", key):  # a width beside the model's own: projections appear
        return (value // 2, *((0,) if switch else ()))
    without = (None,) if re.search(r"rank|window|.*intermediate_size", key) else ()
    counted = switch or re.search(r"rank|num_|layers|intermediate_size|position", key)
    return without + _OTHER_NUMBERS.get(value, (0,) if counted else ())


def _other_lists(key: str, value: list[Any], texts: tuple[str, ...]) -> tuple[list[Any], ...]:
    if key.endswith(("layer_types", "block_type", "block_types")):
        kinds = dict.fromkeys((*ALLOWED_LAYER_TYPES, *texts))
        new = tuple([*value[:-1], kind] for kind in kinds if kind not in value)
        return new + tuple([kind] * len(value) for kind in dict.fromkeys(value))
    if value and all(isinstance(item, bool) for item in value):
        return ([not item for item in value], [not value[0], *value[1:]])
    if value and all(isinstance(item, str) for item in value):
        same = [[kind] * len(value) for kind in dict.fromkeys(value)] if len(set(value)) > 1 else []
        return (*same, *([*value[:-1], text] for text in texts if text not in value))
    return ()


def changed(fields: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The keyword arguments with one, nested or not, set anew."""
    key, *rest = path
    return {**fields, key: changed(fields.get(key) or {}, tuple(rest), value) if rest else value}
