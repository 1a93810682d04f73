"""Every model class of transformers, built small and without weights, under several configs.

Only generators import this file: it needs torch and transformers.

    for name in classes():
        base, *others = tiny_configs(name)      # others differ from base in one field each
        model = build(name, base)               # on the meta device: no memory, no initialisation

Rules' source: transformers 5.23.0, the mappings in models/auto/modeling_auto.py.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from transformers import CONFIG_MAPPING, PreTrainedConfig  # noqa: E402
from transformers import initialization as init  # noqa: E402
from transformers.configuration_utils import ALLOWED_LAYER_TYPES  # noqa: E402
from transformers.models.auto import modeling_auto  # noqa: E402

from estimator.architecture.needed_fields import NEEDED  # noqa: E402


class ModelClass(NamedTuple):
    name: str  # "LlamaForCausalLM"
    model_types: tuple[str, ...]  # whose config builds it; more than one where classes are shared
    mappings: tuple[str, ...]  # "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", ...

    @property
    def model_type(self) -> str:
        return self.model_types[0]


_HEADS = (6, 5, 7, 4, 9, 3, 10, 11)  # one number per tower, so that every tower has a width of its own
_SMALL: tuple[tuple[str, Any], ...] = (
    (r"hidden_size|d_model|n_embd|embed_dim|width|hidden_dim|dim|n_embed", lambda heads: heads * 8),
    (r"num_attention_heads|n_heads?|num_heads|(en|de)coder_attention_heads", lambda heads: heads),
    (r"num_key_value_heads|num_kv_heads|n_kv_heads", lambda heads: 2 if heads % 2 == 0 else heads),
    (r"head_dim|d_kv|attention_head_dim", lambda heads: 8),
    (r"intermediate_size|d_ff|d_inner|ffn_dim|(en|de)coder_ffn_dim|n_inner|mlp_dim", lambda heads: heads * 8 + 32),
    (r"moe_intermediate_size", lambda heads: 40),
    (r"vocab_size|decoder_vocab_size", lambda heads: 101),
    (r"(pad|bos|eos|decoder_start|forced_bos|forced_eos)_token_id", lambda heads: 1),
    (r"max_position_embeddings|n_positions", lambda heads: 64),
)
_COUNTS: tuple[tuple[str, Any], ...] = (
    (r"num_hidden_layers|n_layers?|num_layers|(num_)?(en|de)coder_layers|depth|num_blocks|.*_layers|num_.*_blocks", 3),
)
_EXPERTS: tuple[tuple[str, Any], ...] = (
    (r"n_routed_experts|num_(local_)?experts|moe_num_experts|num_moe_experts", 4),
    (r"num_experts_per_tok|moe_top_?k|moe_k|num_experts_per_token|moe_topk", 2),
    (r"n_group|topk_group", 1),
)
_STEPS: tuple[tuple[str, Any], ...] = ((r".*_(period|interval|freq|frequency|step)", 2), (r".*_offset", 1))
_NOT_COUNTS = re.compile(r"max_window_layers|.*_bottleneck_layers")


@functools.cache
def classes() -> dict[str, ModelClass]:
    """Every class of every Auto mapping, by name, in alphabetical order."""
    types: dict[str, list[str]] = {}
    mappings: dict[str, list[str]] = {}
    for mapping, names in vars(modeling_auto).items():
        if not mapping.endswith("_MAPPING_NAMES") or mapping == "CONFIG_MAPPING_NAMES":
            continue
        for model_type, value in names.items():
            for name in (value,) if isinstance(value, str) else value:
                types.setdefault(name, []).append(model_type)
                mappings.setdefault(name, []).append(mapping)
    return {
        name: ModelClass(name, tuple(dict.fromkeys(types[name])), tuple(dict.fromkeys(mappings[name])))
        for name in sorted(types)
    }


@functools.cache
def class_of(name: str) -> type:
    """The Python class. Raises AttributeError or ImportError where this release or machine lacks it."""
    transformers = importlib.import_module("transformers")
    return getattr(transformers, name)


def config_class(name: str) -> type[PreTrainedConfig]:
    """The config class that the model class is built from."""
    own = getattr(class_of(name), "config_class", None)
    for model_type in classes()[name].model_types:
        if own is None or CONFIG_MAPPING[model_type] is own:
            return CONFIG_MAPPING[model_type]
    return own


def build(name: str, config: PreTrainedConfig) -> torch.nn.Module:
    """The model on the meta device. Raises whatever transformers raises where the config is not valid for it."""
    with torch.device("meta"), init.no_init_weights():
        return class_of(name)(config)


def tiny_configs(name: str, variants: bool = True) -> Iterator[PreTrainedConfig]:
    """Configs that build the class: the base first, then (with `variants`) each with one field changed.

    The configs with one field changed are made as valid as their class checks; `build` may still refuse some.
    """
    base = base_fields(name)
    cls = config_class(name)
    yield _make(cls, base)
    for path, value in changes(_make(cls, base)) if variants else ():
        with contextlib.suppress(Exception):
            yield _make(cls, changed(base, path, value))


@functools.cache
def base_fields(name: str) -> dict[str, Any]:
    """Keyword arguments of the class's smallest config that builds. Raises what the last attempt raised."""
    cls = config_class(name)
    needed = {**NEEDED.get(cls.model_type, {}), **NEEDED.get(name, {})}
    needed = {key: _part(value) for key, value in needed.items()}
    everything = (*_COUNTS, *_EXPERTS, *_SMALL)
    attempts = (
        ((*everything, *_STEPS), False),
        (everything, False),
        (everything, True),
        ((*_COUNTS, *_EXPERTS), False),
        (_COUNTS, False),
        ((), False),
    )
    first: Exception | None = None
    for table, fill in attempts:
        try:
            fields = {**_small(cls(**needed), table, fill), **_kept(needed, table)}
            build(name, _make(cls, fields))
            return fields
        except Exception as error:
            first = first or error
    raise first


