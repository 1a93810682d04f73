"""Keys and values that a decoder keeps for each token of each sequence, in elements: read off names, shapes, config.

Latent attention (MLA) is kept compressed by vLLM (0.33.0, v1/kv_cache_interface.py, MLAAttentionSpec) and by
transformers (5.23.0, DeepseekV3Attention passes the latents to the cache). Layers that keep a state for a sequence
(Mamba, linear attention) are in layer_states.py. A decoder behind an encoder keeps keys and values of what that made
as well (cache_utils.py, EncoderDecoderCache).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from estimator.architecture.module import Module, ModuleTree
from estimator.sizes.attention_support import keeps_no_cache
from estimator.sizes.memory.blocks import decays, has_state, is_repeated, layers, stack
from estimator.sizes.memory.compressed_keys import compressed_keys
from estimator.sizes.memory.fields import first, heads, text_config
from estimator.sizes.memory.layer_states import layer_state
from estimator.sizes.memory.towers import seeing_tokens, shared_parts
from estimator.sizes.memory.windows import is_windowed, window_tokens

_OTHER_TOWER = re.compile(r"vision|visual|image|video|audio|speech(?![a-z])|protein|qformer|(?:^|\.)mtp")
_ENCODED = re.compile(r"EncDecAttention|encoder_(?:decoder_)?att|cross_?att")  # keys of what an encoder made
_NOT_KEPT = re.compile(
    f"{_OTHER_TOWER.pattern}|{_ENCODED.pattern}|cross|linear_attn|mamba|feed_forward|indexer|compressor"
)
_HASHES = re.compile(r"^(?:LSH|Local)SelfAttention$")  # keeps what its layers see instead (modeling_reformer.py)
_KEYS = ("k_proj", "key", "k_lin", "wk", "k", "key_proj", "Wk", "project_k")
_VALUES = ("v_proj", "value", "v_lin", "wv", "v", "value_proj", "Wv", "project_v")
_HEADS = re.compile(r"(?:key_value|kv)_heads$|^n_head_kv$|^multi_query_group_num$")  # fields
_FUSED = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "qkv", "W_pack", "att_proj", "wqkv")


class Kept(NamedTuple):
    """What one layer keeps of a token."""

    elements: int
    heads: int  # of keys and values; 1 where it is one latent for all
    is_windowed: bool = False  # keeps no more than the cache's window of tokens
    beyond: int = 0  # of `elements`, what it keeps of every token all the same

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
    encoded: int = 0  # for each position of what an encoder made, of all layers
    chosen_by: tuple[int, ...] = ()  # for a token, the keys by which sparse attention chooses, of each layer that does

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
        return sum(layer.on_each(gpus) - layer.beyond for layer in self.kept if layer.is_windowed)


def kv_cache(tree: ModuleTree) -> KvCache | None:
    """None for what does not generate token by token (encoders), and where of no layer keys and values or a state are
    found."""
    config = text_config(tree.config)
    masked = (tree.architecture or "").endswith("MaskedLM")
    unlike = any(_HASHES.search(module.cls) for module in tree.modules)
    if not _generates(tree) or masked or unlike:
        return None
    if keeps_no_cache(tree.architecture, bool(config.get("is_decoder"))):
        return KvCache(kept=())
    numbered = _layers(tree, looking=_has_two_stacks(tree))
    found = {n: layer for n, members in numbered.items() if (layer := _kept(members, config)) is not None}
    states = {n: state for n, members in numbered.items() if (state := layer_state(members, config)) is not None}
    if not found and not states:
        return None
    own = len(numbered) - int(config.get("num_kv_shared_layers") or 0)  # the last ones look at keys of those before
    again = int(config.get("num_hidden_layers") or 0) // len(numbered)  # each time that they run (modeling_hrm_text.py)
    windowed = {n: layer.is_windowed or is_windowed(config, n, len(numbered)) for n, layer in found.items()}
    kept = tuple(found[n]._replace(is_windowed=windowed[n]) for n in sorted(found) if n < own) * max(again, 1)
    unknown = [n for n, members in numbered.items() if n not in found and n not in states and has_state(members)]
    looks = (_kept(members, config, encoded=True) for members in numbered.values()) if _has_two_stacks(tree) else ()
    return KvCache(
        kept=kept,
        window=window_tokens(config) if any(layer.is_windowed for layer in kept) else None,
        states=len(states) + len(unknown),
        uncounted=len(unknown),
        state_elements=sum(state.elements for state in states.values()),
        shifted_elements=sum(state.shifted for state in states.values()) + sum(map(_held_back, numbered.values())),
        encoded=sum(look.elements for look in looks if look is not None),
        chosen_by=tuple(width for members in numbered.values() for width in _chosen_by(members)),
    )


def _generates(tree: ModuleTree) -> bool:
    """Heads that get_output_embeddings() does not answer with (modeling_dia.py, modeling_speecht5.py, modeling_blip.py)
    are told by the class's name, where it is known what the decoder is."""
    says = (tree.architecture or "").endswith(("ForConditionalGeneration", "ForTextToSpeech"))
    return tree.output_embedding is not None or (says and _has_two_stacks(tree))


