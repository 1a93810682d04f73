"""A module as PEFT meets it: its weight, how it is quantised, whether its model type forbids it."""

from __future__ import annotations

from estimator.architecture.module import Module, Parameter
from estimator.checkpoint.quantization import quantization_of
from estimator.errors import UnsupportedModuleError
from estimator.lora.dtypes import is_float
from estimator.lora.facts import mamba_types
from estimator.lora.index import TreeIndex
from estimator.lora.variants import Packing


def weight_of(index: TreeIndex, module: Module) -> Parameter | None:
    """A module's weight; MultiheadAttention's in_proj_weight; a parametrised module's weight as it is computed."""
    wanted = "in_proj_weight" if module.kind == "MultiheadAttention" else "weight"
    own = next((p for p in module.parameters if p.name == wanted), None)
    if own is not None or f"{module.name}.parametrizations.weight" not in index.modules:
        return own
    originals = index.modules[f"{module.name}.parametrizations.weight"].parameters
    return max(originals, key=lambda p: (len(p.shape), *p.shape))._replace(name="weight")


def as_loaded(index: TreeIndex, name: str, weight: Parameter | None) -> Parameter | None:
    """The logical weight, in the dtype that an adapter on it is cast to: _get_base_layer_device_and_dtype."""
    layer = index.tree.quantised.get(name)
    if layer is None or weight is None:
        return weight
    own = _weight_at_run_time(index, name)
    return weight._replace(dtype=layer.compute_dtype or (own.dtype if own is not None else "F32"))


def _weight_at_run_time(index: TreeIndex, name: str) -> Parameter | None:
    """What a quantised layer holds as its weight."""
    if not index.is_converted(name):
        return weight_of(index, index.modules[name])
    layer = index.tree.quantised[name]
    own = {parameter.name: parameter for parameter in (*layer.buffers, *layer.parameters)}
    return own.get("weight") or own.get("qweight")


def packing_of(index: TreeIndex, name: str) -> Packing | None:
    """How a quantised layer holds its weight; None for one that is not. Raises UnsupportedModuleError."""
    layer = index.tree.quantised.get(name)
    if layer is None:
        return None
    if layer.refusal is not None:
        raise UnsupportedModuleError(
            f"{name} is loaded as {layer.cls}, which PEFT cannot wrap: {layer.refusal}.",
            where="target_modules",
            way_out="load a base that is not quantised so, or leave this module out",
        )
    if layer.packed_factor > 1 and not index.is_converted(name):
        raise UnsupportedModuleError(
            f"{name} is a {layer.cls} whose weight is tied to {index.root(f'{name}.weight')} and so is not packed: "
            "PEFT asks it how it was quantised, and fails.",
            where="target_modules",
            way_out=f"{how_to_spare(index, name)}, or leave it out",
        )
    weight = _weight_at_run_time(index, name)
    packed_as_float = layer.packed_factor > 1 and weight is not None and is_float(weight.dtype)
    held = "F4" if packed_as_float else weight.dtype if weight is not None else "I32"
    return Packing(layer.scheme, held, layer.unpacked_dtype)


def how_to_spare(index: TreeIndex, name: str) -> str:
    """What keeps a module from being quantised, for an error's way out: no option changes a stored checkpoint."""
    if quantization_of(index.tree.config) is None:
        return f"spare {name} with --skip-modules"
    return "name the model that was quantised instead"


def loaded(index: TreeIndex, name: str) -> tuple[Parameter | None, Packing | None]:
    """The logical weight of a module that is to be adapted, and how it is held, worked out once per tree and name.

    Raises UnsupportedModuleError where PEFT refuses the module whatever the config says.
    """
    kept: dict[str, tuple[Parameter | None, Packing | None]] = index.remembered("loaded", dict)
    if name not in kept:
        check_compatible(index, name)
        kept[name] = as_loaded(index, name, weight_of(index, index.modules[name])), packing_of(index, name)
    return kept[name]


def check_compatible(index: TreeIndex, name: str) -> None:
    """_check_lora_target_modules_mamba."""
    mamba = mamba_types()
    if index.tree.config.get("model_type") not in mamba["model_types"]:
        return
    last = name.rpartition(".")[2]
    if last in mamba["modules"]:
        raise UnsupportedModuleError(
            f"{name} would be adapted, and PEFT refuses {' and '.join(mamba['modules'])} of Mamba-like models.",
            where="target_modules",
            way_out=f"leave out {last}, or exclude it",
        )
