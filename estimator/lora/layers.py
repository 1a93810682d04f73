"""The tensors of one LoRA layer, for each kind of module that PEFT can wrap.

peft 0.21.2: dispatch_default, LoraLayer.update_layer, Embedding, _ConvNd, MultiheadAttention and ParamWrapper
(peft/tuners/lora/layer.py), DoRA's shapes (peft/tuners/lora/dora.py). Shapes are torch's: Linear (out, in).
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple, Self

from estimator.architecture.module import Module, Parameter
from estimator.errors import InvalidLoraError, UnsupportedError, UnsupportedModuleError
from estimator.lora.facts import conv_classes
from estimator.lora.initialisation import (
    check_initialisation,
    check_on_torchao,
    ranks_after_initialisation,
    wrapped_parameter_shapes,
)
from estimator.lora.variants import (
    EIGHT_BIT_FLOATS,
    INITIALISES_DEQUANTISED,
    PACKED,
    WITHOUT_LORA_BIAS,
    BlockDiagonal,
    Packing,
    Variant,
    asked_variants,
    refuse_in_8_bit_floats,
    variant_for,
    vary_linear,
)
from estimator.lora.weights import Matrix, Weight
from estimator.request.lora_config import LoraConfig


class LoraLayer(NamedTuple):
    """One layer that PEFT puts in a module's place, or around a parameter."""

    name: str  # of the layer at run time: the module's name, ".base_layer" behind it where wrappers are nested
    kind: str  # the module's kind
    what: str  # PEFT's class: "Linear", "ParamWrapper"
    in_features: int
    out_features: int
    rank: int
    dtype: str  # of the base layer: what the weights are cast to before autocast
    weights: tuple[Weight, ...]
    module: str  # the module's own name


class Settings(NamedTuple):
    """What decides about a layer's tensors beside its own shape; the same for all layers of one config."""

    lora_bias: bool
    init: bool | str
    asked: Mapping[str, Variant]
    turned: bool  # fan_in_fan_out, which every plain Linear and Conv1D that is adapted sets right for those behind it

    @classmethod
    def of(cls, config: LoraConfig) -> Self:
        return cls(config.lora_bias, config.init_lora_weights, asked_variants(config), config.fan_in_fan_out)


def lora_layers(
    module: Module, rank: int, settings: Settings, weight: Parameter | None, packing: Packing | None
) -> list[LoraLayer]:
    """The layers that replace `module`: one, or two for MultiheadAttention.

    `weight` is the module's own weight; `packing` says how a quantised one is. Raises UnsupportedModuleError and
    InvalidLoraError where PEFT would refuse, UnsupportedError where the module's shape is not known.
    """
    build = _BUILDERS.get(module.kind)
    if build is not None:
        check_shape_is_known(module, weight)
    if build is None or weight is None:
        raise UnsupportedModuleError(
            f"{module.name} is a {module.cls}, which LoRA cannot wrap.",
            where="target_modules",
            way_out="target Linear, Conv1D, Embedding, Conv1d/2d/3d or MultiheadAttention modules, or exclude this one",
        )
    return build(module, rank, settings, weight, packing)


def check_shape_is_known(module: Module, weight: Parameter | None) -> None:
    """Raises UnsupportedError for a module of a kind that has a weight, where nothing said its shape."""
    if weight is None and not module.parameters and module.kind != "MultiheadAttention":
        raise UnsupportedError(
            f"{module.name} is a {module.cls} whose shape is not known: the checkpoint holds no tensor of it.",
            where="--model",
            way_out="leave this module out, or name a checkpoint of the class that is adapted",
        )


def _linear(
    module: Module, rank: int, settings: Settings, weight: Parameter, packing: Packing | None
) -> list[LoraLayer]:
    is_conv1d = module.kind == "Conv1D"
    in_features, out_features = weight.shape if is_conv1d else reversed(weight.shape)
    matrix = Matrix(in_features, out_features, transposed=is_conv1d)
    stored = packing.dtype if packing is not None and packing.scheme in PACKED else weight.dtype
    scheme = packing.scheme if packing is not None else None
    weights = _linear_weights(module.name, matrix, rank, settings, stored, scheme)
    if packing is not None and packing.unpacked not in (None, weight.dtype):
        weights = _wide_magnitude(weights)
    return [
        LoraLayer(
            module.name, module.kind, "Linear", in_features, out_features, rank, weight.dtype, weights, module.name
        )
    ]


