"""Schemes with a rule of a few lines each: BitNet, MXFP4, torchao, quanto, EETQ, AQLM, and MLX's layout.

Sources: transformers 5.23.0 (quantizers and integrations of the same names); figures of optimum-quanto 0.2.7,
torchao 0.18.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any

from estimator.architecture.module import Module, ModuleTree, Parameter, QuantisedLayer
from estimator.architecture.stored_names import by_module
from estimator.checkpoint.layer_fields import mlx_by_layer
from estimator.checkpoint.quantization import Quantization
from estimator.dtypes import stated_dtype
from estimator.errors import UnsupportedError
from estimator.sizes.skipping import CONFIG, skipped_by, skips

NOT_LOADABLE = "MLX wrote this checkpoint, and transformers cannot load its packed weights"
INT4 = "PEFT's layer for torchao takes no Int4Tensor"  # peft 0.21.2, TorchaoLoraLinear._check_dtype_supported
BITLINEAR = "BitLinear is no module that PEFT's LoRA supports"


def bitnet_layers(tree: ModuleTree, quantization: Quantization, dtype: str) -> dict[str, QuantisedLayer]:
    """BitLinear: weight U8 [out/4, in] and a scale, all buffers. AutoBitLinear keeps a plain weight.

    With `use_rms_norm` each has a norm of its inputs, a parameter in both.
    """
    fields = quantization.fields
    make = _auto_bit_linear if fields.get("linear_class") == "autobitlinear" else _bit_linear
    return {m.name: make(m, dtype, fields) for m in linears(tree, fields)}


def _bit_linear(module: Module, dtype: str, fields: Mapping[str, Any]) -> QuantisedLayer:
    weight, *rest = module.parameters
    out, columns = weight.shape
    scale = Parameter("weight_scale", (1,), dtype)
    return QuantisedLayer(
        scheme="bitnet",
        cls="BitLinear",
        parameters=_norm(columns, dtype, fields),
        buffers=(Parameter("weight", (out // 4, columns), "U8", True), scale, *rest),
        is_linear=False,
        refusal=BITLINEAR,
    )


def _auto_bit_linear(module: Module, dtype: str, fields: Mapping[str, Any]) -> QuantisedLayer:
    scale = () if fields.get("quantization_mode") == "online" else (Parameter("weight_scale", (1,), dtype),)
    parameters = (*module.parameters, *_norm(module.parameters[0].shape[1], dtype, fields))
    return QuantisedLayer(scheme="bitnet", cls="AutoBitLinear", parameters=parameters, buffers=scale)


def _norm(columns: int, dtype: str, fields: Mapping[str, Any]) -> tuple[Parameter, ...]:
    return (Parameter("rms_norm.weight", (columns,), dtype),) if fields.get("use_rms_norm") else ()


def mxfp4_layers(tree: ModuleTree, quantization: Quantization, _dtype: str) -> dict[str, QuantisedLayer]:
    """gpt-oss' experts, two values a byte and a scale byte for each 32; biases are float32 (Mxfp4GptOssExperts).

    Kept packed on a GPU whose kernels can run them; elsewhere, and with `dequantize`, transformers unpacks them.
    """
    fields = quantization.fields
    if fields.get("dequantize"):
        return {}
    skipped = skips(tree, fields.get("modules_to_not_convert"))
    return {m.name: _mxfp4_experts(m) for m in tree.modules if m.cls == "GptOssExperts" and not skipped(m.name)}


def _mxfp4_experts(module: Module) -> QuantisedLayer:
    parameters, scale_bytes = [], 0
    for parameter in module.parameters:
        if len(parameter.shape) != 3:
            parameters.append(parameter._replace(dtype="F32", fixed=True))
            continue
        experts, columns, rows = parameter.shape  # the class keeps (experts, in, out)
        parameters.append(Parameter(parameter.name, (experts, rows, columns // 2), "U8", True))
        scale_bytes += experts * rows * (columns // 32)
    return QuantisedLayer(
        scheme="mxfp4",
        cls="Mxfp4GptOssExperts",
        parameters=tuple(parameters),
        state_bytes=scale_bytes,
        is_linear=False,
        refusal="transformers does not train packed MXFP4 experts; load with Mxfp4Config(dequantize=True)",
    )


def unchanged_layers(tree: ModuleTree, quantization: Quantization, dtype: str) -> dict[str, QuantisedLayer]:
    """torchao and quanto: a weight reports its logical shape, so counts and footprint stay.

    In the load dtype; torchao's in the dtype from which it was quantised, as its tensors say and config.json.

    Raises UnsupportedError for a quant_type that transformers cannot read, and for activations that it quantises not.
    """
    scheme = quantization.scheme
    if scheme == "torchao":
        _check_torchao(quantization.fields)
    elif quantization.fields.get("activations") is not None:
        raise _no_checkpoint("quanto's activations that are quantised", "activations")
    scales = tuple(Parameter(name, (), "F32", True) for name in ("input_scale", "output_scale"))
    buffers, cls = (scales, "QLinear") if scheme == "quanto" else ((), "Linear")
    group = _plain_int4_group(quantization.fields) if scheme == "torchao" else None
    held = stated_dtype(tree.config) or dtype if scheme == "torchao" else dtype
    return {
        m.name: QuantisedLayer(
            scheme=scheme,
            cls=cls,
            parameters=(m.parameters[0]._replace(dtype=held), *m.parameters[1:]),
            buffers=buffers,
            refusal=INT4 if group and m.parameters[0].shape[-1] % group == 0 else None,
        )
        for m in linears(tree, quantization.fields)
    }


def _plain_int4_group(fields: Mapping[str, Any]) -> int | None:
    """The group size of torchao's Int4Tensor, which no weight becomes whose in features it does not divide.

    None of other kinds, and of the first version's, whose weights were no Int4Tensor.
    """
    config = _torchao_config(fields)
    said = config["_data"]
    if config["_type"] != "Int4WeightOnlyConfig" or not isinstance(said, Mapping) or is_first_version(fields):
        return None
    packing, size = said.get("int4_packing_format", "PLAIN"), said.get("group_size", 128)
    name = packing.get("_data") if isinstance(packing, Mapping) else packing
    return size if str(name).upper() == "PLAIN" and type(size) is int else None


def _check_torchao(fields: Mapping[str, Any]) -> None:
    """Raises UnsupportedError for what `TorchAoConfig.from_dict` cannot read."""
    config = _torchao_config(fields)
    if not isinstance(config, Mapping) or "_type" not in config or "_data" not in config:
        said = "torchao's quant_type but as {'default': {'_type': ..., '_data': ...}}"
        raise _no_checkpoint(said, "quant_type")


def check_loads(scheme: str) -> None:
    """Raises UnsupportedError for a quantiser that transformers has for plain weights alone (`NVFP4HfQuantizer`)."""
    if scheme == "nvfp4":
        raise _no_checkpoint("weights that are stored by nvfp4", "quant_method")


def check_names(names: Iterable[str]) -> None:
    """Raises UnsupportedError for torchao's file of a model that owns a tensor itself (Blip-2's `query_tokens`).

    torchao 0.18.0, `unflatten_tensor_state_dict`: every name is taken apart at a dot.
    """
    if (bare := next((name for name in names if "." not in name), None)) is not None:
        raise UnsupportedError(
            f"torchao 0.18 reads no file that holds {bare[:100]!r}: every name in it is to have a dot.",
            where="the names of the tensors",
            way_out="name the model that was quantised instead",
        )


def _no_checkpoint(what: str, field: str) -> UnsupportedError:
    return UnsupportedError(
        f"transformers 5.23.0 reads no {what}.",
        where=f"{field} of quantization_config in config.json",
        way_out="name the model that was quantised instead",
    )


def is_first_version(fields: Mapping[str, Any]) -> bool:
    """Whether it is a kind of which torchao 0.18.0 reads the second version alone, in its first (`quant_api.py`)."""
    config = _torchao_config(fields)
    return config.get("_type") in _WITHOUT_VERSION_1 and config.get("_version", 1) == 1


def _torchao_config(fields: Mapping[str, Any]) -> Any:
    said = fields.get("quant_type")
    return said.get("default") if isinstance(said, Mapping) and len(said) == 1 else None


_WITHOUT_VERSION_1 = (
    "Float8DynamicActivationFloat8WeightConfig", "Float8WeightOnlyConfig", "Int4WeightOnlyConfig",
    "Int8DynamicActivationInt8WeightConfig", "Int8DynamicActivationIntxWeightConfig", "Int8WeightOnlyConfig",
    "IntxWeightOnlyConfig",
)  # fmt: skip


def eetq_layers(tree: ModuleTree, quantization: Quantization, _dtype: str) -> dict[str, QuantisedLayer]:
    """EetqLinear: weight I8 [in, out], weight_scales F16 [out], bias F16; no torch.nn.Linear."""
    layers = {}
    for module in linears(tree, quantization.fields):
        weight, *rest = module.parameters
        out, columns = weight.shape
        parameters = (
            Parameter("weight", (columns, out), "I8", True),
            Parameter("weight_scales", (out,), "F16", True),
            *(bias._replace(dtype="F16", fixed=True) for bias in rest),
        )
        layers[module.name] = QuantisedLayer(scheme="eetq", cls="EetqLinear", parameters=parameters, is_linear=False)
    return layers


def aqlm_layers(tree: ModuleTree, quantization: Quantization, dtype: str) -> dict[str, QuantisedLayer]:
    """aqlm.QuantizedLinear: codes [out/og, in/ig, books], codebooks [books, 2^b, og, ig], scales [out/og, 1, 1, 1].

    `linear_weights_not_to_quantize` is read as names of modules: one that ends with .weight, as AQLM writes them,
    spares none (`replace_with_aqlm_linear`).
    """
    fields = quantization.fields
    out_group, in_group = int(fields.get("out_group_size") or 1), int(fields.get("in_group_size") or 8)
    books, bits = int(fields.get("num_codebooks") or 1), int(fields.get("nbits_per_codebook") or 16)
    spared = skipped_by(tree, fields.get("linear_weights_not_to_quantize") or (), where=CONFIG)
    layers = {}
    for module in tree.modules:
        if module.kind != "Linear" or not module.parameters or any(module.name in names for names in spared.values()):
            continue
        weight, *rest = module.parameters
        out, columns = weight.shape
        parameters = (
            Parameter("codebooks", (books, 2**bits, out_group, in_group), dtype),
            Parameter("codes", (out // out_group, columns // in_group, books), "I8" if bits <= 8 else "I16", True),
            Parameter("scales", (out // out_group, 1, 1, 1), dtype),
            *rest,
        )
        layers[module.name] = QuantisedLayer(
            scheme="aqlm", cls="QuantizedLinear", parameters=parameters, is_linear=False
        )
    return layers


def mlx_layers(tree: ModuleTree, quantization: Quantization, dtype: str) -> dict[str, QuantisedLayer]:
    """What the file holds, for its bytes; no library beside MLX loads it, so PEFT adapts none of it."""
    wrapped = [m for m in tree.modules if m.kind in ("Linear", "Embedding") and m.parameters]
    own = mlx_by_layer(by_module(tree, quantization.fields), [module.name for module in wrapped])
    layers = {}
    for module in wrapped:
        fields = own.get(module.name, quantization.fields)
        if fields is None:
            continue
        bits, group = int(fields.get("bits") or 4), int(fields.get("group_size") or 64)
        weight, *rest = module.parameters
        out, columns = weight.shape
        halves = tuple(Parameter(name, (out, ceil(columns / group)), dtype) for name in ("scales", "biases"))
        packed = Parameter("weight", (out, columns * bits // 32), "U32", True)
        layers[module.name] = QuantisedLayer(
            scheme="mlx", cls="QuantizedLinear", parameters=(packed, *halves, *rest), refusal=NOT_LOADABLE
        )
    return layers


def linears(tree: ModuleTree, fields: Mapping[str, Any]) -> list[Module]:
    """Linear modules that are not skipped."""
    skipped = skips(tree, fields.get("modules_to_not_convert"))
    return [m for m in tree.modules if m.kind == "Linear" and m.parameters and not skipped(m.name)]
