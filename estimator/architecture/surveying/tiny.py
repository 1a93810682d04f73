"""Every model class of transformers, built small and without weights, under several configs.

    for name in classes():
        base = base_fields(name)                # keyword arguments of its config
        model = build(name, make(name, base))   # on the meta device: no memory, no initialisation
        for path, value in changes(make(name, base)):
            ...                                 # changed(base, path, value) differs in one field

Rules' source: transformers 5.23.0, the mappings in models/auto/modeling_auto.py.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig  # noqa: E402
from transformers import initialization as init  # noqa: E402

from estimator.architecture.surveying.model_classes import ModelClass, class_of, classes, config_class  # noqa: E402
from estimator.architecture.surveying.needed_fields import NEEDED  # noqa: E402
from estimator.architecture.surveying.variations import changed, changes  # noqa: E402

__all__ = [
    "ModelClass", "TooLarge", "absent_numbers", "base_fields", "build", "changed", "changes", "class_of", "classes",
    "config_class", "config_types", "filled", "make", "other_bases", "small_fields", "sub_configs", "with_towers",
]  # fmt: skip


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
    (r"num_experts_per_tok|moe_top_?k|moe_k|num_experts_per_token|moe_topk|top_k_experts", 2),
    (r"n_group|topk_group", 1),
)
_STEPS: tuple[tuple[str, Any], ...] = ((r".*_(period|interval|freq|frequency|step)", 2), (r".*_offset", 1))
_MOST_MODULES = 4000
_NOT_COUNTS = re.compile(r"max_window_layers|.*_bottleneck_layers")


class TooLarge(Exception):
    """A config of more modules than a tiny model has."""


def build(name: str, config: PreTrainedConfig) -> torch.nn.Module:
    """The model on the meta device. Raises whatever transformers raises where the config is not valid for it, and
    TooLarge where it has more than 4,000 modules: counted, not timed, so that every machine builds the same.
    """
    with torch.device("meta"), init.no_init_weights(), _counted():
        return class_of(name)(config)


@contextlib.contextmanager
def _counted() -> Iterator[None]:
    original, made = torch.nn.Module.__init__, itertools.count(1)

    def counting(self: torch.nn.Module, *arguments: Any, **named: Any) -> None:
        if next(made) > _MOST_MODULES:
            raise TooLarge
        original(self, *arguments, **named)

    torch.nn.Module.__init__ = counting
    try:
        yield
    finally:
        torch.nn.Module.__init__ = original


@functools.cache
def base_fields(name: str) -> dict[str, Any]:
    """Keyword arguments of the class's smallest config that builds. Raises what the last attempt raised."""
    cls = config_class(name)
    needed = _needed(name)
    everything = (*_COUNTS, *_EXPERTS, *_SMALL)
    attempts = (
        ((*everything, *_STEPS), False, True),
        ((*everything, *_STEPS), False, False),
        (everything, False, False),
        (everything, True, False),
        ((*_COUNTS, *_EXPERTS), False, False),
        (_COUNTS, False, False),
        ((), False, False),
    )
    first: Exception | None = None
    for table, fill, whole in attempts:
        try:
            config = _with_sections(cls(**needed)) if whole else cls(**needed)
            fields = {**_small(config, table, fill), **_kept(needed, config)}
            build(name, _make(cls, fields))
            return fields
        except Exception as error:
            first = first or error
    raise first


def other_bases(name: str) -> Iterator[dict[str, Any]]:
    """Keyword arguments of configs that differ from the base in many fields: all towers alike, the class's sizes."""
    cls, needed = config_class(name), _needed(name)
    plain = cls(**needed)
    table = (*_COUNTS, *_EXPERTS, *_SMALL)
    if sub_configs(plain):
        yield {**_small(plain, table, False, itertools.repeat(_HEADS[0])), **_kept(needed, plain)}
    chosen = {key: type(sub)() for key, sub in sub_configs(plain).items() if cls.sub_configs.get(key) is AutoConfig}
    with contextlib.suppress(Exception):  # not every part fits there with no more than its own defaults
        if chosen:
            yield {**_small(cls(**{**needed, **chosen}), table, False), **_kept(needed, plain)}
    table = (*_COUNTS, *_EXPERTS)
    yield {**_small(plain, table, False), **_kept(needed, plain)}


def small_fields(model_type: str) -> dict[str, Any]:
    """A section of this model type with few and small layers."""
    plain = CONFIG_MAPPING[model_type]()
    return {**_small(plain, (*_COUNTS, *_EXPERTS, *_SMALL), False), "model_type": model_type}


def filled(fields: Mapping[str, Any], path: tuple[str, ...], config: PreTrainedConfig) -> dict[str, Any]:
    """The keyword arguments with small numbers where the section that holds the field has none: what a switch needs."""
    *parents, _ = path
    for parent in parents:
        config = getattr(config, parent)
    table = (*_EXPERTS, *_SMALL)
    for key, value in vars(config).items():
        if value is None and (small := next((small for pattern, small in table if re.fullmatch(pattern, key)), None)):
            fields = changed(fields, (*parents, key), small(_HEADS[0]) if callable(small) else small)
    return dict(fields)


