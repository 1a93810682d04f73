"""A module as PEFT meets it: its weight, how it is quantised, whether its model type forbids it."""

from __future__ import annotations

from estimator.architecture.module import Module, Parameter
from estimator.errors import UnsupportedModuleError
from estimator.lora.facts import mamba_types
from estimator.lora.index import TreeIndex


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
    stored = {p.name: p.dtype for p in (*layer.parameters, *layer.buffers)}
    return weight._replace(dtype=layer.compute_dtype or stored.get("weight") or stored.get("qweight") or "F32")


def scheme_of(index: TreeIndex, name: str) -> str | None:
    layer = index.tree.quantised.get(name)
    if layer is None:
        return None
    if layer.refusal is not None:
        raise UnsupportedModuleError(
            f"{name} is stored as {layer.cls}, which PEFT cannot wrap: {layer.refusal}.",
            where="target_modules",
            way_out="load a base that is not quantised so, or leave this module out",
        )
    source = index.root(f"{name}.weight")
    if layer.packed_factor > 1 and source.rpartition(".")[0] not in index.tree.quantised:
        raise UnsupportedModuleError(
            f"{name} is a {layer.cls} whose weight is tied to {source} and so is not packed: PEFT asks it how it was "
            "quantised, and fails.",
            where="target_modules",
            way_out="spare it with --skip-modules, or leave it out",
        )
    return layer.scheme


def loaded(index: TreeIndex, name: str) -> tuple[Parameter | None, str | None]:
    """The logical weight and the scheme of a module that is to be adapted, worked out once per tree and name.

    Raises UnsupportedModuleError where PEFT refuses the module whatever the config says.
    """
    kept: dict[str, tuple[Parameter | None, str | None]] = index.remembered("loaded", dict)
    if name not in kept:
        check_compatible(index, name)
        kept[name] = as_loaded(index, name, weight_of(index, index.modules[name])), scheme_of(index, name)
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
