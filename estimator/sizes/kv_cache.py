"""Keys and values that a decoder keeps for each token of each sequence, in elements: read off names, shapes, config.

Latent attention (MLA) is kept compressed by vLLM (0.33.0, v1/kv_cache_interface.py, MLAAttentionSpec) and by
transformers (5.23.0, DeepseekV3Attention passes the latents to the cache). Layers that keep a state for a sequence
(Mamba, linear attention) keep what their scan leaves behind, and the last tokens that their convolution sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from estimator.architecture.module import Module, ModuleTree
from estimator.sizes.blocks import decays, has_state
from estimator.sizes.fields import text_config
from estimator.sizes.scans import read_scan
from estimator.sizes.windows import is_windowed, window_tokens

_LAYER = re.compile(r"^((?:[A-Za-z_]\w*\.)*?)(\d+)\.(.+)$")
_OTHER_TOWER = re.compile(r"vision|visual|image|audio|speech|(?:^|\.)mtp|linear_attn|mamba|cross")
_KEYS = ("k_proj", "key", "k_lin", "wk", "k")
_VALUES = ("v_proj", "value", "v_lin", "wv", "v")
_FUSED = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "qkv", "W_pack", "att_proj", "wqkv")


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCache:
    """What a decoder keeps of what it has seen, in elements."""

    layers: int  # that keep keys and values
    elements: int  # for a token, all layers
    is_latent: bool = False  # what is kept is one latent for all heads
    windowed_layers: int = 0  # of `layers`: keep no more than `window` tokens
    window: int | None = None
    states: int = 0  # layers with a state for each sequence, in place of keys and values or beside them
    uncounted: int = 0  # of `states`: of a kind whose size is not known
    state_elements: int = 0  # for a sequence, of the layers that are counted
    shifted_elements: int = 0  # what their convolutions see, with the token at hand
    has_indexer: bool = False  # sparse attention keeps keys of its own to choose by, which are not counted


def kv_cache(tree: ModuleTree) -> KvCache | None:
    """None for what does not generate token by token from one stack (encoders, encoder-decoders), and where no layer's
    keys and values are found."""
    config = text_config(tree.config)
    masked = (tree.architecture or "").endswith("MaskedLM")
    if tree.output_embedding is None or masked or _has_two_stacks(tree):
        return None
    layers = _layers(tree)
    widths = {number: width for number, members in layers.items() if (width := _width(members, config)) is not None}
    if not widths:
        return None
    kept = sorted(widths)[: len(widths) - int(config.get("num_kv_shared_layers") or 0)]
    scans = {number: scan for number, members in layers.items() if (scan := read_scan(members, config)) is not None}
    unknown = [n for n, members in layers.items() if n not in widths and n not in scans and has_state(members)]
    windowed = [number for number in kept if is_windowed(config, number, len(layers))]
    return KvCache(
        layers=len(kept),
        elements=sum(widths[number] for number in kept),
        is_latent=bool(config.get("kv_lora_rank")),
        windowed_layers=len(windowed),
        window=window_tokens(config) if windowed else None,
        states=len(scans) + len(unknown),
        uncounted=len(unknown),
        state_elements=sum(scan.inner * scan.state for scan in scans.values()),
        shifted_elements=sum(scan.convolved * scan.kernel for scan in scans.values()),
        has_indexer=config.get("index_head_dim") is not None,
    )


def _has_two_stacks(tree: ModuleTree) -> bool:
    """An encoder beside the decoder, towers of other senses apart; the config's own word is often a class default."""
    parts = {part for m in tree.modules if not _OTHER_TOWER.search(m.name) for part in m.name.split(".")}
    return bool(tree.config.get("is_encoder_decoder")) or {"encoder", "decoder"} <= parts


def _layers(tree: ModuleTree) -> dict[int, list[Module]]:
    """Modules of each numbered layer of the stack that has the most layers."""
    stacks: dict[str, dict[int, list[Module]]] = {}
    for module in tree.modules:
        match = _LAYER.match(module.name)
        if match and (module.parameters or module.buffers) and not _OTHER_TOWER.search(match[1]):
            stacks.setdefault(match[1], {}).setdefault(int(match[2]), []).append(module)
    return max(stacks.values(), key=len, default={})


def _width(members: list[Module], config: Mapping[str, Any]) -> int | None:
    """Elements of key and value for a token; None where the layer has neither."""
    if config.get("kv_lora_rank") and any(module.name.endswith("kv_b_proj") for module in members):
        return int(config["kv_lora_rank"]) + int(config.get("qk_rope_head_dim") or 0)
    holders = _state_holders(members)
    outputs = {n: size for m in members if m.name.rpartition(".")[0] not in holders for n, size in _outputs(m)}
    key = next((outputs[name] for name in _KEYS if name in outputs), None)
    if key is not None:
        return key + next((outputs[name] for name in _VALUES if name in outputs), key)
    fused = next((outputs[name] for name in _FUSED if name in outputs), None)
    return None if fused is None else fused - _query(config, fused)


def _state_holders(members: list[Module]) -> set[str]:
    """Modules that keep a state of keys and values, and not themselves (Kimi Delta Attention, lightning attention)."""
    shifted = {module.name.rpartition(".")[0] for module in members if module.kind == "Conv1d"}
    return shifted | {module.name for module in members if decays([module])}


def _outputs(module: Module) -> Iterator[tuple[str, int]]:
    if module.kind in ("Linear", "Conv1D") and not _OTHER_TOWER.search(module.name):
        yield module.name.rpartition(".")[2], module.parameters[0].shape[1 if module.kind == "Conv1D" else 0]


def _query(config: Mapping[str, Any], fused: int) -> int:
    """Width of the query inside a fused matrix; a third where the config does not tell."""
    heads = next((config[n] for n in ("num_attention_heads", "n_head", "num_heads", "n_heads") if config.get(n)), None)
    hidden = next((config[n] for n in ("hidden_size", "n_embd", "d_model") if config.get(n)), None)
    if not heads or not hidden:
        return fused // 3
    return int(heads) * int(config.get("head_dim") or int(hidden) // int(heads))
