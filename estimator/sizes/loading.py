"""The dtypes and layers that `from_pretrained` leaves in memory (transformers 5.23.0, modeling_utils.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.checkpoint.quantization import quantization_of
from estimator.dtypes import config_dtype, from_torch
from estimator.errors import UnsupportedError
from estimator.request.load_options import LoadOptions
from estimator.sizes.bitsandbytes import quantise
from estimator.sizes.dtype_plan import FLOATS, DtypeOf, dtypes

FLOAT_PRECISIONS = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}

_BFLOAT16_ALONE = ("fbgemm_fp8", "fp_quant")  # quantisers that load nothing in another dtype (`update_dtype`)


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
