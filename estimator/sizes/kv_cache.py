"""Keys and values that a decoder keeps for each token of each sequence, in elements: read off names, shapes, config.

Latent attention (MLA) is kept compressed by vLLM (0.33.0, v1/kv_cache_interface.py, MLAAttentionSpec) and by
transformers (5.23.0, DeepseekV3Attention passes the latents to the cache). Layers that keep a state for a sequence
(Mamba, linear attention) keep what their scan leaves behind, and the last tokens that their convolution sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from estimator.architecture.module import Module, ModuleTree
from estimator.sizes.blocks import decays, has_state
from estimator.sizes.fields import first, heads, text_config
from estimator.sizes.scans import read_scan
from estimator.sizes.windows import is_windowed, window_tokens

_LAYER = re.compile(r"^((?:[A-Za-z_]\w*\.)*?)(\d+)\.(.+)$")
_OTHER_TOWER = re.compile(r"vision|visual|image|audio|speech|protein|(?:^|\.)mtp|linear_attn|mamba|cross")
_KEYS = ("k_proj", "key", "k_lin", "wk", "k")
_VALUES = ("v_proj", "value", "v_lin", "wv", "v")
_HEADS = re.compile(r"(?:key_value|kv)_heads$|^n_head_kv$|^multi_query_group_num$")  # fields
_FUSED = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "qkv", "W_pack", "att_proj", "wqkv")


class Kept(NamedTuple):
    """What one layer keeps of a token."""

    elements: int
    heads: int  # of keys and values; 1 where it is one latent for all
    is_windowed: bool = False  # keeps no more than the cache's window of tokens

    def on_each(self, gpus: int) -> int:
        """Elements where heads are shared out; with fewer heads than GPUs each has one whole.

        vllm 0.33.0, config/model.py, get_num_kv_heads.
        """
        return -(-self.elements // min(gpus, self.heads))


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCache:
    """What a decoder keeps of what it has seen, in elements."""

    kept: tuple[Kept, ...]  # by each layer that keeps keys and values
    window: int | None = None
    states: int = 0  # layers with a state for each sequence, in place of keys and values or beside them
    uncounted: int = 0  # of `states`: of a kind whose size is not known
    state_elements: int = 0  # for a sequence, of the layers that are counted
    shifted_elements: int = 0  # what their convolutions see, with the token at hand
    has_indexer: bool = False  # sparse attention keeps keys of its own to choose by, which are not counted

    @property
    def layers(self) -> int:
        return len(self.kept)

    @property
    def windowed_layers(self) -> int:
        return sum(layer.is_windowed for layer in self.kept)

    def elements(self, gpus: int = 1) -> int:
        """For a token, of all layers, on each GPU."""
        return sum(layer.on_each(gpus) for layer in self.kept)

    def elements_windowed(self, gpus: int = 1) -> int:
        """The same, of layers that keep no more than a window."""
        return sum(layer.on_each(gpus) for layer in self.kept if layer.is_windowed)


def kv_cache(tree: ModuleTree) -> KvCache | None:
    """None for what does not generate token by token from one stack (encoders, encoder-decoders), and where of no layer
    keys and values or a state are found."""
    config = text_config(tree.config)
    masked = (tree.architecture or "").endswith("MaskedLM")
    if tree.output_embedding is None or masked or _has_two_stacks(tree):
        return None
    layers = _layers(tree)
    found = {n: layer for n, members in layers.items() if (layer := _kept(members, config)) is not None}
    scans = {number: scan for number, members in layers.items() if (scan := read_scan(members, config)) is not None}
    if not found and not scans:
        return None
    own = sorted(found)[: len(found) - int(config.get("num_kv_shared_layers") or 0)]
    again = int(config.get("num_hidden_layers") or 0) // len(layers)  # each time that they run (modeling_hrm_text.py)
    kept = tuple(found[n]._replace(is_windowed=is_windowed(config, n, len(layers))) for n in own) * max(again, 1)
    unknown = [n for n, members in layers.items() if n not in found and n not in scans and has_state(members)]
    return KvCache(
        kept=kept,
        window=window_tokens(config) if any(layer.is_windowed for layer in kept) else None,
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


def _kept(members: list[Module], config: Mapping[str, Any]) -> Kept | None:
    """Of key and value for a token; None where the layer has neither."""
    if config.get("kv_lora_rank") and any(module.name.endswith("kv_b_proj") for module in members):
        return Kept(int(config["kv_lora_rank"]) + int(config.get("qk_rope_head_dim") or 0), 1)
    holders = _state_holders(members)
    outputs = {n: size for m in members if m.name.rpartition(".")[0] not in holders for n, size in _outputs(m)}
    key = next((outputs[name] for name in _KEYS if name in outputs), None)
    if key is not None:
        return Kept(key + next((outputs[name] for name in _VALUES if name in outputs), key), _heads_of(key, config))
    fused = next((outputs[name] for name in _FUSED if name in outputs), None)
    if fused is None:
        return None
    both = fused - _query(config, fused)
    return Kept(both, _heads_of(both // 2, config))


def _state_holders(members: list[Module]) -> set[str]:
    """Modules that keep a state of keys and values, and not themselves (Kimi Delta Attention, lightning attention)."""
    shifted = {module.name.rpartition(".")[0] for module in members if module.kind == "Conv1d"}
    return shifted | {module.name for module in members if decays([module])}


def _outputs(module: Module) -> Iterator[tuple[str, int]]:
    if module.kind in ("Linear", "Conv1D") and not _OTHER_TOWER.search(module.name):
        yield module.name.rpartition(".")[2], module.parameters[0].shape[1 if module.kind == "Conv1D" else 0]


def _query(config: Mapping[str, Any], fused: int) -> int:
    """Width of the query inside a fused matrix; a third where the config does not tell."""
    width = _usual_head(config)
    return heads(config) * int(config.get("head_dim") or width) if width else fused // 3


def _heads_of(width: int, config: Mapping[str, Any]) -> int:
    """Heads of a key of this width: those that the config counts and that have a width it names, else as many as fit.

    Layers of one model may differ in both (Gemma 4's global_head_dim, MiMo V2's swa_head_dim).
    """
    sizes = {n: v for n, v in config.items() if type(v) is int and v > 0}
    usual = {_usual_head(config)}
    widths = {v for n, v in sizes.items() if n.endswith("head_dim")} or usual
    # What is named may be another layer's: OLMo Hybrid names linear attention's alone.
    counted = [n for n in (v for name, v in sizes.items() if _HEADS.search(name)) if width / n in widths | usual]
    return min(counted or [width // each for each in widths if each and width % each == 0] or [1])


def _usual_head(config: Mapping[str, Any]) -> int:
    """Width of a head where the config names none; 0 where it does not tell."""
    return int(first(config, "hidden_size", "n_embd", "d_model") or 0) // heads(config)
