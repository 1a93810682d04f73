"""torchao (0.18.0), as transformers 5.23.0 loads what it has saved (quantizers/quantizer_torchao.py).

A weight reports its logical shape, in the dtype from which it was quantised: counts and footprint stay. The file says
which weights these are: `modules_to_not_convert` was held against names of parameters when it was written, so that
"o_proj" spares none, as none is the end of `self_attn.o_proj.weight`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from estimator.architecture.module import Module, ModuleTree, QuantisedLayer
from estimator.architecture.stored_names import run_time_names
from estimator.checkpoint.checkpoint import Checkpoint
from estimator.checkpoint.packed_layouts import LAYOUTS
from estimator.checkpoint.quantization import Quantization
from estimator.dtypes import from_torch, stated_dtype
from estimator.errors import UnsupportedError
from estimator.sizes.schemes.others import no_checkpoint
from estimator.sizes.skipping import CONFIG, default_skips, skipped_by

INT4 = "PEFT's layer for torchao takes no Int4Tensor"  # peft 0.21.2, TorchaoLoraLinear._check_dtype_supported
_NEVER = "NonDynamicallyQuantizableLinear"  # of MultiheadAttention: quantize_'s filter, `_is_linear`


def torchao_layers(tree: ModuleTree, quantization: Quantization, dtype: str) -> dict[str, QuantisedLayer]:
    """Every Linear that is not spared, as config.json says it; the in features of four bits are whole groups.

    Raises UnsupportedError for a quant_type that transformers cannot read.
    """
    fields = quantization.fields
    _check(fields)
    group, held = _int4_group(fields), stated_dtype(tree.config) or dtype
    linears = {f"{m.name}.weight": m for m in tree.modules if _is_linear(m)}
    spared = _spared(tree, fields)
    fit = (m for m in linears.values() if not spared(m) and not (group and m.parameters[0].shape[-1] % group))
    return {m.name: _layer(m, held, fields) for m in fit}


def as_stored(
    tree: ModuleTree, quantization: Quantization, dtype: str, checkpoint: Checkpoint
) -> dict[str, QuantisedLayer]:
    """The same of the layers that the file has packed, each in the dtype that its entry in the header names."""
    fields, marker = quantization.fields, LAYOUTS["torchao"].marker
    _check(fields)
    stems = [name.removesuffix(marker) for name in checkpoint.tensors if name.endswith(marker)]
    names = set(run_time_names(tree.config, tree, [f"{stem}.weight" for stem in stems]).values())
    held, own = stated_dtype(tree.config) or dtype, _dtypes(checkpoint)
    packed = ((m, f"{m.name}.weight") for m in tree.modules if m.kind == "Linear" and f"{m.name}.weight" in names)
    return {m.name: _layer(m, own.get(name) or held, fields) for m, name in packed}


def _layer(module: Module, dtype: str, fields: Mapping[str, Any]) -> QuantisedLayer:
    weight, *rest = module.parameters
    return QuantisedLayer(
        scheme="torchao",
        cls="Linear",
        parameters=(weight._replace(dtype=dtype), *rest),
        refusal=INT4 if _is_plain_int4(fields) else None,
    )


def _is_linear(module: Module) -> bool:
    return module.kind == "Linear" and module.cls != _NEVER and bool(module.parameters)


def _spared(tree: ModuleTree, fields: Mapping[str, Any]) -> Any:
    """Whether a module's weight is one that the quantiser leaves alone: patterns meet the name of the parameter."""
    said = fields.get("modules_to_not_convert")
    patterns = [*(default_skips(tree) if said is None else said), *tree.keep_in_fp32]
    if fields.get("include_input_output_embeddings"):
        patterns = [one for one in patterns if one not in (tree.input_embedding, tree.output_embedding)]
    weights = tree._replace(
        modules=tuple(m._replace(name=f"{m.name}.weight") for m in tree.modules if m.kind == "Linear")
    )
    spared = frozenset().union(*skipped_by(weights, patterns, where=CONFIG).values())
    return lambda module: f"{module.name}.weight" in spared


def _dtypes(checkpoint: Checkpoint) -> dict[str, str]:
    """The dtypes of torchao's tensors by parameter, from the text of each in a header (`TensorSubclassEncoder`)."""
    found = {}
    for file in checkpoint.files:
        for name, text in file.metadata.items():
            dtype = _dtype_of(text) if text.startswith("{") else None
            if dtype is not None:
                found[name] = dtype
    return found


def _dtype_of(text: str) -> str | None:
    try:
        return from_torch(json.loads(text)["_data"]["dtype"]["_data"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _int4_group(fields: Mapping[str, Any]) -> int | None:
    """Elements of a group of four bits, in the second version; None of other kinds."""
    config = _config(fields)
    said = config["_data"]
    if config["_type"] != "Int4WeightOnlyConfig" or not isinstance(said, Mapping) or is_first_version(fields):
        return None
    size = said.get("group_size", 128)
    return size if type(size) is int and size > 0 else None


def _is_plain_int4(fields: Mapping[str, Any]) -> bool:
    """Whether weights become Int4Tensor: those of the first version did not, nor do those in tiles."""
    if _int4_group(fields) is None:
        return False
    packing = _config(fields)["_data"].get("int4_packing_format", "PLAIN")
    return str(packing.get("_data") if isinstance(packing, Mapping) else packing).upper() == "PLAIN"


def _check(fields: Mapping[str, Any]) -> None:
    """Raises UnsupportedError for what `TorchAoConfig.from_dict` cannot read."""
    config = _config(fields)
    if not isinstance(config, Mapping) or "_type" not in config or "_data" not in config:
        said = "torchao's quant_type but as {'default': {'_type': ..., '_data': ...}}"
        raise no_checkpoint(said, "quant_type")


def check_names(tree: ModuleTree, stored: Iterable[str]) -> None:
    """Raises UnsupportedError for torchao's file of a model that owns a tensor itself (Blip-2's `query_tokens`).

    torchao 0.18.0, `unflatten_tensor_state_dict`: every run-time name is taken apart at a dot.
    """
    names = run_time_names(tree.config, tree, [name for name in stored if "." not in name]).values()
    if (bare := next((name for name in names if "." not in name), None)) is not None:
        raise UnsupportedError(
            f"torchao 0.18 reads no file that holds {bare[:100]!r}: every name in it is to have a dot.",
            where="the names of the tensors",
            way_out="name the model that was quantised instead",
        )


def is_first_version(fields: Mapping[str, Any]) -> bool:
    """Whether it is a kind of which torchao 0.18.0 reads the second version alone, in its first (`quant_api.py`)."""
    config = _config(fields)
    return config.get("_type") in _WITHOUT_VERSION_1 and config.get("_version", 1) == 1


def _config(fields: Mapping[str, Any]) -> Any:
    said = fields.get("quant_type")
    return said.get("default") if isinstance(said, Mapping) and len(said) == 1 else None


_WITHOUT_VERSION_1 = (
    "Float8DynamicActivationFloat8WeightConfig", "Float8WeightOnlyConfig", "Int4WeightOnlyConfig",
    "Int8DynamicActivationInt8WeightConfig", "Int8DynamicActivationIntxWeightConfig", "Int8WeightOnlyConfig",
    "IntxWeightOnlyConfig",
)  # fmt: skip