def _linear_weights(
    name: str, matrix: Matrix, rank: int, settings: Settings, dtype: str, scheme: str | None
) -> tuple[Weight, ...]:
    variant: Variant | BlockDiagonal | None = variant_for(settings.asked, scheme)
    if settings.lora_bias and scheme in WITHOUT_LORA_BIAS:
        raise InvalidLoraError(
            f"{name} is a layer of {scheme}, which does not support lora_bias.",
            where="lora_bias",
            way_out="leave it out",
        )
    if scheme == "torchao":
        turns = variant is not None and variant.kind == "use_dora" and settings.turned
        check_on_torchao(name, settings.init, turns=turns and matrix.in_features != matrix.out_features)
    if isinstance(variant, Variant) and variant.kind == "use_bdlora":
        variant = variant.for_module(name)
    if variant is not None and dtype in EIGHT_BIT_FLOATS:
        refuse_in_8_bit_floats(name, variant)
    if variant is not None and variant.kind == "use_dora" and dtype == "U8" and scheme not in PACKED:
        raise InvalidLoraError(
            f"use_dora does not work on {name}, whose weight holds several values in a byte.",
            where="use_dora",
            way_out="leave it out, or load a base that is not packed so",
        )
    return _plain_linear(matrix, rank, settings.lora_bias, settings.init, variant, dtype, scheme)


@lru_cache(maxsize=4096)
def _plain_linear(
    matrix: Matrix,
    rank: int,
    lora_bias: bool,
    init: bool | str,
    variant: Variant | BlockDiagonal | None,
    dtype: str,
    scheme: str | None,
) -> tuple[Weight, ...]:
    in_features, out_features, transposed = matrix
    if scheme not in INITIALISES_DEQUANTISED or str(init).lower() != "olora":
        check_initialisation(init, "Linear", rank, in_features, out_features, dtype)
    (a_rows, a_columns), (b_rows, b_columns) = ranks_after_initialisation(
        init, rank, in_features, out_features, transposed
    )
    weights = [Weight("lora_A.weight", (a_rows, a_columns)), Weight("lora_B.weight", (b_rows, b_columns))]
    if lora_bias:
        weights.append(Weight("lora_B.bias", (out_features,), bias=True))
    return tuple(vary_linear(weights, variant, matrix, rank))


