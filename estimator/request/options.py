"""A request from a mapping of option names: a line of `batch`, the arguments of `estimator.estimate`."""

from __future__ import annotations

import os
from numbers import Integral
from typing import Any

from estimator.dtypes import from_torch
from estimator.errors import UsageError
from estimator.request.load_options import PRECISIONS
from estimator.request.lora_config import LoraConfig, kinds_in_words
from estimator.request.request import MOST, NAMING, Request, check_timeout

_FIELDS = frozenset(Request._fields) - {"target_rule", "config_notes", "trainer_skips", "freezing"}  # of --config alone
LORA_FIELDS = frozenset(LoraConfig._fields)


def to_request(row: dict[str, Any]) -> Request:
    """Option names with underscores as a Request. Raises UsageError for a name or a value that is none."""
    if unknown := sorted(set(row) - _FIELDS, key=str):
        raise _unknown(str(unknown[0])[:100])
    row = {name: _written(name, value) for name, value in row.items()}
    for name, value in row.items():
        _check_type(name, value)
    if row.get("timeout") is not None:
        check_timeout(row["timeout"])
    return Request(**{name: value for name, value in row.items() if value is not None})


def _written(name: str, value: Any) -> Any:
    """What programs have at hand, as JSON has it: paths, tuples, numpy's integers, a LoraConfig, a torch.dtype."""
    value = _listed(value)
    if _TYPES.get(name) is int and isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if name in _AS_TEXT and isinstance(value, list) and all(isinstance(one, (str, int)) for one in value):
        return ",".join(map(str, value))
    if name == "layers" and type(value) is int:
        return str(value)
    if name == "trainable_tokens" and isinstance(value, dict):
        return {module: _listed(ids) for module, ids in value.items()}
    if name == "save_embedding_layers" and isinstance(value, bool):  # as save_pretrained takes it
        return "yes" if value else "no"
    if name == "lora" and hasattr(value, "to_dict"):
        return value.to_dict()
    if name in _DTYPES and type(value).__module__ == "torch":
        return str(value)
    if name == "base_precision" and (dtype := from_torch(value)) is not None:
        return next((short for short in PRECISIONS if from_torch(short) == dtype), value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _listed(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    return list(value) if isinstance(value, (tuple, range)) else value


_THESE = "those count that `lora-size --help` lists for the model, the adapter and the base, with underscores"


def _unknown(name: str) -> UsageError:
    from difflib import get_close_matches

    from estimator.request.other_names import OTHER_NAMES

    close = get_close_matches(name, _FIELDS, n=1, cutoff=0.75)
    ours, value = OTHER_NAMES.get(name.lower(), (name, None))
    if name in LORA_FIELDS:
        way_out = "fields of adapter_config.json belong in `lora`"
    elif ours in _FIELDS:
        way_out = f"it is called {ours} here" + (f": give {value}" if value else "")
    else:
        way_out = f"did you mean {close[0]}?" if close else _THESE
    return UsageError(f"there is no option {name!r}.", where=name, way_out=way_out)


_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("offline", "online", "dora", "lora_bias", "double_quant", "prepare_kbit"), bool),
    **dict.fromkeys(("r", "num_labels", "vocab_size"), int),
    "timeout": (int, float),
    **dict.fromkeys(("lora", "set", "rank_pattern"), dict),
    **dict.fromkeys(("modules_to_save", "target_parameters", "skip_modules"), (list, str)),
    "trainable_tokens": (list, dict, str),
}
_DTYPES = ("dtype", "adapter_dtype", "compute_dtype", "quant_storage")
_AS_TEXT = ("targets", "exclude", "layers")
_CHOICES = {
    "base_precision": PRECISIONS,
    "save_embedding_layers": ("auto", "yes", "no"),
}


def _check_type(name: str, value: Any) -> None:
    wanted = _TYPES.get(name, str)
    right = value is None or (isinstance(value, wanted) and not (isinstance(value, bool) and wanted is not bool))
    if name in MOST and isinstance(value, int) and not 1 <= value <= MOST[name]:
        raise UsageError(f"{name} is {str(value)[:80]}.", where=name, way_out=f"give a number from 1 to {MOST[name]:,}")
    if name in NAMING and isinstance(value, str) and not value.strip():
        raise UsageError(f"{name} is empty.", where=name, way_out="name one, or leave it out")
    if right and not _holds_names(name, value):
        raise UsageError(f"{name} is {str(value)[:80]!r}.", where=name, way_out="give names, each of them a text")
    if not right or (isinstance(value, str) and value not in _CHOICES.get(name, (value,))):
        kinds = kinds_in_words((str, list) if name in _AS_TEXT else wanted if isinstance(wanted, tuple) else (wanted,))
        way_out = "one of " + ", ".join(_CHOICES[name]) if name in _CHOICES else f"give {kinds}"
        shown = "no text" if name == "token" else repr(value)[:80]  # a secret is not repeated
        raise UsageError(f"{name} is {shown}.", where=name, way_out=way_out)


def _holds_names(name: str, value: Any) -> bool:
    """Whether a list of names, or what ranks are given for, holds texts alone."""
    named = name in ("modules_to_save", "target_parameters", "skip_modules", "rank_pattern", "set")
    return not (named and isinstance(value, (list, dict))) or all(isinstance(one, str) for one in value)
