"""What compressed-tensors has stored apart, for a class that joins it as it loads: experts one by one, above all.

transformers 5.23.0 (integrations/compressed_tensors.py, CompressedTensorsDequantize) unpacks them as it loads, by the
config group that names experts, else by the first of a class, else by the first. Of 8-bit floats it multiplies weights
that have scales with these, of all else it reads `weight_packed` alone; where nothing comes of it, loading fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from estimator.architecture.module import ModuleTree
from estimator.architecture.stored_names import gathered_weights
from estimator.checkpoint.checkpoint import Checkpoint, stacks_of
from estimator.errors import UnsupportedError

_EXPERTS = ".experts."
Fields = Mapping[str, Any]
Shape = tuple[int, ...]


def check_compressed_experts(checkpoint: Checkpoint, fields: Fields) -> None:
    """Raises UnsupportedError where transformers fails to fuse the experts. checkpoint: as stored."""
    stored = {(s.before, s.after): s.kind.shape for s in stacks_of(checkpoint.tensors) if s.before.endswith(_EXPERTS)}
    weights = _scheme(fields).get("weights") or {}
    floats = weights.get("type") == "float" and weights.get("num_bits", 8) == 8
    for (before, after), shape in stored.items():
        if not after.endswith(".weight"):
            continue
        scales = stored.get((before, f"{after}_scale"))
        if not floats:
            raise _refusal(f"{before}*{after} is not packed, as its config group has experts")
        if scales is not None and not _spread(scales, shape):
            raise _refusal(f"{before}*{after} has its scales in blocks")


def check_joined(tree: ModuleTree, layers: Iterable[str], checkpoint: Checkpoint, fields: Fields) -> None:
    """Raises UnsupportedError for plain weights that the class joins in a module with no scales (OLMo hybrid's conv1d).

    layers: the modules that have scales. `update_weight_conversions`: these weights are unpacked as experts are.
    """
    weights = _scheme(fields).get("weights") or {}
    if weights.get("type") == "float" and weights.get("num_bits", 8) == 8:
        return
    plain = [n for n in checkpoint.tensors if n.endswith(".weight") and f"{n}_scale" not in checkpoint.tensors]
    with_scales = {f"{name}.weight" for name in layers}
    for name, made in gathered_weights(tree, plain).items():
        if made not in with_scales and _EXPERTS not in name:
            raise UnsupportedError(
                f"{name} is not packed, and transformers 5.23 unpacks it to make {made}: it fails.",
                where="quantization_config in config.json",
                way_out="name the model that was quantised instead",
            )


def _scheme(fields: Fields) -> Fields:
    """`get_experts_scheme`."""
    groups = [group for group in (fields.get("config_groups") or {}).values() if isinstance(group, Mapping)]
    targets = [group.get("targets") or () for group in groups]
    named = (group for group, own in zip(groups, targets, strict=True) if any(_names_experts(one) for one in own))
    by_class = (g for g, own in zip(groups, targets, strict=True) if any(not one.startswith("re:") for one in own))
    return next(named, None) or next(by_class, None) or next(iter(groups), {})


def _names_experts(target: str) -> bool:
    return target.startswith("re:") and "experts" in target


def _spread(scales: Shape, shape: Shape) -> bool:
    """Whether torch broadcasts the scales over the weight."""
    return all(one in (1, other) for one, other in zip(reversed(scales), reversed(shape), strict=False))


def _refusal(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{what}: transformers 5.23 fails to fuse these experts as it loads them.",
        where="quantization_config in config.json",
        way_out="name the model that was quantised instead",
    )
