"""A repeated layer, as far as activations depend on it: what is read off names and shapes."""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

from estimator.architecture.module import Module, Parameter
from estimator.sizes.memory.fields import experts_per_token, first, heads
from estimator.sizes.memory.norms import Norm, leaves_out, norms_of
from estimator.sizes.memory.scans import Scan, read_scan

_BLOCK = re.compile(r"^((?:[A-Za-z_]\w*\.)*?)(\d+)(?=\.|$)")
_ATTENTION = re.compile(r"att(?:entio)?n|mixer|(?:Self|EncDec)Attention", re.IGNORECASE)
_CROSS = re.compile(r"EncDecAttention|encoder_attn|cross_?att", re.IGNORECASE)  # a decoder's, on what the encoder made
_MLP = re.compile(r"mixer\.(?:.*experts\.|.*(?:up|gate|down)_proj$)")  # a layer is one thing (modeling_nemotron_h.py)
_GIVEN = re.compile(r"^\.?per_layer_(?:input_gate|projection)$")
_STATE = re.compile(r"linear_attn|mamba|\brwkv|\bssm")
_DECAYS = frozenset({"slope_rate", "time_decay"})
_SEE_ALL = frozenset({"Llama4TextExperts"})  # modeling_llama4.py
_FULL_SCORES = "e_score_correction_bias"  # a router that has it casts its input to float32 (modeling_deepseek_v3.py)
_SCALE = re.compile(r"layer_?scale|(?:^|\.)(?:ls|lambda_|gamma_)\d?(?:\.|$)", re.IGNORECASE)


class Linear(NamedTuple):
    name: str  # full
    inputs: int
    outputs: int


class Fused(NamedTuple):
    """Experts in one tensor each way."""

    name: str  # of the module that holds them
    up_elements: int
    down_elements: int
    router: str = ""  # the module that chooses among them, where it is none of the matrices
    chooses_in_float32: bool = False
    sees_all: bool = False  # each expert sees every token


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One repeated layer; widths are elements for a token."""

    attention: tuple[Linear, ...]
    mlp: tuple[Linear, ...]
    norms: tuple[Norm, ...]
    query: int
    key_value: int  # of key or value alone
    mixed: int  # of what attention gives, as wide as all values
    latent: int = 0  # of key and value together, before they are unfolded for each head (MLA)
    inner: int  # of the MLP, between its matrices
    is_gated: bool
    scales_branches: bool = False  # each by a weight for each channel (LayerScale)
    is_parallel: bool = False  # attention and MLP read the same residual
    looks_twice: bool = False  # attention with each half of the values, one less a share of the other (DiffLlama)
    experts: int = 0  # 0 where the MLP is dense
    experts_per_token: int = 1
    fused: Fused | None = None
    sinks: bool = False  # attention's scores have one more to go to
    unread: int = 0  # modules of attention that hold experts of its own
    given: tuple[Linear, ...] = ()  # around what the layer is given beside (modeling_gemma4.py)
    cross: tuple[Linear, ...] = ()  # attention on the encoder's output
    state: tuple[Linear, ...] = ()  # around a scan along the sequence, in place of attention or beside it
    scan: Scan | None = None  # None where there is none, and where it is not known
    window: int = 0  # tokens that its attention sees at most; 0: all
    tower: str = ""  # of images or sound, whose pieces it sees: what stands before its number


def has_state(members: Iterable[Module]) -> bool:
    """Mamba and linear attention shift a convolution along the sequence, and keep the state behind it; others decay."""
    members = tuple(members)
    return any(module.kind == "Conv1d" or _STATE.search(module.name) for module in members) or decays(members)


def decays(members: Iterable[Module]) -> bool:
    """Attention that is a state which decays (modeling_minimax.py, MiniMaxLightningAttention; modeling_rwkv.py)."""
    return any(item.name in _DECAYS for module in members for item in (*module.parameters, *module.buffers))


def scans(members: Collection[Module]) -> bool:
    """A state between linear layers; a stack of convolutions alone is another thing."""
    return has_state(members) and any(module.kind == "Linear" for module in members)


def is_adapted(block: Block, names: Container[str]) -> bool:
    """Whether LoRA is on one of its matrices, or on its fused experts."""
    return any(item and item.name in names for item in _parts(block))


def _parts(block: Block) -> tuple[Linear | Fused | None, ...]:
    return (*block.attention, *block.cross, *block.state, *block.mlp, *block.given, block.fused)


def on_the_tape(block: Block) -> set[str]:
    """Names of the matrices, experts and norms that a layer's tape trains where they stand."""
    routers = {block.fused.router} if block.fused else set()
    return {item.name for item in (*_parts(block), *block.norms) if item} | routers


