"""Layers of bitsandbytes as their file fills them (transformers 5.23.0, integrations/bitsandbytes.py).

weight and its state    deserialised; what lies beside 4-bit weights is kept as it is: its text names the dtype from
                        which they were quantised, and an offset in so many digits
a weight by itself      taken as it is, into a layer that cannot run; what the class's own converters make is cast to
                        the dtype that the layer was to hold
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple

from estimator.architecture.module import Module, ModuleTree, Parameter, QuantisedLayer
from estimator.architecture.stored_names import converted_weights, run_time_names
from estimator.checkpoint.checkpoint import Checkpoint
from estimator.checkpoint.packed_layouts import LAYOUTS
from estimator.dtypes import BITS, stated_dtype
from estimator.lora.closest import listed
from estimator.notes import Note
from estimator.sizes.bitsandbytes import OFFSET_BYTES, STATE_TEXT, unquantised

State = Mapping[str, tuple[Parameter, ...]]  # what lies beside a weight, by the weight's name


class _Stored(NamedTuple):
    state: State
    alone: frozenset[str] = frozenset()  # weights without any
    made: Mapping[str, str] = {}  # of these, what the class's converters make, and the first that is made along with it


def as_the_file_has_them(
    layers: Mapping[str, QuantisedLayer], tree: ModuleTree, checkpoint: Checkpoint
) -> tuple[dict[str, QuantisedLayer], tuple[Note, ...]]:
    """The layers that are filled so, and a note where weights are plain; `layers`: one scheme's, at least one."""
    scheme = next(iter(layers.values())).scheme
    stored = _stored(layers, tree, checkpoint, scheme)
    modules = {module.name: module for module in tree.modules} if stored.alone else {}
    filled, plain = {}, []
    for name, layer in layers.items():
        weight = f"{name}.weight"
        if weight in stored.alone and weight not in stored.state:
            plain.append(name)
            filled[name] = unquantised(layer, _plain(modules[name], layers, stored))
        elif scheme == "bitsandbytes_4bit":
            filled[name] = _with_state(layer, stored.state.get(weight), stated_dtype(tree.config))
        else:
            filled[name] = layer
    return {**filled, **dict(_cast_along(modules, layers, stored))}, tuple(_notes(plain))


def _stored(layers: Mapping[str, QuantisedLayer], tree: ModuleTree, checkpoint: Checkpoint, scheme: str) -> _Stored:
    """By run-time names; weights are looked at only where one of the layers has no state."""
    state: dict[str, tuple[Parameter, ...]] = {}
    parts = [part for part in LAYOUTS[scheme].parts if part != ".weight"]
    for name, tensor in checkpoint.tensors.items():
        for part in parts:
            if name.endswith(part):
                weight = name.removesuffix(part) + ".weight"
                state[weight] = (*state.get(weight, ()), Parameter(part[1:], tensor.shape, tensor.dtype))
    if all(f"{name}.weight" in state for name in layers):
        return _Stored(state)
    weights = [name for name in checkpoint.tensors if name.endswith("weight") and name not in state]
    names, made = run_time_names(tree.config, tree, [*state, *weights]), converted_weights(tree, weights)
    return _Stored(
        state={names[name]: own for name, own in state.items()},
        alone=frozenset(made).union(names[name] for name in weights),
        made=made,
    )


def _with_state(layer: QuantisedLayer, state: Sequence[Parameter] | None, dtype: str | None) -> QuantisedLayer:
    """The state is unpacked as it lies there, whatever config.json says: all but the text, and the offset in that.

    dtype: config.json's, in which the model was when its weights were quantised; the text names it.
    """
    if state is None:
        return layer._replace(saved_beside=None)
    held = [part for part in state if not part.name.startswith(STATE_TEXT)]
    offset = OFFSET_BYTES if any(part.name == "weight.nested_absmax" for part in held) else 0
    state_bytes = offset + sum(prod(part.shape) * BITS[part.dtype] // 8 for part in held)
    unpacked = dtype or layer.unpacked_dtype
    return layer._replace(saved_beside=tuple(state), state_bytes=state_bytes, unpacked_dtype=unpacked)


def _plain(module: Module, layers: Mapping[str, QuantisedLayer], stored: _Stored) -> tuple[Parameter, ...]:
    """As it is, or in the dtype that the first weight which is made along with it was to hold."""
    weight, *rest = module.parameters
    first = layers.get(stored.made.get(f"{module.name}.weight", "").removesuffix(".weight"))
    return (weight._replace(dtype=first.parameters[0].dtype, fixed=True) if first else weight, *rest)


def _cast_along(
    modules: Mapping[str, Module], layers: Mapping[str, QuantisedLayer], stored: _Stored
) -> Iterator[tuple[str, QuantisedLayer]]:
    """Layers that are spared, and made along with one that is not."""
    for weight, first in stored.made.items():
        name, quantised = weight.removesuffix(".weight"), layers.get(first.removesuffix(".weight"))
        if quantised is not None and name in modules and name not in layers and first not in stored.state:
            parameters = _plain(modules[name], layers, stored)
            cls = modules[name].cls
            yield name, QuantisedLayer(scheme=quantised.scheme, cls=cls, parameters=parameters, saved_beside=())


def _notes(plain: Sequence[str]) -> Iterator[Note]:
    if plain:
        message = (
            f"{listed(plain)} are to be quantised by config.json, and the file has their weights plain: "
            "from_pretrained puts them into layers of bitsandbytes that cannot run. llm_int8_skip_modules has to name "
            "them."
        )
        yield Note("stored_plain", message)