def _has_two_stacks(tree: ModuleTree) -> bool:
    """An encoder, and layers that look at what it made; towers of other senses apart."""
    names = [module.name for module in tree.modules if not _OTHER_TOWER.search(module.name)]
    looks = bool(tree.config.get("is_encoder_decoder")) or any(map(_ENCODED.search, names))
    return looks and any("encoder" in name.split(".") for name in names)


def _layers(tree: ModuleTree, *, looking: bool) -> dict[int, list[Module]]:
    """Modules of each numbered layer of the stack that sees tokens: the nearest to what embeds them, of these the one
    with the most layers. looking: of those stacks that look at what an encoder made."""
    repeated = layers(tree.modules)
    outside = [module for module in tree.modules if not is_repeated(module.name)]
    seeing = seeing_tokens(repeated, outside, tree.input_embedding)
    stacks: dict[str, dict[int, list[Module]]] = {}
    for name, members in repeated.items():
        before = stack(name)
        holding = [module for module in members if module.parameters or module.buffers]
        if looking and not any(_ENCODED.search(module.name) for module in holding):
            continue
        if name in seeing and holding and not _OTHER_TOWER.search(before):
            stacks.setdefault(before, {})[int(name[len(before) :])] = holding
    near = {before: shared_parts(before, tree.input_embedding or "") for before in stacks}
    return stacks[max(stacks, key=lambda before: (near[before], len(stacks[before])))] if stacks else {}


def _kept(members: list[Module], config: Mapping[str, Any], *, encoded: bool = False) -> Kept | None:
    """Of keys and values for a token, of all attention in the layer (LongCat Flash has two); None where none keeps.

    encoded: of keys and values of what an encoder made.
    """
    if compressed := compressed_keys(members):
        elements = compressed.windowed + compressed.beyond
        return Kept(elements, 1, is_windowed=True, beyond=compressed.beyond)
    states = _state_holders(members)
    holders: dict[str, dict[str, int]] = {}
    for module in members:
        for holder, name, width in _outputs(module, encoded=encoded):
            if holder not in states:
                holders.setdefault(holder, {})[name] = width
    each = [kept for widths in holders.values() if (kept := _of_attention(widths, config)) is not None]
    return Kept(sum(kept.elements for kept in each), min(kept.heads for kept in each)) if each else None


def _of_attention(widths: Mapping[str, int], config: Mapping[str, Any]) -> Kept | None:
    """widths: of what its matrices make, by their names."""
    if "kv_b_proj" in widths and "kv_a_proj_with_mqa" in widths:  # latent: kv_lora_rank and what turns
        return Kept(widths["kv_a_proj_with_mqa"], 1)
    key, value, fused = (first(widths, *names) for names in (_KEYS, _VALUES, _FUSED))
    value = value or sum(widths[name] for name in widths if name.startswith("v_proj_")) or None  # in halves (Zaya)
    value = key if value is None and config.get("attention_k_eq_v") else value
    if key is not None and value is not None:
        return Kept(key + value, _heads_of(key, config))
    both = widths.get("kv_proj") if fused is None else fused - _query(config, fused)
    return None if both is None else Kept(both, _heads_of(both // 2, config))


def _held_back(members: list[Module]) -> int:
    compressed = compressed_keys(members)
    return compressed.held_back if compressed else 0


def _chosen_by(members: list[Module]) -> Iterator[int]:
    """Width of the keys by which sparse attention chooses: those of its indexer (modeling_deepseek_v32.py)."""
    compressed = compressed_keys(members)
    if compressed and compressed.chosen_by:
        yield compressed.chosen_by
    for module in members:
        if module.name.endswith("indexer.wk") and module.parameters:
            yield module.parameters[0].shape[0]


def _state_holders(members: list[Module]) -> set[str]:
    """Modules that keep a state of keys and values, and not themselves (Kimi Delta Attention, lightning attention).

    Convolutions without a decay beside them are attention's own (modeling_zaya.py)."""
    shifted = {module.name.rpartition(".")[0] for module in members if module.kind == "Conv1d"}
    forgets = [f"{module.name}." for module in members if any(p.name == "A_log" for p in module.parameters)]
    states = {holder for holder in shifted if any(name.startswith(f"{holder}.") for name in forgets)}
    return states | {module.name for module in members if decays([module])}


def _outputs(module: Module, *, encoded: bool) -> Iterator[tuple[str, str, int]]:
    """What holds a matrix, its name, and the width of what it makes."""
    name = module.name.removesuffix(".linear")  # a layer around it (modeling_moshi.py)
    holder, _, last = name.rpartition(".")
    keeps = _ENCODED.search(holder) is not None if encoded else not _NOT_KEPT.search(holder)
    if keeps and module.kind in ("Linear", "Conv1D"):
        yield holder, last, module.parameters[0].shape[1 if module.kind == "Conv1D" else 0]


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
