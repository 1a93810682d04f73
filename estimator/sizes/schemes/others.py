"""Schemes with a rule of a few lines each: BitNet, MXFP4, quanto, EETQ, AQLM, and MLX's layout.

Sources: transformers 5.23.0 (quantizers and integrations of the same names); figures of optimum-quanto 0.2.7.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from math import ceil
from typing import Any

from estimator.architecture.module import Module, ModuleTree, Parameter, QuantisedLayer
from estimator.architecture.stored_names import by_module
from estimator.checkpoint.layer_fields import mlx_by_layer
from estimator.checkpoint.quantization import Quantization
from estimator.errors import UnsupportedError
from estimator.sizes.schemes.read_weights import first_read
from estimator.sizes.skipping import CONFIG, skipped_by, skips

NOT_LOADABLE = "MLX wrote this checkpoint, and transformers cannot load its packed weights"
BITLINEAR = "BitLinear is no module that PEFT's LoRA supports"


def bitnet_layers(tree: ModuleTree, quantization: Quantization, dtype: str) -> dict[str, QuantisedLayer]:
    """BitLinear: weight U8 [out/4, in] and a scale, all buffers. AutoBitLinear keeps a plain weight.

    With `use_rms_norm` each has a norm of its inputs, a parameter in both.
    Raises UnsupportedError for a packed weight that is tied to another's: transformers finds no parameter there.
    """
    fields = quantization.fields
    converted = linears(tree, fields)
    if fields.get("linear_class") == _AUTO:
        return {m.name: _auto_bit_linear(m, dtype, fields) for m in converted}
    _check_untied(tree, (module.name for module in converted), "modules_to_not_convert")
    return {m.name: _bit_linear(m, dtype, fields) for m in converted}


def _check_untied(tree: ModuleTree, packed: Iterable[str], field: str) -> None:
    tied = {*tree.tied, *tree.tied.values()}
    if name := next((name for name in packed if f"{name}.weight" in tied), None):
        raise no_checkpoint(f"packed weight that is tied to another, {name}", field)


_AUTO = "autobitlinear"


def is_unpacked(fields: Mapping[str, Any]) -> bool:
    """Whether BitNet's weights are unpacked as they load (`BitNetHfQuantizer.get_load_operations`)."""
    return fields.get("linear_class") == _AUTO and fields.get("quantization_mode", "offline") == "offline"


