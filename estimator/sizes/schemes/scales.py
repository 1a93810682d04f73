"""Whether a file's scales become those of the layers that transformers makes for them.

Scales go through the class's conversions as their weights do: merged expert by expert, split with a fused tensor. What
comes of that has to have the shape of the layer's own scales, or loading ends (transformers 5.23.0,
core_model_loading.py, `set_param_for_module`).
"""

from __future__ import annotations

from collections.abc import Mapping

from estimator.architecture.module import Module, ModuleTree, Parameter, QuantisedLayer
from estimator.architecture.scales import kept_as_stored, loaded_scales, unsplittable
from estimator.architecture.stored_names import parts_by_source
from estimator.checkpoint.checkpoint import Checkpoint, stacks_of
from estimator.errors import MalformedHeaderError, UnsupportedError
from estimator.lora.closest import listed
from estimator.sizes.dtype_plan import CAST, dtypes

# What the names of scales add to their weights': the first of `serialized_names` that do, of quantisers that unpack.
SCALES: Mapping[str, str] = {"fp8": "_scale_inv", "mxfp8": "_scale_inv", "compressed-tensors": "_scale"}
KEPT_BY_NONE = ("metal",)  # quantisers that unpack, and call scales by no name of their weights'

_ENDS = ("scale", "_scale_inv", "_zero_point", "_packed", ".qscale_weight")


def check_splitting(tree: ModuleTree, own: Mapping[str, tuple[int, ...]], suffix: str) -> None:
    """Raises UnsupportedError where the class splits weights that keep none of the scales `own`."""
    parts = unsplittable(tree, own, suffix)
    if parts:
        raise _refusal(f"{tree.architecture} would split a tensor into {listed(parts)}, and keeps no scales for them")
    if parts is not None:
        raise _refusal(f"every {tree.architecture} is read as if it had a tensor to split, and keeps no scales for it")


def with_scales(
    tree: ModuleTree, layers: Mapping[str, QuantisedLayer], checkpoint: Checkpoint | None, suffix: str
) -> dict[str, QuantisedLayer]:
    """The layers with scales of bytes where the file has them so: only floats are cast (`HfQuantizer.get_new_dtype`).

    Raises UnsupportedError where the scales of a converted layer come out in another shape than it has them.
    """
    own = _scales(layers, suffix)
    check_splitting(tree, own, suffix)
    if checkpoint is None:
        return dict(layers)
    own = _scales(layers, _ENDS)
    scales = (stack for stack in stacks_of(checkpoint.tensors) if stack.after.endswith(_ENDS))
    try:
        found = loaded_scales(tree, scales, own, suffix)
    except MalformedHeaderError as error:
        raise _refusal(error.what.removesuffix(".")) from error
    for name, (shape, *_) in found.items():
        if shape is not None and shape != own[name]:
            raise _refusal(f"the file makes {name} {list(shape)}, and the layer that is built has {list(own[name])}")
    layers = _as_their_first_part(tree, layers, checkpoint, suffix)
    of_bytes = {name for name, scale in found.items() if scale.dtype == "U8" and name.endswith(suffix)}
    return {name: _with_bytes(name, layer, of_bytes) for name, layer in layers.items()} if of_bytes else dict(layers)


def _as_their_first_part(
    tree: ModuleTree, layers: Mapping[str, QuantisedLayer], checkpoint: Checkpoint, suffix: str
) -> Mapping[str, QuantisedLayer]:
    """Weights of one stored tensor take the dtype that its first part has (`convert_and_load_state_dict_in_model`).

    Raises UnsupportedError for scales of a part that keeps none: transformers looks for them in a plain layer.
    """
    weights = (name for name in checkpoint.tensors if name.endswith("weight"))
    own = {module.name: module.parameters for module in tree.modules}
    after = dict(layers)
    for stored, parts in parts_by_source(tree, weights).items():
        first, *others = (name.removesuffix(".weight") for name in parts)
        if first not in layers:
            after |= {name: _with_weight(layers[name], own[name][0]) for name in others if name in layers}
            continue
        plain = [name for name in others if name not in layers]
        scales = (stored + suffix, stored.removesuffix("weight") + "scale")
        if plain and any(name in checkpoint.tensors for name in scales):
            raise _refusal(f"{plain[0]} keeps no scales, and the file has them in one tensor with those of {first}")
        quantised = next(p for p in layers[first].parameters if p.name.startswith("weight"))
        for name in plain:
            weight, *rest = own[name]
            weight = weight._replace(dtype=quantised.dtype, fixed=True)
            after[name] = QuantisedLayer(
                scheme=layers[first].scheme, cls="Linear", parameters=(weight, *rest), saved_beside=()
            )
    return after


def _with_weight(layer: QuantisedLayer, weight: Parameter) -> QuantisedLayer:
    return layer._replace(parameters=tuple(weight if p.name == "weight" else p for p in layer.parameters))


def _with_bytes(name: str, layer: QuantisedLayer, of_bytes: set[str]) -> QuantisedLayer:
    parameters = (p._replace(dtype="U8") if f"{name}.{p.name}" in of_bytes else p for p in layer.parameters)
    return layer._replace(parameters=tuple(parameters))


def kept_in_float32(tree: ModuleTree, layers: dict[str, QuantisedLayer], dtype: str) -> dict[str, QuantisedLayer]:
    """The layers with the floats that `_keep_in_fp32_modules` names in float32: 8-bit weights and scales too."""
    dtype_of = dtypes(tree, dtype)

    def kept(name: str, own: Parameter) -> Parameter:
        here = dtype_of(f"{name}.{own.name}", own._replace(fixed=True)) if own.dtype in CAST else own.dtype
        return own if here == own.dtype else own._replace(dtype=here)

    return {
        name: layer._replace(parameters=tuple(kept(name, own) for own in layer.parameters))
        for name, layer in layers.items()
    }


def with_stored_dtypes(
    tree: ModuleTree, stored: ModuleTree, layers: Mapping[str, QuantisedLayer], checkpoint: Checkpoint, suffix: str
) -> ModuleTree:
    """The tree where what would be unpacked before its conversion, and is not packed, keeps the dtype of the file."""
    quantised = [
        f"{name}.weight"
        for name, _, last in (stack.first.rpartition(".") for stack in stacks_of(checkpoint.tensors))
        if last.startswith("weight_")
    ]
    names = kept_as_stored(tree, _scales(layers, suffix), suffix, quantised)
    if not names:
        return tree
    modules = zip(tree.modules, stored.modules, strict=True)
    return tree._replace(modules=tuple(_as_stored(now, before, names) for now, before in modules))


def _as_stored(now: Module, before: Module, names: frozenset[str]) -> Module:
    parameters = zip(now.parameters, before.parameters, strict=True)
    return now._replace(
        parameters=tuple(
            own._replace(dtype=was.dtype) if f"{now.name}.{own.name}" in names else own for own, was in parameters
        )
    )


def _scales(layers: Mapping[str, QuantisedLayer], ends: str | tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of what layers have of these endings, by their full names."""
    return {
        f"{name}.{parameter.name}": parameter.shape
        for name, layer in layers.items()
        for parameter in layer.parameters
        if parameter.name.endswith(ends)
    }


def _refusal(what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{what}: transformers fails to load it.",
        where="quantization_config in config.json",
        way_out="name the model that was quantised instead",
    )
