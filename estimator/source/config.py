"""config.json: from its text to a plain mapping, with nothing in it taken on trust."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from typing import Any

from estimator.dtypes import from_torch, to_torch
from estimator.errors import MalformedConfigError
from estimator.source.bounded_json import NotUsable, parse_json
from estimator.source.plain import plain

MAX_CONFIG_BYTES = 20_000_000
LFS_POINTER = b"version https://git-lfs"  # what stands for a file that Git LFS has not fetched begins so
_FILE = re.compile(r"([^/\\]+\.json)(?: in \S+(?: at .*)?)?$")
_WAY_OUT = "fetch the file again, or write it with save_pretrained"


def parse_config(text: bytes, *, where: str) -> Mapping[str, Any]:
    """A model's config.json. Raises MalformedConfigError where transformers could not read it."""
    config = parse_object(text, where=where)
    for section, refusal in odd_dtypes(config, where=where):
        if not section:
            raise refusal
    return config


def parse_object(text: bytes, *, where: str) -> Mapping[str, Any]:
    """The object in a model's or an adapter's config, as Python's json reads it: NaN is a number, a mark of the byte
    order an error (transformers 5.23.0, _dict_from_json_file; peft 0.21.2, PeftConfigMixin.from_json_file).

    Raises MalformedConfigError where it is none, or a field has the wrong type.
    """
    if len(text) > MAX_CONFIG_BYTES:
        what = f"{_name(where)} has over {MAX_CONFIG_BYTES:,} bytes."
        raise MalformedConfigError(what, where=where, way_out=_WAY_OUT)
    try:
        config = parse_json(text, lenient=True)
    except NotUsable as error:
        raise _unreadable(text, error, where) from error
    if text.count(b"{") + text.count(b"[") > _DEEPEST and _is_deep(config):
        what = f"{_name(where)} is nested more than {_DEEPEST} deep."
        raise MalformedConfigError(what, where=where, way_out=_WAY_OUT)
    check_config(config, where=where)
    return config


def _unreadable(text: bytes, error: NotUsable, where: str) -> MalformedConfigError:
    what, way_out = f"{_name(where)} can't be read: {error}.", _WAY_OUT
    if not text.strip():
        what = f"{_name(where)} is empty: it is not JSON."
    elif text.lstrip()[:1] == b"<":
        what = f"{_name(where)} is a web page, no JSON."
        way_out = "log in to this network first, or fetch the file again"
    elif text.startswith(LFS_POINTER):
        what = f"{_name(where)} is a Git LFS pointer, not the file itself."
        way_out = "run `git lfs pull` to fetch the file"
    elif text.startswith(BOM_UTF8):
        what = f"{_name(where)} begins with a mark of the byte order, at which Python fails to read it."
        way_out = "save it in UTF-8 without one"
    elif "UTF-16" in str(error):
        way_out = "save it in UTF-8"
    return MalformedConfigError(what, where=where, way_out=way_out)


def _name(where: str) -> str:
    """The file at a path, or at a place on the Hub as its own words have it."""
    named = _FILE.search(where)
    return named[1] if named else "config.json"


def check_config(config: Any, *, where: str, way_out: str = _WAY_OUT) -> None:
    """Raises MalformedConfigError where the fields that name the model have the wrong type."""
    if not isinstance(config, dict):
        what = f"{_name(where)} holds {_JSON[type(config)]}, not an object."
        raise MalformedConfigError(what, where=where, way_out=way_out)
    for field, fault in _faults(config):
        raise MalformedConfigError(f"{field} is {fault}.", where=f"{field} in {where}", way_out=way_out)


