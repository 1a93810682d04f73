"""Fields of config.json that activations depend on, by the names that model types give them.

transformers writes out what a config class has otherwise than its own defaults, and of a part (`text_config`,
`vision_config`) nothing else. defaults.facts: heads of attention, activation, and the model types whose classes have
both. Written by `python -m estimator.sizes.memory.generate_defaults`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

TEXT = ("text_config", "llm_config", "language_config", "decoder")
_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_target_positions")
_MANY_TOKENS = 2**40  # no model is made for as many
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
_TOWERS_HEADS = ("attention_heads", "decoder_attention_heads", "encoder_attention_heads")
_ACTIVATION = ("hidden_activation", "hidden_act", "activation_function", "activation", "dense_act_fn")
_DROPS_STATES = (
    *("hidden_dropout_prob", "hidden_dropout", "resid_pdrop", "residual_dropout", "resid_dropout"),
    *("dropout_rate", "dropout"),
)
_DROPS_INNER = ("activation_dropout", "dropout_rate")
_DROPS_SCORES = ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout", "attn_dropout", "dropout_rate")
_EXPERTS_PER_TOKEN = (
    *("num_experts_per_tok", "num_experts_per_token"),
    *("moe_topk", "moe_k", "moe_top_k", "top_k_experts"),
)
_SENSES = {"Conv1d": ("audio", "speech", "sound"), "Conv2d": ("vision", "image"), "Conv3d": ("vision", "image")}


class Defaults(NamedTuple):
    heads: int | None = None
    activation: str | None = None


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of config.json that tells of the language model."""
    return next((config[name] for name in TEXT if isinstance(config.get(name), Mapping)), config)


def tower_config(config: Mapping[str, Any], tower: str, stem: str) -> Mapping[str, Any]:
    """The part that tells of a tower of images or sound: of its name, else of what its kind of convolution reads."""
    parts = [name for name, value in config.items() if name.endswith("_config") and isinstance(value, Mapping)]
    senses = [sense for names in _SENSES.values() for sense in names if sense in tower] or _SENSES.get(stem, ())
    return next((config[name] for sense in senses for name in parts if name.startswith(sense)), config)


def longest(config: Mapping[str, Any]) -> int | None:
    """Tokens of the longest sequence that the model is made for; None where nothing says it.

    Positions that are turned otherwise (`rope_scaling`, in transformers 5 `rope_parameters`) are as many as the config
    names: whether it names those from before, nothing tells. YaRN alone says where it starts, and how far it reaches:
    `original_max_position_embeddings` times `factor` (transformers 5.23.0, modeling_rope_utils.py). Llama 3's factor
    and LongRoPE's set wavelengths, not the number of positions.
    """
    known = next((value for value in map(config.get, _POSITIONS) if _is_number_of_tokens(value)), None)
    turned = first(config, "rope_scaling", "rope_parameters")
    if known is None or not isinstance(turned, Mapping) or turned.get("rope_type", turned.get("type")) != "yarn":
        return known
    start, factor = turned.get("original_max_position_embeddings"), turned.get("factor")
    if not _is_number_of_tokens(start) or start > known or not isinstance(factor, int | float):
        return known
    return max(known, int(start * factor)) if 1 <= factor < _MANY_TOKENS else known


def _is_number_of_tokens(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 < value < _MANY_TOKENS


def first(config: Mapping[str, Any], *names: str) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)


def heads(config: Mapping[str, Any]) -> int:
    """Of attention; 1 where nobody says."""
    said = first(config, *_HEADS, *_TOWERS_HEADS)
    return said if type(said) is int else _defaults(config).heads or 1


def activation(config: Mapping[str, Any]) -> str:
    """Of the MLP."""
    named = first(config, *_ACTIVATION)
    if named is None and isinstance(config.get("feed_forward_proj"), str):  # configuration_t5.py
        named = {"gated-gelu": "gelu_new"}.get(config["feed_forward_proj"], config["feed_forward_proj"].split("-")[-1])
    return str(named or _defaults(config).activation or "silu")


def experts_per_token(config: Mapping[str, Any]) -> int:
    """Of a layer of experts, the most where layers differ; 1 where nobody says."""
    parts = (config, config.get("ffn_config"))  # DBRX's stand in a part of their own
    said = next((n for part in parts if isinstance(part, Mapping) and (n := first(part, *_EXPERTS_PER_TOKEN))), None)
    many = [n for n in (said if isinstance(said, list) else [said]) if type(n) is int and n > 0]
    return max(many, default=1)


def drops_states(config: Mapping[str, Any]) -> bool:
    """Whether the model has a dropout of its own behind attention and MLP."""
    return _drops(config, _DROPS_STATES)


def drops_inner(config: Mapping[str, Any]) -> bool:
    """And one between the MLP's matrices (modeling_t5.py, modeling_bart.py)."""
    return _drops(config, _DROPS_INNER)


def drops_scores(config: Mapping[str, Any]) -> bool:
    """And one of attention's scores."""
    return _drops(config, _DROPS_SCORES)


def _drops(config: Mapping[str, Any], names: Iterable[str]) -> bool:
    return any(isinstance(config.get(name), int | float) and config[name] > 0 for name in names)


def _defaults(config: Mapping[str, Any]) -> Defaults:
    return _facts().get(str(config.get("model_type")), Defaults())


@cache
def _facts() -> dict[str, Defaults]:
    text = Path(__file__).with_name("defaults.facts").read_text(encoding="utf-8")
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {kind: Defaults(int(many), named) for many, named, *kinds in lines for kind in kinds}