def _needed(name: str) -> dict[str, Any]:
    needed = {**NEEDED.get(config_class(name).model_type, {}), **NEEDED.get(name, {})}
    return {key: _part(value) for key, value in needed.items()}


def _with_sections(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config with the sections that its class knows and leaves out by default."""
    for key, cls in config.sub_configs.items():
        if getattr(config, key, None) is None and isinstance(cls, type) and issubclass(cls, PreTrainedConfig):
            setattr(config, key, cls())
    return config


def _part(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(">"):
        return value
    model_type, _, role = value[1:].partition(":")
    extra = {"is_decoder": True, "add_cross_attention": True} if role == "decoder" else {}
    return CONFIG_MAPPING[model_type](**extra)


def _kept(needed: Mapping[str, Any], config: PreTrainedConfig) -> dict[str, Any]:
    """What is needed as given; nested configs are as `_small` has made them."""
    return {key: value for key, value in needed.items() if key not in sub_configs(config)}


def _fields_of(config: PreTrainedConfig) -> dict[str, Any]:
    """What a nested config holds that its class's defaults do not, with the model type."""
    plain: dict[str, Any] = {}
    with contextlib.suppress(Exception):
        plain = vars(type(config)())
    kept = {
        key: value for key, value in vars(config).items() if not _PRIVATE.fullmatch(key) and plain.get(key) != value
    }
    kept = {key: _fields_of(value) if isinstance(value, PreTrainedConfig) else value for key, value in kept.items()}
    if getattr(config, "_out_indices", None) != plain.get("_out_indices"):
        kept["out_indices"] = list(config._out_indices)
    if config.model_type == "timm_wrapper":
        kept["num_classes"] = 2  # its from_dict wants to be told
    return {**kept, "model_type": config.model_type}


def config_types(name: str) -> list[str]:
    """The model types whose config.json is of the class's own kind: a composite one may name its text model's class."""
    cls = config_class(name)
    return sorted({cls.model_type, *(kind for kind in classes()[name].model_types if CONFIG_MAPPING[kind] is cls)})


def make(name: str, fields: Mapping[str, Any]) -> PreTrainedConfig:
    """The class's config from keyword arguments."""
    return _make(config_class(name), fields)


def _make(cls: type[PreTrainedConfig], fields: Mapping[str, Any]) -> PreTrainedConfig:
    # Constructors change the dictionaries that they are given; what is a tuple by default is a list in config.json.
    config = cls(**{key: _copy(value) for key, value in fields.items()})
    for key, value in vars(config).items():
        if isinstance(value, tuple):
            vars(config)[key] = list(value)
    return _with_switches(config)


def _with_switches(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config, and those in it, with the switches that are constants of the class: config.json may turn them too."""
    for cls in type(config).__mro__[: type(config).__mro__.index(PreTrainedConfig)]:
        for key, value in vars(cls).items():
            if type(value) is bool and key not in vars(config) and not key.startswith("_"):
                vars(config)[key] = value
    for section in sub_configs(config).values():
        _with_switches(section)
    return config


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return list(value) if isinstance(value, list) else value


def sub_configs(config: PreTrainedConfig) -> dict[str, PreTrainedConfig]:
    """The nested configs that are set, by field name."""
    return {key: value for key, value in vars(config).items() if isinstance(value, PreTrainedConfig)}


_PRIVATE = re.compile(r"_.*|transformers_version|architectures|id2label|label2id|num_labels|.*dtype")


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


def with_towers(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments with small configs for the towers that the class may have and that they leave out."""
    tower = iter(_HEADS[3:] * 4)
    config, found = make(name, fields), dict(fields)
    for key, cls in config.sub_configs.items():
        if vars(config).get(key, 0) is None and hasattr(cls, "model_type") and cls.model_type:
            plain = cls()
            small = _small(plain, (*_COUNTS, *_EXPERTS, *_SMALL), False, tower)
            found[key] = {**small, "model_type": plain.model_type}
    return found


def absent_numbers(config: PreTrainedConfig, section: tuple[str, ...]) -> list[tuple[tuple[str, ...], int]]:
    """Small numbers for the fields that are None by default, of one (nested) config: (path, number)."""
    for key in section:
        config = getattr(config, key)
    small = _small(config, (*_COUNTS, *_EXPERTS, *_SMALL), True)
    return [((*section, key), value) for key, value in small.items() if vars(config).get(key, 0) is None]


def _smaller(value: int | None, small: Any, heads: int) -> int:
    if value is not None and value <= 0:
        return value
    if callable(small):
        return small(heads)
    return small if value is None else min(value, small)
