"""8-bit floats with scales: transformers' FineGrainedFP8 (fp8, mxfp8) and fbgemm_fp8.

A converted Linear has weight F8 [out, in] and weight_scale_inv [ceil(out / block), ceil(in / block)] (one float32
without blocks), both parameters; fused experts have the same with the expert in front (transformers 5.23.0,
integrations/finegrained_fp8.py: FP8Linear, FP8Experts, `replace_with_fp8_linear`).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from estimator.architecture.module import Module, ModuleTree, Parameter, QuantisedLayer
from estimator.architecture.stored_names import renamed_modules
from estimator.checkpoint.quantization import Quantization
from estimator.errors import UnsupportedError
from estimator.sizes.memory.fields import text_config
from estimator.sizes.skipping import skips


def fp8_layers(tree: ModuleTree, quantization: Quantization, dtype: str) -> dict[str, QuantisedLayer]:
    """What FineGrainedFP8 makes of each Linear and each `experts` module that is not skipped.

    An embedding that is named stays packed where the rest is unpacked (`replace_with_fp8_embedding`).
    """
    fields = quantization.fields
    named = fields.get("modules_to_not_convert")
    named = fields.get("ignored_layers") if named is None else named
    skipped = skips(tree, renamed_modules(tree.config, named) if named else named)
    embeddings = tuple(fields.get("modules_to_convert") or ())
    layers = {}
    for module in tree.modules:
        if skipped(module.name):
            continue
        if module.cls == "Embedding" and module.name.endswith(embeddings):
            layers[module.name] = _embedding(module, dtype)
        if fields.get("dequantize"):
            continue
        if module.name.endswith(".experts"):
            _check_experts(module, tree)
        if not module.parameters:
            continue
        if module.name.endswith(".experts") and any(len(p.shape) == 3 for p in module.parameters):
            layers[module.name] = _experts(module, tree, fields)
        elif module.kind == "Linear" and (module.cls == "Linear" or "GroupedLinear" in module.cls):
            layers[module.name] = _linear(module, fields)
    return layers


def _linear(module: Module, fields: Mapping[str, Any]) -> QuantisedLayer:
    weight, *rest = module.parameters
    scale = Parameter("weight_scale_inv", _scale_shape(weight.shape, _block(fields)), _scale_dtype(fields), True)
    static = (Parameter("activation_scale", (), "F32", True),) if fields.get("activation_scheme") == "static" else ()
    parameters = (weight._replace(dtype="F8_E4M3", fixed=True), scale, *static, *rest)
    return QuantisedLayer(scheme="fp8", cls="FP8Linear", parameters=parameters, saved_beside=())


def _embedding(module: Module, dtype: str) -> QuantisedLayer:
    """FP8Embedding: one scale for the table, in the dtype that is asked for."""
    weight = module.parameters[0]._replace(dtype="F8_E4M3", fixed=True)
    scale = Parameter("weight_scale", (1,), dtype)
    return QuantisedLayer(
        scheme="fp8", cls="FP8Embedding", parameters=(weight, scale), is_linear=False, saved_beside=()
    )


def _check_experts(module: Module, tree: ModuleTree) -> None:
    """Raises UnsupportedError where FP8Experts.__init__, which reads its sizes from the config, does not fit."""
    fused, config = [p for p in module.parameters if len(p.shape) == 3], text_config(tree.config)
    width, without = config.get("hidden_size"), _CONFIGS_WITHOUT.get(module.cls, ())
    turned = not {module.name, f"{module.name}.down_proj"}.isdisjoint(tree.transposed)
    down = width if turned else next((p.shape[1] for p in fused if p.name == "down_proj"), width)
    lost = next((asked for asked in without if config.keys().isdisjoint(_ASKED.get(asked, ()))), None)
    fault = None
    if lost is not None:
        fault = f"its config gives them no {lost}"
    elif fused and len(fused) < len(module.parameters):
        bias = next(p.name for p in module.parameters if len(p.shape) != 3)
        fault = f"they cannot have {bias}"
    elif len({p.shape[0] for p in fused}) > 1:
        fault = "they cannot be of two numbers"
    elif type(width) is int and down != width:
        fault = f"they cannot be {down} wide where the model is {width}"
    if fault is not None:
        raise UnsupportedError(
            f"transformers makes no FP8 experts of {module.name} ({module.cls}): {fault}.",
            where="quantization_config in config.json",
            way_out="name the model that was quantised instead",
        )


# What FP8Experts asks of the config, each the first of these (transformers 5.23.0, `_first_attr`). Where neither
# config.json nor the model type's config class has one, no experts are made; what the classes lack is a fact of theirs.
_ASKED = {
    "num_experts": ("num_local_experts", "num_experts"),
    "intermediate_size": ("moe_intermediate_size", "intermediate_size"),
    "hidden_act": ("hidden_activation", "hidden_act"),
}
_CONFIGS_WITHOUT = {
    "AriaExperts": ("num_experts",),
    "DbrxExperts": ("num_experts", "intermediate_size", "hidden_act"),
    **dict.fromkeys(("JetMoeMoA", "Lfm2MoeExperts", "NemotronHExperts"), ("hidden_act",)),
    **dict.fromkeys(("NllbMoeExperts", "SwitchTransformersExperts"), ("intermediate_size", "hidden_act")),
    "Ernie4_5_VLMoeMoeExperts": ("single intermediate_size",),
}


def _experts(module: Module, tree: ModuleTree, fields: Mapping[str, Any]) -> QuantisedLayer:
    parameters: list[Parameter] = []
    for parameter in module.parameters:
        experts, rows, columns = parameter.shape
        if f"{module.name}.{parameter.name}" in tree.transposed:
            rows, columns = columns, rows
        parameters += _expert_parts(parameter.name, (experts, rows, columns), fields)
    return QuantisedLayer(
        scheme="fp8", cls="FP8Experts", parameters=tuple(parameters), is_linear=False, saved_beside=()
    )


def _expert_parts(name: str, shape: tuple[int, int, int], fields: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """`_alloc_expert_proj`: fp4 experts are bytes of two values, with a scale for each 32 of a row."""
    experts, rows, columns = shape
    four_bit = fields.get("expert_dtype") == "fp4"
    block = (1, 32) if four_bit else _block(fields)
    scale_rows, scale_columns = _scale_shape((rows, columns), block) or (1, 1)
    if name == "gate_up_proj":
        scale_rows = max(scale_rows, 2)  # both halves keep a scale of their own
    weight = (experts, rows, columns // 2) if four_bit else shape
    static = fields.get("activation_scheme") == "static"
    return (
        Parameter(name, weight, "I8" if four_bit else "F8_E4M3", True),
        Parameter(f"{name}_scale_inv", (experts, scale_rows, scale_columns), _scale_dtype(fields), True),
        *((Parameter(f"{name}_activation_scale", (experts,), "F32", True),) if static else ()),
    )


def _block(fields: Mapping[str, Any]) -> tuple[int, int] | None:
    block = fields.get("weight_block_size", (128, 128))
    return (int(block[0]), int(block[1])) if block else None


def _scale_shape(shape: tuple[int, ...], block: tuple[int, int] | None) -> tuple[int, ...]:
    """() where one scale serves the whole tensor."""
    return (ceil(shape[0] / block[0]), ceil(shape[1] / block[1])) if block else ()


def _scale_dtype(fields: Mapping[str, Any]) -> str:
    return "F8_E8M0" if fields.get("scale_fmt") == "ue8m0" else "F32"


def fbgemm_layers(tree: ModuleTree, quantization: Quantization, _dtype: str) -> dict[str, QuantisedLayer]:
    """FbgemmFp8Linear: weight F8 [out, in], weight_scale F32 [out, 1], bias F32 (integrations/fbgemm_fp8.py).

    Llama 4's experts have the same beside their fused matrices. What is not converted is bfloat16 (`update_dtype`).
    """
    skipped = skips(tree, quantization.fields.get("modules_to_not_convert"))
    layers = {}
    for module in tree.modules:
        if not module.parameters or skipped(module.name):
            continue
        if module.kind == "Linear":
            weight, *rest = module.parameters
            scale = Parameter("weight_scale", (weight.shape[0], 1), "F32", True)
            bias = (parameter._replace(dtype="F32", fixed=True) for parameter in rest)
            parameters = (weight._replace(dtype="F8_E4M3", fixed=True), scale, *bias)
            layers[module.name] = _fbgemm("FbgemmFp8Linear", parameters, is_linear=True)
        elif module.cls == "Llama4TextExperts":
            parameters = tuple(part for own in module.parameters for part in _fbgemm_expert_parts(own))
            layers[module.name] = _fbgemm("FbgemmFp8Llama4TextExperts", parameters, is_linear=False)
    return layers


def _fbgemm(cls: str, parameters: tuple[Parameter, ...], *, is_linear: bool) -> QuantisedLayer:
    return QuantisedLayer(
        scheme="fbgemm_fp8",
        cls=cls,
        parameters=parameters,
        buffers=(Parameter("input_scale_ub", (1,), "F32", True, persistent=False),),
        is_linear=is_linear,
        saved_beside=(),
    )


def _fbgemm_expert_parts(weight: Parameter) -> tuple[Parameter, Parameter]:
    """gate_up_proj [experts, in, out] has a scale for each column, down_proj for each of as many rows."""
    experts, _, columns = weight.shape
    scale = (experts, 1, columns) if weight.name == "gate_up_proj" else (experts, columns, 1)
    return weight._replace(dtype="F8_E4M3", fixed=True), Parameter(f"{weight.name}_scale", scale, "F32", True)
