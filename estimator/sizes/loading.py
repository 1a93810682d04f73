"""The dtypes and layers that `from_pretrained` leaves in memory (transformers 5.23.0, modeling_utils.py)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from estimator.architecture.module import Module, ModuleTree, Parameter, named_parameters
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.checkpoint.quantization import quantization_of
from estimator.dtypes import config_dtype, from_torch
from estimator.errors import UnsupportedError
from estimator.request.load_options import LoadOptions
from estimator.sizes.bitsandbytes import quantise

FLOATS = frozenset({"F32", "F16", "BF16", "F64"})  # what torch accepts as a default dtype
# What from_pretrained casts; 8-bit floats stay where a quantiser keeps them.
CAST = FLOATS | {"F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}
FLOAT_PRECISIONS = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}

_BFLOAT16_ALONE = ("fbgemm_fp8", "fp_quant")  # quantisers that load nothing in another dtype (`update_dtype`)
_REASSEMBLED = re.compile(r"weight(?!\w)")  # how WeightTransform reads the pattern "weight": output_weights is none

DtypeOf = Callable[[str, Parameter], str]


def as_loaded(
    tree: ModuleTree, checkpoint: Checkpoint | None, load: LoadOptions, casts: dict[Any, ModuleTree] | None = None
) -> ModuleTree:
    """The tree under these options: every dtype is the run-time one, converted layers are in `quantised`.

    casts: where the tree has been cast before, filled on the way; several precisions share one.
    Raises UsageError where transformers would refuse the options (a --quant-storage that a weight's bytes do not fit,
    --skip-modules that part what lies in one tensor).
    """
    dtype = load_dtype(tree.config, checkpoint, load)
    packed = load.base_precision == "stored" and quantization_of(tree.config) is not None
    if packed:
        from estimator.sizes.quantized import keeps_stored_dtype, quantise_as_stored  # few need all its schemes
    keeps_stored = packed and keeps_stored_dtype(tree.config)
    casts = {} if casts is None else casts
    loaded = casts.get((dtype, keeps_stored))
    if loaded is None:
        dtype_of = dtypes(tree, dtype, _stored_floats(checkpoint) if keeps_stored else None)
        loaded = tree._replace(modules=tuple(_cast(module, dtype_of) for module in tree.modules))
        casts[dtype, keeps_stored] = loaded
    if packed:
        return quantise_as_stored(loaded, dtype, checkpoint, tree)
    quantised = quantise(loaded, load)
    if load.skip_modules is None or not quantised.quantised:
        return quantised
    from estimator.sizes.split_weights import as_split  # few spare single modules

    return as_split(quantised, checkpoint.tensors if checkpoint is not None else None)


def load_dtype(config: Mapping[str, Any], checkpoint: Checkpoint | None, load: LoadOptions) -> str:
    """The dtype that what is not quantised takes, as safetensors names it (`_get_dtype`).

    Raises UnsupportedError where config.json has a dtype that torch.set_default_dtype refuses: 8-bit floats, integers,
    complex numbers.
    """
    if load.base_precision in FLOAT_PRECISIONS:
        return FLOAT_PRECISIONS[load.base_precision]
    quantization = quantization_of(config) if load.base_precision == "stored" else None
    if quantization is not None and quantization.scheme in _BFLOAT16_ALONE:
        return "BF16"
    if load.dtype != "auto":
        return load.dtype
    unknown = "F32" if load.base_precision == "stored" else "BF16"  # what nearly every model is stored in
    named = next((config[name] for name in ("dtype", "torch_dtype") if config.get(name) is not None), None)
    stated = from_torch(named) if isinstance(named, str) else config_dtype(config)
    if isinstance(named, str) and stated not in FLOATS:
        raise UnsupportedError(
            f"config.json's dtype is {named}, in which torch builds no model: from_pretrained fails.",
            where="dtype in config.json",
            way_out="pass --dtype bf16, as dtype=torch.bfloat16 to from_pretrained",
        )
    return stated or _first_float(checkpoint) or unknown


def dtypes(tree: ModuleTree, dtype: str, stored: Mapping[str, Tensor] | None = None) -> DtypeOf:
    """What a parameter's or buffer's run-time dtype is, by its full name (`_get_dtype_plan`).

    Integers and dtypes that the class fixes stay; `_keep_in_fp32_modules` become float32 under float16,
    `_keep_in_fp32_modules_strict` under bfloat16 as well, and what a file has of these whatever it is; what no file
    holds does not. stored: the file's floats by name, where it is one whose weights keep their dtype.
    """
    patterns = list(tree.keep_in_fp32) if dtype == "F16" else []
    patterns += tree.keep_in_fp32_strict if dtype in ("F16", "BF16") else ()
    kept = re.compile("|".join(pattern.replace("*", ".*") for pattern in patterns)) if patterns else None
    renamed = _shapes_of_renamed(tree, stored) if stored else ()

    def dtype_of(name: str, parameter: Parameter) -> str:
        if parameter.fixed or parameter.dtype not in CAST:
            is_read = parameter.persistent and (stored is None or name in stored)
            return "F32" if is_read and kept is not None and kept.search(name) else parameter.dtype
        if stored is not None and parameter.persistent and _REASSEMBLED.search(name):
            if name in stored:
                return stored[name].dtype
            if not stored or name in tree.tied or parameter.shape in renamed:  # what no file holds is made anew
                return parameter.dtype
        return "F32" if kept and kept.search(name) and name not in tree.unstored else dtype

    return dtype_of


def _shapes_of_renamed(tree: ModuleTree, stored: Mapping[str, Tensor]) -> frozenset[tuple[int, ...]]:
    """Shapes of what the file holds under names that are not the run-time ones."""
    names = {name for name, _ in named_parameters(tree.modules)}
    return frozenset(tensor.shape for name, tensor in stored.items() if name not in names)


def _stored_floats(checkpoint: Checkpoint | None) -> Mapping[str, Tensor]:
    tensors = checkpoint.tensors.values() if checkpoint is not None else ()
    return {tensor.name: tensor for tensor in tensors if tensor.dtype in FLOATS}


def _first_float(checkpoint: Checkpoint | None) -> str | None:
    """The first floating dtype of the first file, by name (`get_state_dict_dtype`); 8-bit floats do not count."""
    if checkpoint is None or not checkpoint.tensors:
        return None
    first_file = min(tensor.file for tensor in checkpoint.tensors.values())
    ordered = sorted(tensor for tensor in checkpoint.tensors.values() if tensor.file == first_file)
    return next((tensor.dtype for tensor in ordered if tensor.dtype in FLOATS), None)


def _cast(module: Module, dtype_of: DtypeOf) -> Module:
    """The module with run-time dtypes; the same object where none changes."""
    if not module.parameters and not module.buffers:
        return module
    prefix = f"{module.name}." if module.name else ""
    parameters = tuple([_as(p, dtype_of(prefix + p.name, p)) for p in module.parameters])
    buffers = tuple([_as(b, dtype_of(prefix + b.name, b)) for b in module.buffers])
    if parameters == module.parameters and buffers == module.buffers:
        return module
    return module._replace(parameters=parameters, buffers=buffers)


def _as(parameter: Parameter, dtype: str) -> Parameter:
    if parameter.dtype == dtype:
        return parameter
    name, shape, _, *rest = parameter
    return Parameter(name, shape, dtype, *rest)  # half the time of _replace, for every parameter at every precision
