"""Scales of attention's queries, keys and values, which compressed-tensors (0.20.0) keeps in the attention module.

`kv_cache_scheme` gives k_scale and v_scale to all attention that caches, a config group q_scale too: one for the
tensor, or one for each head, [heads, 1, 1] (`initialize_attn_qparams`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from estimator.architecture.module import Module, ModuleTree, Parameter, QuantisedLayer
from estimator.checkpoint.layer_fields import named
from estimator.errors import UnsupportedError
from estimator.sizes.memory.fields import heads, text_config

Group = Mapping[str, Any]

_KEYS_AND_VALUES = ("k_proj", "v_proj", "qkv_proj", "kv_b_proj")
_TOWER = re.compile(r"vision|visual|image|audio")  # whose attention caches nothing


def classes_of(module: Module) -> tuple[str, ...]:
    """A module's class and those that it is derived from, as far as a config may name them."""
    return tuple(dict.fromkeys((module.cls, *([] if module.kind == "other" else [module.kind]), "Module")))


def cached_attention(tree: ModuleTree) -> frozenset[str]:
    """The names of attention that caches keys and values (`is_cached_attention_module`)."""
    projected = {
        parent for parent, _, last in (m.name.rpartition(".") for m in tree.modules) if last in _KEYS_AND_VALUES
    }
    holds = (m.name for m in tree.modules if m.name in projected and "attention" in m.cls.lower())
    return frozenset(name for name in holds if not _TOWER.search(name))


def is_narrow(tree: ModuleTree, name: str, targets: Sequence[str]) -> bool:
    """Whether a target takes this module, and neither the one above it nor any below (`is_narrow_match`)."""
    above = name.rpartition(".")[0]
    near = {m.name: classes_of(m) for m in tree.modules if m.name in (name, above) or m.name.startswith(f"{name}.")}
    return any(named([target], near) == {name} for target in targets)


def caches(
    tree: ModuleTree, attention: Collection[str], scheme: Any, dtype: str
) -> Iterator[tuple[str, QuantisedLayer]]:
    """All attention that caches, with scales of keys and values where a `kv_cache_scheme` says static ones."""
    if isinstance(scheme, Mapping):
        for module in tree.modules:
            if module.name in attention and (parts := _parts(tree, scheme, "kv", dtype, zeros=False)):
                yield module.name, _with(module, parts)


def attention_layer(tree: ModuleTree, module: Module, group: Group, dtype: str, *, zeros: bool) -> QuantisedLayer:
    """Attention that a group targets. Raises UnsupportedError where the group says anything but inputs."""
    inputs = group.get("input_activations")
    if not isinstance(inputs, Mapping) or group.get("weights") or group.get("output_activations"):
        raise _refusal(f"{module.name} is attention, of which nothing but input_activations can be quantised")
    return _with(module, _parts(tree, inputs, "qkv", dtype, zeros=zeros))


def _with(module: Module, parts: tuple[Parameter, ...]) -> QuantisedLayer:
    parameters = (*module.parameters, *parts)
    return QuantisedLayer(
        scheme="compressed-tensors", cls=module.cls, parameters=parameters, is_linear=False, saved_beside=()
    )


def _parts(tree: ModuleTree, said: Group, sides: str, dtype: str, *, zeros: bool) -> tuple[Parameter, ...]:
    if said.get("dynamic", False) is not False:
        return ()
    strategy = said.get("strategy") or "tensor"
    if strategy not in ("tensor", "attn_head"):
        raise _refusal(f"attention has no static scales by {str(strategy)[:40]!r}")
    config = text_config(tree.config)
    many = {side: heads(config) for side in sides}
    if type(config.get("num_key_value_heads")) is int:
        many |= dict.fromkeys("kv", config["num_key_value_heads"])
    shapes = {side: (1,) if strategy == "tensor" else (many[side], 1, 1) for side in sides}
    scales = (Parameter(f"{side}_scale", shape, dtype) for side, shape in shapes.items())
    points = (Parameter(f"{side}_zero_point", shape, "I8", True) for side, shape in shapes.items())
    return (*scales, *(points if zeros or not said.get("symmetric", True) else ()))


def _refusal(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{what}: compressed-tensors fails to load it.",
        where="config_groups of quantization_config in config.json",
        way_out="target the projections in it, or name the model that was quantised instead",
    )
