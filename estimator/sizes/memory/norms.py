"""Norms of a layer, and of what stands around the layers: read off names, classes and shapes."""

import re
from collections.abc import Iterable
from itertools import takewhile
from typing import NamedTuple

from estimator.architecture.module import Module

_LATENT_NORM = re.compile(r"(?:q|kv)_a_(?:layer)?norm$")
_WIDE_NORMS = frozenset({"OlmoLayerNorm"})  # layer_norm of float32, without a weight (modeling_olmo.py)
_PLAIN_NORM = re.compile(r"(?:RMS|L2)Norm$")  # may have no weight (modeling_nanochat.py, modeling_llama4.py)
_INSIDE_ATTENTION = re.compile(r"(qk|q|k|v)(?:uery|ey|alue)?_?(?:layer)?_?norm")
_CENTRED_NORM = re.compile(r"(?:Cohere|Deberta)\w*LayerNorm$")  # LayerNorm written in Python (modeling_cohere.py)
_NORM = re.compile(r"norm|(?:^|_)ln(?:_|\d|$)|layernorm", re.IGNORECASE)
_EMBEDDED_NORM = re.compile(
    r"embed\w*[._]?(?:layer_?|rms_?)?norm|(?:layer)?norm_embed|pre_la?ye?rnorm|(?:^|\.)ln_pre$", re.IGNORECASE
)
# What attention gives, or the MLP's inner, is normed before the last matrix (modeling_bitnet.py, modeling_kosmos2.py)
_BEHIND = {"attn_sub_norm": "m", "inner_attn_ln": "m", "ffn_sub_norm": "i", "ffn_layernorm": "i"}


class Norm(NamedTuple):
    width: int
    kind: str  # "torch" (its own layer_norm), "wide" (the same on float32), "rms", "t5" or "centred" (steps in float32)
    # Inside attention: "q", "k" or "v" of query, key or value, "qk" of both, "a" of a latent, "m" of what it gives; "i"
    # between the MLP's matrices; else ""
    role: str = ""
    name: str = ""  # full; "" where it is told from others


def leaves_out(members: Iterable[Module]) -> bool:
    """Whether an identity stands where other layers have a norm (modeling_modernbert.py)."""
    return any(m.cls == "Identity" and _NORM.search(m.name.rpartition(".")[2]) for m in members)


def norms_of(members: list[Module], hidden: int) -> Iterable[Norm]:
    holders = {module.name.rpartition(".")[0] for module in members}
    for module in members:
        last = module.name.rpartition(".")[2]
        is_norm = _NORM.search(module.cls) or _NORM.search(last)
        role = _INSIDE_ATTENTION.match(last)
        inside = _BEHIND.get(last) or ("a" if _LATENT_NORM.match(last) else role[1] if role else "")
        if is_norm and not module.parameters and module.cls in _WIDE_NORMS:
            yield Norm(hidden, "wide", "", module.name)
        elif not module.parameters and _PLAIN_NORM.search(module.cls) and module.name not in holders:
            yield Norm(hidden, "rms", inside, module.name)
        shape = module.parameters[0].shape if is_norm and module.parameters else ()
        if len(shape) == 1 and shape[0]:
            yield Norm(shape[0], _norm_kind(module), inside, module.name)


def _norm_kind(module: Module) -> str:
    """torch's layer_norm has a bias, or its own class's name; what is written in Python mostly has not."""
    if _CENTRED_NORM.match(module.cls):
        return "centred"
    if module.cls.endswith("T5LayerNorm"):
        return "t5"
    return "torch" if module.cls == "LayerNorm" or len(module.parameters) > 1 else "rms"


def norms_sums(outside: Iterable[Module], repeated: Iterable[str], hidden: int) -> bool:
    """Whether the model that holds the layers has a norm behind the embeddings, and none behind the layers."""
    model = next(iter(repeated), "").partition(".")[0]
    inside = [m for m in outside if m.name.partition(".")[0] == model] or outside
    return outer_norms(inside, hidden)[0] > 0 == outer_norms(inside, hidden)[1]


def outer_norms(outside: Iterable[Module], hidden: int) -> tuple[int, int]:
    """Tensors kept behind embeddings, one for each norm there; a norm behind the layers that has no weight norms
    embeddings too, in float32, and keeps them beside (modeling_nanochat.py). And the norms behind the layers."""
    outside = list(outside)
    names = _norms_outside(outside, hidden)
    embedded = sum(_is_embedded(name, outside) for name in names)
    plain = sum(module.name in names and not module.parameters and module.kind == "other" for module in outside)
    return embedded + 3 * plain, len(names) - embedded


def _norms_outside(outside: Iterable[Module], hidden: int) -> list[str]:
    return [m.name for m in outside if any(norm.width == hidden for norm in norms_of([m], hidden))]


def final_norm(outside: Iterable[Module], hidden: int, layer: str) -> str:
    """The norm behind this layer, the last: beside the layers, or beside what holds them."""
    outside = list(outside)
    behind = (name for name in _norms_outside(outside, hidden) if not _is_embedded(name, outside))
    return next((n for n in reversed([*behind]) if layer.startswith(n[: n.rfind(".") + 1])), "")


def _is_embedded(name: str, outside: Iterable[Module]) -> bool:
    """By its name, but where the layers stand before it (modeling_lfm2.py, embedding_norm)."""
    holder, _, last = name.rpartition(".")
    before = takewhile(lambda module: module.name != name, outside) if last.startswith("embed") else ()
    follows = any(m.cls == "ModuleList" and m.name.rpartition(".")[0] == holder for m in before)
    return _EMBEDDED_NORM.search(name) is not None and not follows