def _faults(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields of the wrong type, and what stands in them."""
    architectures, model_type = config.get("architectures"), config.get("model_type")
    listed = isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
    if architectures is not None and not listed:
        yield "architectures", f"{str(architectures)[:60]!r}, not a list of class names"
    if not isinstance(model_type, str | None):
        yield "model_type", f"{str(model_type)[:60]!r}, not a name"
    if not isinstance(tied := config.get("tie_word_embeddings"), bool | None):
        yield "tie_word_embeddings", f"{plain(tied, 60)!r}, neither true nor false"
    for path, value in dtypes_in(config).items():
        if isinstance(value, (int, float, list)):
            yield plain(path, 60), f"{plain(value, 60)}, not the name of a dtype"
    for name, value in config.items():
        if isinstance(value, (int, float)) and not abs(value) < _LARGEST and _COUNTS.intersection(name.split("_")):
            yield plain(name, 60), f"{plain(value, 60)}, not a size"
    for name in _SIZES:
        value = config.get(name)
        if isinstance(value, (str, bool, float)) or (isinstance(value, int) and not 0 <= value < _LARGEST):
            yield name, f"{str(value)[:60]!r}, not a size"


def odd_dtypes(
    config: Mapping[str, Any], *, where: str, before: str = ""
) -> Iterator[tuple[str, MalformedConfigError]]:
    """Sections by dotted path, "" for the top and first, whose text for a dtype torch has none for, with the refusal.

    transformers 5.23.0, `PreTrainedConfig.__post_init__`: getattr(torch, dtype), of the newer field where both are set.
    It fails for the top and for sections that are configs to the class (`sub_configs`), which the others are not.
    """
    name = "torch_dtype" if config.get("dtype") is None else "dtype"
    value, name = config.get(name), before + name
    if isinstance(value, str) and not _DTYPE.fullmatch(value):
        known = from_torch(value)
        what = f"{name} is {plain(value, 60)!r}, which names no dtype of torch, so transformers fails to load it."
        way_out = f"write it as {to_torch(known) if known else 'bfloat16, float16 or float32'}, or leave it out"
        yield before[:-1], MalformedConfigError(what, where=f"{name} in {where}", way_out=way_out)
    for name, section in config.items():
        if isinstance(section, dict):
            yield from odd_dtypes(section, where=where, before=f"{before}{plain(name, 60)}.")


def dtypes_in(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """What stands for a dtype by its dotted path, in sections too, of which a quantiser's names dtypes of its own."""
    found = {before + name: config[name] for name in ("dtype", "torch_dtype") if name in config}
    for name, value in config.items():
        if isinstance(value, dict) and name.endswith("_config") and name != "quantization_config":
            found |= dtypes_in(value, f"{before}{name}.")
    return found


def _is_deep(config: Any) -> bool:
    level = [config] if isinstance(config, (dict, list)) else []
    for _ in range(_DEEPEST):
        parts = (outer.values() if isinstance(outer, dict) else outer for outer in level)
        level = [inner for part in parts for inner in part if isinstance(inner, (dict, list))]
    return bool(level)


def check_sizes(config: Mapping[str, Any], *, where: str) -> None:
    """Raises MalformedConfigError where shapes are to come from a size that is none: yes, half a head, fewer than none.

    LXMERT saves an object of layers by tower, which its class never reads.
    """
    for name in (*_SIZES, *_SIZES_OF_PARTS):
        value = config.get(name)
        if isinstance(value, (bool, float, str)) or (isinstance(value, int) and value < 0):
            what = f"{name} is {plain(value, 60)!r}, not a size."
            raise MalformedConfigError(what, where=f"{name} in {where}", way_out=_WAY_OUT)


# Names of torch's dtypes, those of its releases to come as well.
_DTYPE = re.compile(r"(b?float|q?u?int|bits?|complex)\d*(x\d+)?(_[a-z]\w*)?|c?(half|float|double)|short|long|bool")
_JSON = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
_DEEPEST = 50  # objects and lists in each other; a published config has some 6
_LARGEST = 2**48
# Words in the names of counts.
_COUNTS = {"size", "dim", "num", "n", "heads", "layers", "depth", "width", "rank", "experts"}
# A whole number in nearly every architecture; some have a list by layer or an object by tower.
_SIZES = ("hidden_size", "vocab_size", "num_hidden_layers", "n_embd", "n_layer", "d_model")
_SIZES_OF_PARTS = ("num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "n_head")
