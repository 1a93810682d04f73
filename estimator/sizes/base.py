"""What the base weighs: parameters, bytes at each precision, and what `get_memory_footprint()` would print."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from math import prod
from typing import Any, NamedTuple

from estimator.architecture.module import ModuleTree, Parameter, QuantisedLayer, named_buffers
from estimator.checkpoint.checkpoint import Checkpoint
from estimator.checkpoint.quantization import quantization_of
from estimator.dtypes import BITS
from estimator.errors import UnsupportedError, UsageError
from estimator.notes import Note
from estimator.request.load_options import LoadOptions
from estimator.sizes.attention_support import checkpoints
from estimator.sizes.dtype_plan import dtypes
from estimator.sizes.loading import FLOAT_PRECISIONS, as_loaded, load_dtype

QUANTISED = ("int8", "nf4")


class Loaded(NamedTuple):
    """The base as this request loads it; None where neither headers nor config.json say in which dtype."""

    precision: str  # as asked: "stored", "nf4", ...
    dtype: str | None = None  # of what is not quantised, safetensors' name
    footprint_bytes: int | None = None  # parameters and buffers: get_memory_footprint() after from_pretrained()
    state_bytes: int | None = None  # of quantisation, outside the footprint
    weight_bytes: int | None = None  # parameters alone, state included
    prepared_footprint_bytes: int | None = None  # after prepare_model_for_kbit_training; None where it is not called


class BaseSizes(NamedTuple):
    """What the base weighs, in parameters and bytes."""

    parameters: int  # logical, tied weights once
    checkpoint_bytes: int | None  # of all tensors as stored; None without headers
    bytes: Mapping[str, int]  # precision that loads -> parameters and quantisation state, without buffers
    footprint: Mapping[str, int]  # precision -> get_memory_footprint()
    loaded: Loaded
    all_parameters: int  # the base's share of get_nb_trainable_parameters()[1], as this request loads it
    model: ModuleTree  # as this request loads and prepares it: what PEFT is given
    notes: tuple[Note, ...] = ()  # what the reader must know of the way it is loaded


def base_sizes(tree: ModuleTree, checkpoint: Checkpoint | None, load: LoadOptions) -> BaseSizes:
    """Counts and bytes of the base at every precision and as `load` asks for it.

    Raises UsageError where transformers would refuse the options.
    """
    casts: dict[Any, ModuleTree] = {}
    loaded = as_loaded(tree, checkpoint, load, casts)
    at = {load.base_precision: loaded} if load.base_precision in QUANTISED else {}
    with suppress(UnsupportedError):  # of config.json's dtype, where this request has another: it then has no columns
        at = {p: at.get(p) or as_loaded(tree, checkpoint, load._replace(base_precision=p), casts) for p in QUANTISED}
    floats = {p: _float_bytes(tree, dtype) for p, dtype in FLOAT_PRECISIONS.items()}
    packed = {p: (weight_bytes(model), buffer_bytes(model)) for p, model in at.items()}
    weights, state = weight_bytes(loaded), state_bytes(loaded)
    if load.base_precision == "int8":
        _check_inputs(loaded)
    if load.prepare_kbit:
        _check_checkpointing(tree, load)
    model = prepared(loaded) if load.prepare_kbit else loaded
    return BaseSizes(
        parameters=parameters_of(tree),
        checkpoint_bytes=checkpoint.bytes if checkpoint is not None else None,
        bytes={p: own for p, (own, _) in floats.items()} | {p: packed[p][0] + state_bytes(at[p]) for p in at},
        footprint={p: own + buffers for p, (own, buffers) in (floats | packed).items()},
        loaded=Loaded(
            precision=load.base_precision,
            dtype=load_dtype(tree.config, checkpoint, load),
            footprint_bytes=weights + buffer_bytes(loaded),
            state_bytes=state,
            weight_bytes=weights + state,
            prepared_footprint_bytes=footprint_bytes(model) if load.prepare_kbit else None,
        ),
        all_parameters=counted_by_peft(loaded),
        model=model,
        notes=_notes(tree, loaded, load),
    )


def _float_bytes(tree: ModuleTree, dtype: str) -> tuple[int, int]:
    """Bytes of parameters and of buffers under from_pretrained(dtype=...), as `as_loaded` would have them."""
    dtype_of = dtypes(tree, dtype)

    def together(tensors: Iterable[tuple[str, Parameter]]) -> int:
        return sum(_bytes(tensor.shape, dtype_of(name, tensor)) for name, tensor in tensors)

    return together(run_time_parameters(tree)), together(named_buffers(tree.modules))


def _notes(tree: ModuleTree, loaded: ModuleTree, load: LoadOptions) -> tuple[Note, ...]:
    quantization = quantization_of(tree.config)
    if quantization is not None and load.base_precision != "stored":
        return (
            Note(
                "stored_quantised",
                f"The checkpoint is stored as {quantization.scheme}; {load.base_precision} is what its weights would "
                "be unpacked, which from_pretrained() alone does not do.",
            ),
        )
    return (*(note for note in loaded.notes if note not in tree.notes), *_without_effect(load))


def _without_effect(load: LoadOptions) -> Iterator[Note]:
    """What BitsAndBytesConfig alone reads, and a second dtype, where the base is loaded otherwise."""
    four_bit = load.base_precision in ("nf4", "fp4")
    given = {
        "skip_modules": load.skip_modules is not None and not four_bit and load.base_precision != "int8",
        "double_quant": load.double_quant and not four_bit,
        "quant_storage": load.quant_storage != "U8" and not four_bit,
        "compute_dtype": load.compute_dtype is not None and not four_bit,
        "dtype": load.dtype not in ("auto", FLOAT_PRECISIONS.get(load.base_precision, load.dtype)),
    }
    if names := [name for name, ignored in given.items() if ignored]:
        message = f"{' and '.join(names)} changes nothing for a base that is loaded as {load.base_precision}."
        yield Note("load_options_ignored", message)


def parameters_of(tree: ModuleTree) -> int:
    """The model's own parameters, tied weights once, packed ones as what they stand for."""
    return sum(prod(p.shape) for _, p in run_time_parameters(tree._replace(quantised={})))