def _bit_linear(module: Module, dtype: str, fields: Mapping[str, Any]) -> QuantisedLayer:
    weight, *rest = module.parameters
    out, columns = weight.shape
    scale = Parameter("weight_scale", (1,), dtype)
    return QuantisedLayer(
        scheme="bitnet",
        cls="BitLinear",
        parameters=_norm(columns, dtype, fields),
        buffers=(Parameter("weight", (out // 4, columns), "U8", True), scale, *rest),
        saved_beside=(),
        is_linear=False,
        refusal=BITLINEAR,
    )


def _auto_bit_linear(module: Module, dtype: str, fields: Mapping[str, Any]) -> QuantisedLayer:
    scale = () if fields.get("quantization_mode") == "online" else (Parameter("weight_scale", (1,), dtype),)
    weight = module.parameters[0]
    parameters = (*module.parameters, *_norm(weight.shape[1], weight.dtype, fields))
    return QuantisedLayer(scheme="bitnet", cls="AutoBitLinear", parameters=parameters, buffers=scale, saved_beside=())


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


def quanto_layers(tree: ModuleTree, quantization: Quantization, dtype: str) -> dict[str, QuantisedLayer]:
    """A weight reports its logical shape in the load dtype, so counts and footprint stay; two scales are buffers.

    Raises UnsupportedError for activations that transformers quantises not.
    """
    if quantization.fields.get("activations") is not None:
        raise no_checkpoint("quanto's activations that are quantised", "activations")
    scales = tuple(Parameter(name, (), "F32", True) for name in ("input_scale", "output_scale"))
    return {
        m.name: QuantisedLayer(
            scheme="quanto",
            cls="QLinear",
            parameters=(m.parameters[0]._replace(dtype=dtype), *m.parameters[1:]),
            buffers=scales,
            saved_beside=(),
        )
        for m in linears(tree, quantization.fields)
    }


def with_stored_scales(
    layers: Mapping[str, QuantisedLayer], dtype: str, stored: Container[str]
) -> dict[str, QuantisedLayer]:
    """quanto's layers, in which scales that the file holds have the load dtype, as any float that is read."""
    return {
        name: layer._replace(
            buffers=tuple(b._replace(dtype=dtype) if f"{name}.{b.name}" in stored else b for b in layer.buffers)
        )
        for name, layer in layers.items()
    }


def check_loads(scheme: str) -> None:
    """Raises UnsupportedError for a quantiser that transformers has for plain weights alone (`NVFP4HfQuantizer`)."""
    if scheme == "nvfp4":
        raise no_checkpoint("weights that are stored by nvfp4", "quant_method")


def no_checkpoint(what: str, field: str) -> UnsupportedError:
    return UnsupportedError(
        f"transformers 5.23.0 reads no {what}.",
        where=f"{field} of quantization_config in config.json",
        way_out="name the model that was quantised instead",
    )


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
        layers[module.name] = QuantisedLayer("eetq", "EetqLinear", parameters, saved_beside=(), is_linear=False)
    return layers


def aqlm_layers(tree: ModuleTree, quantization: Quantization, dtype: str) -> dict[str, QuantisedLayer]:
    """aqlm.QuantizedLinear: codes [out/og, in/ig, books], codebooks [books, 2^b, og, ig], scales [out/og, 1, 1, 1].

    `linear_weights_not_to_quantize` is read as names of modules: one that ends with .weight, as AQLM writes them,
    spares none (`replace_with_aqlm_linear`). Raises UnsupportedError for a weight that is tied, or read on loading:
    there is none.
    """
    fields = quantization.fields
    out_group, in_group = int(fields.get("out_group_size") or 1), int(fields.get("in_group_size") or 8)
    books, bits = int(fields.get("num_codebooks") or 1), int(fields.get("nbits_per_codebook") or 16)
    spared = skipped_by(tree, fields.get(_SPARED) or (), where=CONFIG)
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
        layers[module.name] = QuantisedLayer("aqlm", "QuantizedLinear", parameters, saved_beside=(), is_linear=False)
    _check_untied(tree, layers, _SPARED)
    if read := first_read(tree.modules, layers, linear=False):
        raise no_checkpoint(f"packed weight of {read[0]}, which what initialises {read[1]} reads", _SPARED)
    return layers


_SPARED = "linear_weights_not_to_quantize"  # AQLM's


# Modules of classes that are no torch.nn.Linear and that PEFT 0.21.2 has no layer for, in place of every Linear: of
# transformers (higgs), spqr_quant 0.2.0, vptq 0.0.5, fp_quant 0.3.2 and sinq 0.2.0.
UNADAPTABLE: Mapping[str, str] = {
    "higgs": "HiggsLinear", "spqr": "QuantizedLinear", "vptq": "VQuantLinear", "fp_quant": "FPQuantLinear",
    "sinq": "SINQLinear",
}  # fmt: skip


def unadaptable_layers(tree: ModuleTree, quantization: Quantization) -> dict[str, QuantisedLayer]:
    """Layers that PEFT refuses and all-linear passes by; plain parameters, as how they are packed is not known."""
    scheme, fields = quantization.scheme, quantization.fields
    said = fields.get("modules_to_not_convert")
    if scheme == "sinq":  # nothing said spares nothing, the head neither
        fields = {**fields, "modules_to_not_convert": said or []}
    if scheme == "fp_quant":  # fp_quant/utils/replace.py knows ends of names alone, FPQuantConfig one of its own
        ends = ("lm_head",) if said is None else tuple(said)
        converted = [m for m in _with_weight(tree) if not m.name.endswith(ends)]
    else:
        converted = linears(tree, fields)
    cls = UNADAPTABLE[scheme]
    refusal = f"{cls} is no module that PEFT's LoRA supports"
    return {
        m.name: QuantisedLayer(scheme=scheme, cls=cls, parameters=m.parameters, is_linear=False, refusal=refusal)
        for m in converted
    }


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
    return [m for m in _with_weight(tree) if not skipped(m.name)]


def _with_weight(tree: ModuleTree) -> list[Module]:
    return [m for m in tree.modules if m.kind == "Linear" and m.parameters]