def is_repeated(name: str) -> bool:
    """Whether a module is part of a numbered layer."""
    return layer_of(name) is not None


def layers(modules: Iterable[Module]) -> dict[str, list[Module]]:
    """The outermost numbered modules, each with what it holds."""
    found: dict[str, list[Module]] = {}
    for module in modules:
        if match := _BLOCK.match(module.name):
            found.setdefault(match[0], []).append(module)
    return found


@lru_cache(maxsize=2**16)  # one name is asked about many times while a run is planned
def layer_of(name: str) -> str | None:
    """The outermost numbered module that holds a module."""
    return match[0] if (match := _BLOCK.match(name)) else None


def stack(layer: str) -> str:
    """What stands before a layer's number."""
    return layer.rstrip("0123456789")


class _Matrices(NamedTuple):
    """A layer's matrices by what they are for."""

    attention: tuple[Linear, ...]
    cross: tuple[Linear, ...]
    state: tuple[Linear, ...]
    mlp: tuple[Linear, ...]
    given: tuple[Linear, ...]


def read_block(members: list[Module], hidden: int, config: Mapping[str, Any]) -> Block | None:
    """The layer of these modules; None where no matrix of it mixes tokens or gives `hidden` elements on."""
    scan = read_scan(members, config)
    matrices = _matrices(members, hidden, scan)
    if matrices is None:
        return None
    attention, mlp = matrices.attention, matrices.mlp
    latent = _latent(attention)
    query, key_value = _attention_widths(attention, config, hidden) if latent is None else latent[:2]
    if not attention:
        query = key_value = 0
    held = [m for m in members if m.kind == "other" and any(len(p.shape) == 3 for p in m.parameters)]
    attending = [m for m in held if _ATTENTION.search(_tail(m.name)) and not _MLP.search(f"{_tail(m.name)}.")]
    holder = next((m for m in held if m not in attending), None)
    fused = [p for p in holder.parameters if len(p.shape) == 3] if holder else []
    inner, is_gated, experts = _fused_experts(fused) if fused else _mlp(mlp, hidden)
    outside = [m for m in members if scan is None or not m.name.startswith(f"{scan.mixer}.")]
    norms = tuple(norm for norm in norms_of(outside, hidden) if attention or norm.width == hidden)
    return Block(
        **matrices._asdict(),
        scan=scan,
        norms=norms,
        query=query,
        key_value=key_value,
        mixed=query if latent is None else latent[2],
        latent=0 if latent is None else latent[3],
        inner=inner,
        is_gated=is_gated,
        scales_branches=any(_SCALE.search(f"{_tail(m.name)}.{p.name}") for m in members for p in m.parameters),
        is_parallel=bool(attention or matrices.state) and bool(mlp or fused) and _is_parallel(norms, members, config),
        sinks=any("sink" in p.name for m in members for p in m.parameters),
        unread=len(attending),
        looks_twice=any(p.name == "lambda_q1" for m in members for p in m.parameters),
        experts=experts,
        experts_per_token=experts_per_token(config) if experts else 1,
        fused=_fused(members, holder, fused, experts) if holder else None,
    )


def _matrices(members: Collection[Module], hidden: int, scan: Scan | None) -> _Matrices | None:
    """None where there is no attention and nothing else that could mix tokens gives `hidden` elements on."""
    linears = [linear(m) for m in members if m.kind in ("Linear", "Conv1D") and m.parameters]
    mixing = [item for item in linears if _ATTENTION.search(_tail(item.name))]
    state = tuple(item for item in linears if scan and item.name.startswith(f"{scan.mixer}."))
    attention = tuple(item for item in mixing if item not in state and not _MLP.search(_tail(item.name)))
    given = tuple(item for item in linears if _GIVEN.search(_tail(item.name)))
    mlp = tuple(item for item in linears if item not in attention and item not in state and item not in given)
    if scan is None and not attention and scans(members):
        state = tuple(item for item in mlp if _STATE.search(_tail(item.name)))
        mlp = tuple(item for item in mlp if item not in state)
    if not attention and not any(item.outputs == hidden for item in (*state, *mixing)):
        return None
    cross = tuple(item for item in attention if _CROSS.search(_tail(item.name)))
    own = tuple(item for item in attention if item not in cross)
    return _Matrices(own or attention, cross if own else (), state, mlp, given)