def footprint_bytes(model: ModuleTree) -> int:
    """`get_memory_footprint()` of a loaded tree: distinct parameters and all buffers, persistent or not."""
    return weight_bytes(model) + buffer_bytes(model)


def buffer_bytes(model: ModuleTree) -> int:
    """Bytes of all buffers, persistent or not."""
    return sum(_bytes(buffer.shape, buffer.dtype) for buffer in _buffers(model))


def weight_bytes(model: ModuleTree) -> int:
    """Bytes of a loaded tree's distinct parameters."""
    return sum(_bytes(p.shape, p.dtype) for _, p in run_time_parameters(model))


def state_bytes(model: ModuleTree) -> int:
    """Bytes of quantisation that are neither parameter nor buffer; a tied weight was never converted and has none."""
    return sum(layer.state_bytes for name, layer in model.quantised.items() if f"{name}.weight" not in model.tied)


def counted_by_peft(model: ModuleTree) -> int:
    """Elements as `get_nb_trainable_parameters()[1]` counts them: a Params4bit stands for two elements a byte."""
    factors = {f"{name}.weight": layer.packed_factor for name, layer in model.quantised.items()}
    return sum(prod(p.shape) * factors.get(name, 1) for name, p in run_time_parameters(model))


def prepared(model: ModuleTree) -> ModuleTree:
    """What `prepare_model_for_kbit_training` leaves: float16 and bfloat16 become float32, Params4bit and buffers stay.

    peft 0.21.2, peft/utils/other.py; schemes in LEFT_ALONE are not cast at all. What PEFT saves of the base, embeddings
    and the copies of modules_to_save, is float32 from then on.
    """
    if any(layer.scheme in LEFT_ALONE for layer in model.quantised.values()):
        return model
    return model._replace(
        modules=tuple(module._replace(parameters=_widened(module.parameters)) for module in model.modules),
        quantised={
            name: layer._replace(parameters=_unpacked_widened(layer)) for name, layer in model.quantised.items()
        },
    )


def _check_checkpointing(tree: ModuleTree, load: LoadOptions) -> None:
    """Raises UsageError where prepare_model_for_kbit_training turns on gradient checkpointing that the class lacks."""
    quantization = quantization_of(tree.config)
    scheme = quantization.scheme if quantization is not None and load.base_precision == "stored" else ""
    asked = load.base_precision in ("int8", "nf4", "fp4") or scheme in LEFT_ALONE or scheme.startswith("bitsandbytes")
    if asked and not checkpoints(tree.config.get("model_type"), tree.architecture):
        raise UsageError(
            f"prepare_model_for_kbit_training turns gradient checkpointing on, which {tree.architecture} lacks.",
            where="--prepare-kbit",
            way_out="leave it out: this class trains in 4 and 8 bits as it is loaded, or not at all",
        )


def _check_inputs(loaded: ModuleTree) -> None:
    """Raises UsageError for a layer of no inputs, by which bitsandbytes' int8_vectorwise_quant divides."""
    for name, layer in loaded.quantised.items():
        weight = layer.parameters[0]
        if weight.shape[-1] == 0 and weight.dtype == "I8":
            raise UsageError(
                f"{name} has no inputs, and bitsandbytes fails to quantise it to 8 bits.",
                where="--base-precision int8",
                way_out="take nf4, or skip this module with --skip-modules",
            )


def _widened(parameters: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
    return tuple(p._replace(dtype="F32") if p.dtype in ("F16", "BF16") else p for p in parameters)


def _unpacked_widened(layer: QuantisedLayer) -> tuple[Parameter, ...]:
    first = 1 if layer.packed_factor > 1 else 0  # a Params4bit, whatever its storage dtype
    return (*layer.parameters[:first], *_widened(layer.parameters[first:]))


LEFT_ALONE = frozenset({"gptq", "aqlm", "eetq", "hqq", "torchao"})


def run_time_parameters(model: ModuleTree) -> Iterator[tuple[str, Parameter]]:
    """`named_parameters()` of a loaded tree: full name and tensor, tied ones once."""
    quantised, tied = model.quantised, model.tied
    for module in model.modules:
        layer = quantised.get(module.name) if quantised else None
        parameters = layer.parameters if layer else module.parameters
        if parameters:
            prefix = f"{module.name}." if module.name else ""
            for parameter in parameters:
                name = prefix + parameter.name
                if name not in tied:
                    yield name, parameter


def _buffers(model: ModuleTree) -> Iterator[Parameter]:
    for module in model.modules:
        yield from module.buffers
    for layer in model.quantised.values():
        yield from layer.buffers


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    return prod(shape) * BITS[dtype] // 8
