"""Run-time names and shapes of an unknown architecture: as stored, old names renewed, experts fused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from estimator.architecture.load import Loaded
from estimator.architecture.rename import natural_key
from estimator.checkpoint.checkpoint import Tensor

_EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj|w1|w2|w3)\.weight")
_ROLES = {"gate_proj": "gate", "w1": "gate", "up_proj": "up", "w3": "up", "down_proj": "down", "w2": "down"}


def run_time_parameters(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Loaded]:
    """By run-time name. Code that a repository brings itself (`auto_map`) keeps experts apart; transformers fuses."""
    found: dict[str, Loaded] = {}
    experts: dict[str, dict[str, list[Tensor]]] = {}
    fuse = "auto_map" not in config
    for tensor in sorted(tensors.values(), key=lambda tensor: natural_key(tensor.name)) if fuse else tensors.values():
        match = _EXPERT.fullmatch(tensor.name) if fuse else None
        if match is None:
            found[_renewed(tensor.name)] = Loaded(tensor.shape, tensor.dtype, (tensor.name,))
        else:
            owner = match[1].replace("block_sparse_moe", "mlp")
            experts.setdefault(owner, {}).setdefault(_ROLES[match[3]], []).append(tensor)
    for owner, roles in experts.items():
        found.update(_fused(owner, roles))
    return found


def _renewed(name: str) -> str:
    if name.endswith("LayerNorm.gamma"):
        return f"{name.removesuffix('gamma')}weight"
    if name.endswith("LayerNorm.beta"):
        return f"{name.removesuffix('beta')}bias"
    if name.endswith((".weight_g", ".weight_v")):
        return f"{name[:-9]}.parametrizations.weight.original{int(name.endswith('v'))}"
    return name.replace("block_sparse_moe.", "mlp.")


def _fused(owner: str, roles: Mapping[str, list[Tensor]]) -> dict[str, Loaded]:
    found = {}
    if "gate" in roles and "up" in roles:
        both = roles["gate"] + roles["up"]
        rows, columns = roles["gate"][0].shape
        shape = (len(roles["gate"]), rows + roles["up"][0].shape[0], columns)
        found[f"{owner}.gate_up_proj"] = Loaded(shape, both[0].dtype, tuple(tensor.name for tensor in both))
    elif "up" in roles:
        found[f"{owner}.up_proj"] = _stacked(roles["up"])
    if "down" in roles:
        found[f"{owner}.down_proj"] = _stacked(roles["down"])
    return found


def _stacked(tensors: list[Tensor]) -> Loaded:
    return Loaded((len(tensors), *tensors[0].shape), tensors[0].dtype, tuple(tensor.name for tensor in tensors))