def other_bases(name: str) -> Iterator[dict[str, Any]]:
    """Keyword arguments of configs that differ from the base in many fields: all towers alike, the class's sizes."""
    cls = config_class(name)
    needed = {**NEEDED.get(cls.model_type, {}), **NEEDED.get(name, {})}
    needed = {key: _part(value) for key, value in needed.items()}
    plain = cls(**needed)
    if sub_configs(plain):
        table = (*_COUNTS, *_EXPERTS, *_SMALL)
        yield {**_small(plain, table, False, itertools.repeat(_HEADS[0])), **_kept(needed, table)}
    table = (*_COUNTS, *_EXPERTS)
    yield {**_small(plain, table, False), **_kept(needed, table)}


def _part(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(">"):
        return value
    model_type, _, role = value[1:].partition(":")
    extra = {"is_decoder": True, "add_cross_attention": True} if role == "decoder" else {}
    return CONFIG_MAPPING[model_type](**extra)


def _kept(needed: Mapping[str, Any], table: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """What is needed as given; nested configs only where `_small` has not made fields of them."""
    given = {key: _fields_of(value) if isinstance(value, PreTrainedConfig) else value for key, value in needed.items()}
    return {key: value for key, value in given.items() if not (table and isinstance(value, dict))}


def _fields_of(config: PreTrainedConfig) -> dict[str, Any]:
    """What a nested config holds that its class's defaults do not, with the model type."""
    plain: dict[str, Any] = {}
    with contextlib.suppress(Exception):
        plain = vars(type(config)())
    kept = {
        key: value for key, value in vars(config).items() if not _PRIVATE.fullmatch(key) and plain.get(key) != value
    }
    kept = {key: _fields_of(value) if isinstance(value, PreTrainedConfig) else value for key, value in kept.items()}
    if config.model_type == "timm_wrapper":
        kept["num_classes"] = 2  # its from_dict wants to be told
    return {**kept, "model_type": config.model_type}


def make(name: str, fields: Mapping[str, Any]) -> PreTrainedConfig:
    """The class's config from keyword arguments."""
    return _make(config_class(name), fields)


def _make(cls: type[PreTrainedConfig], fields: Mapping[str, Any]) -> PreTrainedConfig:
    # Constructors change the dictionaries that they are given.
    return cls(**{key: _copy(value) for key, value in fields.items()})


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return list(value) if isinstance(value, list) else value


def sub_configs(config: PreTrainedConfig) -> dict[str, PreTrainedConfig]:
    """The nested configs that are set, by field name."""
    return {key: value for key, value in vars(config).items() if isinstance(value, PreTrainedConfig)}


def _small(
    config: PreTrainedConfig, table: tuple[tuple[str, Any], ...], fill: bool, tower: Iterator[int] | None = None
) -> dict[str, Any]:
    """The fields to set so that a config is small; with `fill` those too that are None by default."""
    tower = iter(_HEADS * 4) if tower is None else tower
    heads = next(tower)
    fields: dict[str, Any] = {}
    for key, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            fields[key] = {**_fields_of(value), **_small(value, table, fill, tower), "model_type": value.model_type}
        elif not _NOT_COUNTS.fullmatch(key) and (type(value) is int or (fill and value is None)):
            small = next((small for pattern, small in table if re.fullmatch(pattern, key)), None)
            if small is not None:
                fields[key] = _smaller(value, small, heads)
    return fields


def _smaller(value: int | None, small: Any, heads: int) -> int:
    if value is not None and value <= 0:
        return value
    if callable(small):
        return small(heads)
    return small if value is None else min(value, small)


_PRIVATE = re.compile(r"_.*|transformers_version|architectures|id2label|label2id|num_labels|.*dtype")
_IGNORED = re.compile(
    r"use_cache|output_.*|return_dict|.*_token(_id|_index)?|torchscript|.*dtype|initializer.*|.*_eps|.*epsilon|transformers_version"
    r"|architectures|_.*|.*dropout(_rate|_prob)?|pretraining_tp|problem_type|.*_loss.*|.*_ids|.*scale.*|rope_.*|id2label|label2id"
)
_OTHER_NUMBERS = {0: (1,), 1: (0, 2), 2: (1, 3), 3: (2, 4), 4: (2,)}


def changes(config: PreTrainedConfig, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path of a field, another value): switches turned, small counts moved, activations and layer kinds exchanged."""
    for key, value in sorted(vars(config).items()):
        path = (*prefix, key)
        if isinstance(value, PreTrainedConfig):
            yield from changes(value, path)
        elif not _IGNORED.fullmatch(key):
            yield from ((path, other) for other in _others(key, value))


def _others(key: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return (not value,)
    if type(value) is int:
        if re.search(r"period|interval|freq|step|offset|every", key):
            return (1, 2) if value > 2 else _OTHER_NUMBERS.get(value, ())
        if re.search(r"proj_dim|embedding_size", key):  # a width beside the model's own: projections appear
            return (value // 2,)
        without = (None,) if re.search(r"rank|window|.*intermediate_size", key) else ()
        return without + _OTHER_NUMBERS.get(
            value, (0,) if re.search(r"rank|num_|layers|intermediate_size|position", key) else ()
        )
    if isinstance(value, float):
        return (0.0,) if value else (0.1,)
    if isinstance(value, str) and re.search(r"act|hidden_act|activation", key):
        return ("gelu",) if value != "gelu" else ("relu",)
    if value is None:
        return (True, 2, [1])
    if key.endswith(("layer_types", "block_type", "block_types")) and isinstance(value, list):
        return tuple([*value[:-1], kind] for kind in ALLOWED_LAYER_TYPES if kind not in value) + tuple(
            [kind] * len(value) for kind in dict.fromkeys(value)
        )
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return tuple([kind] * len(value) for kind in dict.fromkeys(value)) if len(set(value)) > 1 else ()
    return ()


def changed(fields: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The keyword arguments with one, nested or not, set anew."""
    key, *rest = path
    return {**fields, key: changed(fields.get(key) or {}, tuple(rest), value) if rest else value}