def _fused(members: Iterable[Module], holder: Module, parameters: Sequence[Parameter], experts: int) -> Fused:
    *up, down = (prod(p.shape) for p in parameters)
    return Fused(
        holder.name,
        sum(up),
        down,
        _router(members, holder, experts),
        _chooses_in_float32(members),
        holder.cls in _SEE_ALL,
    )


def _tail(name: str) -> str:
    """The name behind the block's number."""
    return _BLOCK.sub("", name)


def linear(module: Module) -> Linear:
    first, second = module.parameters[0].shape[:2]
    return Linear(module.name, *((first, second) if module.kind == "Conv1D" else (second, first)))


def _router(members: Iterable[Module], holder: Module, experts: int) -> str:
    """The module beside the experts that has a row for each."""
    beside = holder.name[: holder.name.rfind(".") + 1]
    others = (m for m in members if m.kind == "other" and m is not holder and m.name.startswith(beside))
    return next((m.name for m in others for p in m.parameters if len(p.shape) == 2 and p.shape[0] == experts), "")


def _chooses_in_float32(members: Iterable[Module]) -> bool:
    return any(p.name == _FULL_SCORES for m in members for p in (*m.parameters, *m.buffers))


def _latent(attention: Iterable[Linear]) -> tuple[int, int, int, int] | None:
    """Query, key, output and latent of multi-head latent attention (DeepseekV3Attention); None for others."""
    named = {item.name.rpartition(".")[2]: item for item in attention}
    query, up, out = named.get("q_b_proj") or named.get("q_proj"), named.get("kv_b_proj"), named.get("o_proj")
    if up is None or query is None or out is None or "kv_a_proj_with_mqa" not in named:
        return None
    return query.outputs, query.outputs, out.inputs, up.inputs


def _attention_widths(attention: Iterable[Linear], config: Mapping[str, Any], hidden: int) -> tuple[int, int]:
    """Query width, and key (or value) width: from separate matrices, or what a fused one has beside the query."""
    named = {item.name.rpartition(".")[2]: item for item in attention}
    key = next((named[n] for n in ("k_proj", "k", "key", "k_lin") if n in named), None)
    query = next((named[n] for n in ("q_proj", "q", "query", "q_lin", "q_attn") if n in named), None)
    if key is not None and query is not None:
        return query.outputs, key.outputs
    many = heads(config)
    width = many * int(first(config, "head_dim") or hidden // many or 1)
    fused = max((item for item in attention if item.inputs == hidden), key=lambda item: item.outputs, default=None)
    if fused is None or fused.outputs <= width or config.get("new_decoder_architecture"):
        return width, width  # Falcon's newer layers copy key and value for each head
    return width, min((fused.outputs - width) // 2, width)


def _fused_experts(parameters: Sequence[Parameter]) -> tuple[int, bool, int]:
    by_name = {p.name: p for p in parameters}
    down = by_name.get("down_proj") or by_name.get("w2") or parameters[-1]
    widest = max(prod(p.shape) for p in parameters)
    inner = down.shape[2] if len(down.shape) == 3 else 0
    gate_up = by_name.get("gate_up_proj")
    if gate_up is not None:
        inner = (
            max(gate_up.shape[1:]) // 2 if widest == prod(gate_up.shape) and max(gate_up.shape[1:]) % 2 == 0 else inner
        )
        inner = min(set(down.shape[1:]) & {gate_up.shape[1] // 2, gate_up.shape[2] // 2} or {inner})
    return inner, True, down.shape[0]


def _mlp(mlp: tuple[Linear, ...], hidden: int) -> tuple[int, bool, int]:
    """Inner width, gated or not, and how many experts stand one by one."""
    inner = (item for item in mlp if item.inputs and item.outputs == hidden)
    downs = [item for item in inner if item.inputs != hidden or item.name.endswith("2")]
    if not downs:
        return 0, False, 0
    width = downs[-1].inputs
    ups = sum(item.outputs // width for item in mlp if item.inputs == hidden and item.outputs in (width, 2 * width))
    experts = sum(".experts." in item.name for item in downs)
    return width, ups > max(len(downs), 1), experts


def _is_parallel(norms: Iterable[Norm], members: Iterable[Module], config: Mapping[str, Any]) -> bool:
    """As the config says, or where one norm serves both."""
    said = first(config, "use_parallel_residual", "parallel_attn")
    return bool(said) if said is not None else sum(not norm.role for norm in norms) == 1 and not leaves_out(members)