@lru_cache(maxsize=4096)
def _wide_magnitude(weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    """DoRA's magnitude of a weight that is unpacked to another dtype than LoRA's: torch adds the two in float32."""
    return tuple(weight._replace(dtype="F32") if weight.part == "dora" else weight for weight in weights)


def _embedding(
    module: Module, rank: int, settings: Settings, weight: Parameter, packing: Packing | None
) -> list[LoraLayer]:
    rows, width = weight.shape
    if settings.lora_bias:
        raise InvalidLoraError(
            f"lora_bias is not supported for Embedding layers, and {module.name} is one.",
            where="lora_bias",
            way_out="leave out lora_bias, or the embedding",
        )
    variant = variant_for(settings.asked, None, ("use_dora", "mica"))
    check_initialisation(settings.init, "Embedding", rank, rows, width, weight.dtype)
    frozen = variant is not None and variant.kind == "mica"
    weights = [
        Weight("lora_embedding_A", (rank, rows)),
        Weight("lora_embedding_B", (width, rank), trainable=not frozen),
    ]
    if variant is not None and variant.kind == "use_dora":
        weights.append(Weight("lora_magnitude_vector", (width,), part="dora"))
    return [
        LoraLayer(module.name, "Embedding", "Embedding", rows, width, rank, weight.dtype, tuple(weights), module.name)
    ]


def _conv(module: Module, rank: int, settings: Settings, weight: Parameter, packing: Packing | None) -> list[LoraLayer]:
    out_channels, in_channels = weight.shape[0], weight.shape[1] * module.groups
    kernel = weight.shape[2:]
    if rank % module.groups:
        raise InvalidLoraError(
            f"{module.name} is a {module.cls} with {module.groups} groups, and r = {rank} is no multiple of them.",
            where="r",
            way_out=f"choose a multiple of {module.groups}, or leave this module out",
        )
    _check_conv_class(module)
    variant = variant_for(settings.asked, None, ("use_dora",))
    check_initialisation(settings.init, "Conv", rank, in_channels, out_channels, weight.dtype)
    ones = (1,) * len(kernel)
    weights = [
        Weight("lora_A.weight", (rank, in_channels, *kernel)),
        Weight("lora_B.weight", (out_channels, rank // module.groups, *ones)),
    ]
    if settings.lora_bias:
        weights.append(Weight("lora_B.bias", (out_channels,), bias=True))
    if variant is not None:
        weights.append(Weight("lora_magnitude_vector", (1, out_channels, *ones), part="dora"))
    layer = LoraLayer(
        module.name,
        module.kind,
        module.kind,
        in_channels,
        out_channels,
        rank,
        weight.dtype,
        tuple(weights),
        module.name,
    )
    return [layer]


def _check_conv_class(module: Module) -> None:
    """PEFT makes lora_A and lora_B of the module's own class, whose constructor may be another than torch's."""
    fault = conv_classes().get(module.cls)
    if fault is not None:
        raise UnsupportedModuleError(
            f"{module.name} is a {module.cls}, of which PEFT cannot make the LoRA matrices: {fault}.",
            where="target_modules",
            way_out="leave this module out; PEFT itself ends in an error of its own here",
        )


def _attention(
    module: Module, rank: int, settings: Settings, weight: Parameter, packing: Packing | None
) -> list[LoraLayer]:
    """in_proj is wrapped here; out_proj is wrapped within, see `attention_output`."""
    width = weight.shape[1]
    variant_for(settings.asked, None, ("none",))
    if isinstance(settings.init, str) and settings.init.lower() not in ("gaussian", "eva"):
        raise InvalidLoraError(
            f"{module.name} is a MultiheadAttention; init_lora_weights={settings.init[:40]!r} does not work there.",
            where="init_lora_weights",
            way_out="leave this module out",
        )
    weights = [Weight("lora_A.weight", (rank, width)), Weight("lora_B.weight", (3 * width, rank))]
    if settings.lora_bias:
        weights.append(Weight("lora_B.bias", (3 * width,), bias=True))
    name = module.name
    return [
        LoraLayer(name, module.kind, "MultiheadAttention", width, 3 * width, rank, weight.dtype, tuple(weights), name)
    ]


Builder = Callable[[Module, int, Settings, Parameter, "Packing | None"], "list[LoraLayer]"]
_BUILDERS: Mapping[str, Builder] = {
    "Linear": _linear,
    "Conv1D": _linear,
    "Embedding": _embedding,
    "Conv1d": _conv,
    "Conv2d": _conv,
    "Conv3d": _conv,
    "MultiheadAttention": _attention,
}


def parameter_layer(
    module: Module, name: str, parameter: Parameter, rank: int, *, is_transposed: bool, init: bool | str
) -> LoraLayer:
    """ParamWrapper around one parameter: two dimensions as a Linear's, three as (experts, ...), r rows per expert."""
    shape = parameter.shape
    if len(shape) not in (2, 3):
        raise UnsupportedModuleError(
            f"{module.name}.{parameter.name} has {len(shape)} dimensions; LoRA on a parameter takes 2 or 3.",
            where="target_parameters",
            way_out="name the parameter more precisely",
        )
    if len(shape) == 3:
        experts, first, second = shape
        in_features, out_features = (first, second) if is_transposed else (second, first)
    else:
        experts, (out_features, in_features) = 1, shape
    a: tuple[int, ...]
    b: tuple[int, ...]
    a, b = (rank * experts, in_features), (out_features, rank * experts)
    if isinstance(init, str) and init.lower() not in ("gaussian", "eva"):
        own = next((p for p in module.parameters if p.name == "weight"), None)
        a, b = wrapped_parameter_shapes(init, rank, (a, b), own.shape if own else None, parameter.dtype)
    weights = (Weight("lora_A.weight", a), Weight("lora_B.weight", b))
    return LoraLayer(
        name, module.kind, "ParamWrapper", in_features, out_features, rank, parameter.dtype, weights, module.name
    )
