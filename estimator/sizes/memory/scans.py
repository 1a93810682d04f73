"""Scans along the sequence, in place of attention or beside it: what is read off names and shapes.

mamba    A_log [channels, state]: a state for each channel (Mamba, Jamba)
mamba2   A_log [heads] and D [heads]: one for each head, chunk by chunk (Mamba-2, Bamba, Falcon-H1, Nemotron-H)
delta    A_log [heads] alone: the gated delta rule, chunk by chunk (Qwen3-Next and its kin)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from estimator.architecture.module import Module
from estimator.sizes.memory.fields import first

_STATES = {"mamba2": ("ssm_state_size", "state_size", "mamba_d_state"), "delta": ("linear_key_head_dim",)}
_CHUNK = {"mamba2": 256, "delta": 64}  # where config.json names none; no class has more


class Scan(NamedTuple):
    """Widths are elements for a token, of all heads together."""

    kind: str  # "mamba" | "mamba2" | "delta" | "conv"
    mixer: str  # the module that holds it
    inner: int  # what goes in as value and comes out
    convolved: int  # channels of the convolution before it
    heads: int
    state: int  # of a channel, or of each of a head's channels
    chunk: int  # tokens
    kernel: int  # tokens that the convolution sees
    norms: bool = False  # what comes out is normed with its gate


def read_scan(members: list[Module], config: Mapping[str, Any]) -> Scan | None:
    """None where the layer has none, several, or one of another kind."""
    convolutions = [m for m in members if m.kind == "Conv1d" and m.parameters]
    mixer = convolutions[0].name.rpartition(".")[0] if len(convolutions) == 1 else ""
    matrices = {m.name.removeprefix(f"{mixer}."): m.parameters[0].shape for m in members if _is_linear(m)}
    into, out = matrices.get("in_proj"), matrices.get("out_proj")
    held = {p.name: tuple(p.shape) for m in members if m.name == mixer for p in m.parameters}
    if not mixer or out is None or any(m.name != mixer and _has_decay(m) for m in members):
        return None
    channels, *_, kernel = convolutions[0].parameters[0].shape
    scan = Scan("conv", mixer, out[1], channels, 0, 0, 1, kernel)
    decay = held.get("A_log")
    if decay is None:
        return scan if into is not None and into[0] == 3 * out[1] == 3 * scan.convolved else None
    if len(decay) == 2:
        return scan._replace(kind="mamba", heads=scan.inner, state=decay[1])
    kind = "mamba2" if "D" in held else "delta"
    state = _state(config, kind)
    if len(decay) != 1 or state is None:
        return None
    norms = any(m.name == f"{mixer}.norm" and m.parameters for m in members)
    return scan._replace(kind=kind, heads=decay[0], state=state, chunk=_chunk(config, kind), norms=norms)


def _is_linear(module: Module) -> bool:
    return module.kind == "Linear" and bool(module.parameters)


def _has_decay(module: Module) -> bool:
    return any(p.name == "A_log" for p in module.parameters)


def _chunk(config: Mapping[str, Any], kind: str) -> int:
    """That of the delta rule is fixed (torch_chunk_gated_delta_rule)."""
    said = first(config, "chunk_size", "mamba_chunk_size") if kind == "mamba2" else None
    return said if type(said) is int and said > 0 else _CHUNK[kind]


def _state(config: Mapping[str, Any], kind: str) -> int | None:
    said = first(config, *_STATES[kind])
    return said if type(said) is int and said > 0 else None
