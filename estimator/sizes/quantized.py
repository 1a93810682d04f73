"""The layers of a checkpoint that is stored quantised, as `from_pretrained` leaves them in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from estimator.architecture.module import Module, ModuleTree, QuantisedLayer
from estimator.checkpoint.checkpoint import Checkpoint
from estimator.checkpoint.quantization import Quantization, quantization_of
from estimator.lora.closest import listed
from estimator.notes import Note
from estimator.sizes import bitsandbytes
from estimator.sizes.schemes.compressed import check_formats, compressed_layers, untied
from estimator.sizes.schemes.compressed_experts import check_joined
from estimator.sizes.schemes.fp8 import fbgemm_layers, fp8_layers
from estimator.sizes.schemes.gemma import gemma_layers, with_layers
from estimator.sizes.schemes.held_otherwise import KEEP_THEIR_SHAPES, held_otherwise
from estimator.sizes.schemes.hqq import hqq_layers
from estimator.sizes.schemes.others import (
    UNADAPTABLE,
    aqlm_layers,
    bitnet_layers,
    check_loads,
    eetq_layers,
    is_unpacked,
    mlx_layers,
    mxfp4_layers,
    quanto_layers,
    unadaptable_layers,
    with_stored_scales,
)
from estimator.sizes.schemes.packed_ints import WITHOUT_KERNEL, auto_round_layers, awq_layers, gptq_layers
from estimator.sizes.schemes.saved_config import bitsandbytes_options
from estimator.sizes.schemes.scales import (
    KEPT_BY_NONE,
    SCALES,
    check_splitting,
    kept_in_float32,
    with_scales,
    with_stored_dtypes,
)
from estimator.sizes.schemes.stored_bitsandbytes import as_the_file_has_them
from estimator.sizes.schemes.torchao import as_stored, check_names, is_first_version, torchao_layers
from estimator.sizes.schemes.unloadable_bitsandbytes import check_against_file
from estimator.sizes.skipping import CONFIG

Layers = Callable[[ModuleTree, Quantization, str], dict[str, QuantisedLayer]]


def quantise_as_stored(
    tree: ModuleTree, dtype: str, checkpoint: Checkpoint | None, stored: ModuleTree | None = None
) -> ModuleTree:
    """The tree with the layers that its quantization_config converts in `quantised`; a note where no rule is known.

    dtype: what is not quantised takes it, safetensors' name. checkpoint: as stored. stored: the tree before it took it.
    """
    quantization = quantization_of(tree.config)
    if quantization is None:
        return tree
    _check(tree, quantization, checkpoint)
    scheme = quantization.scheme
    if scheme in UNADAPTABLE:
        converted = unadaptable_layers(tree, quantization)
        return tree._replace(quantised=converted, notes=(*tree.notes, _unknown(scheme)))
    if scheme.startswith("auto-round ("):  # of other numbers than integers
        converted = auto_round_layers(tree, quantization, dtype)
        return tree._replace(quantised=converted, notes=(*tree.notes, _unknown(scheme)))
    if any(note.code == "unknown_packing" for note in tree.notes):
        return tree
    layers = SCHEMES.get(scheme)
    if layers is None:
        return tree._replace(notes=(*tree.notes, _unknown(scheme)))
    tree = tree._replace(modules=tuple(upright(module) for module in tree.modules))
    if scheme == "torchao" and checkpoint is not None:
        converted = as_stored(tree, quantization, dtype, checkpoint)
    else:
        converted = layers(tree, quantization, dtype)
    if scheme in REASSEMBLED and converted and checkpoint is not None:
        check_against_file(converted, tree, checkpoint)
        converted, notes = as_the_file_has_them(converted, tree, checkpoint)
        return tree._replace(quantised=converted, notes=(*tree.notes, *notes))
    if scheme == "bitsandbytes_4bit":
        converted = {name: layer._replace(saved_beside=None) for name, layer in converted.items()}
    if scheme == "compressed-tensors":
        if checkpoint is not None:
            check_joined(tree, converted, checkpoint, quantization.fields)
        tree = tree._replace(tied=untied(tree, converted, checkpoint))
    if scheme == "gemma":
        tree = with_layers(tree, converted, checkpoint)
    if scheme == "quanto" and checkpoint is not None:
        converted = with_stored_scales(converted, dtype, checkpoint.tensors)
    if suffix := SCALES.get(scheme):
        converted = kept_in_float32(tree, with_scales(tree, converted, checkpoint, suffix), dtype)
        if stored is not None and checkpoint is not None:
            tree = with_stored_dtypes(tree, stored, converted, checkpoint, suffix)
    notes = (*tree.notes, *_remarks(tree, quantization, converted, checkpoint))
    return tree._replace(quantised=converted, notes=notes)


def _check(tree: ModuleTree, quantization: Quantization, checkpoint: Checkpoint | None) -> None:
    """Raises LoraSizeError for what from_pretrained fails on before it converts a layer."""
    check_loads(quantization.scheme)
    if quantization.scheme in KEPT_BY_NONE:
        check_splitting(tree, {}, "")
    if quantization.scheme == "torchao" and checkpoint is not None:
        check_names(tree, checkpoint.tensors)
    if quantization.scheme == "compressed-tensors":
        check_formats(quantization.fields)


def _remarks(
    tree: ModuleTree,
    quantization: Quantization,
    converted: Mapping[str, QuantisedLayer],
    checkpoint: Checkpoint | None,
) -> Iterator[Note]:
    scheme = quantization.scheme
    if caution := CAUTIONS.get(scheme) if converted else _unconverted(scheme):
        yield caution
    if scheme == "gptq" and quantization.fields.get("dynamic"):
        yield _DYNAMIC
    if anew := [name for name, layer in converted.items() if layer.cls == WITHOUT_KERNEL]:
        message = f"AutoRound has no kernel for {listed(anew)}: from_pretrained makes these layers anew, unquantised."
        yield Note("packed_missing", message)
    if scheme == "torchao" and is_first_version(quantization.fields):
        yield _FIRST_VERSION
    if scheme in KEEP_THEIR_SHAPES and checkpoint is not None:
        yield from held_otherwise(tree, converted, checkpoint)


def keeps_stored_dtype(config: Mapping[str, Any]) -> bool:
    """Whether tensors with the word `weight` in their name keep the file's dtype, whatever dtype is asked for.

    So it is where the quantiser reassembles `weight` from several tensors, or unpacks it (transformers 5.23.0,
    `HfQuantizer.get_new_dtype` and `get_weight_conversions`).
    """
    quantization = quantization_of(config)
    if quantization is None:
        return False
    return quantization.scheme in REASSEMBLED or (quantization.scheme == "bitnet" and is_unpacked(quantization.fields))


def _bitsandbytes(tree: ModuleTree, quantization: Quantization, _dtype: str) -> dict[str, QuantisedLayer]:
    return dict(bitsandbytes.quantise(tree, bitsandbytes_options(quantization), where=CONFIG).quantised)


def upright(module: Module) -> Module:
    """A Conv1D whose weight was stored as [out, in], the way quantisers keep it, turned back to (in, out)."""
    if module.kind != "Conv1D" or len(module.parameters) < 2:
        return module
    weight, bias = module.parameters[:2]
    if weight.shape[-1:] == bias.shape or weight.shape[:1] != bias.shape:
        return module
    return module._replace(parameters=(weight._replace(shape=weight.shape[::-1]), *module.parameters[1:]))


def _unconverted(scheme: str) -> Note:
    return Note(
        "nothing_quantised",
        f"config.json says {scheme}, but no layer of this class would be converted: bytes are the plain model's.",
    )


def _unknown(scheme: str) -> Note:
    if not scheme.startswith(_OTHERS):
        what = (
            f"transformers 5.23 knows no quantiser {scheme[:60]!r} and loads this model as if its weights were plain."
        )
        return Note("unknown_quantisation", what)
    refused = scheme in UNADAPTABLE or scheme.startswith("auto-round (")
    return Note(
        "unknown_quantisation",
        f"No rule is known for weights stored by {scheme!r}: the base's bytes in memory are those of the plain model, "
        f"and PEFT {'refuses its layers' if refused else 'may refuse layers that are counted here'}.",
    )


REASSEMBLED = ("bitsandbytes_4bit", "bitsandbytes_8bit")

SCHEMES: Mapping[str, Layers] = {
    "bitsandbytes_4bit": _bitsandbytes,
    "bitsandbytes_8bit": _bitsandbytes,
    "gptq": gptq_layers,
    "auto-round": auto_round_layers,
    "awq": awq_layers,
    "fp8": fp8_layers,
    "mxfp8": fp8_layers,
    "fbgemm_fp8": fbgemm_layers,
    "compressed-tensors": compressed_layers,
    "mxfp4": mxfp4_layers,
    "bitnet": bitnet_layers,
    "torchao": torchao_layers,
    "quanto": quanto_layers,
    "eetq": eetq_layers,
    "aqlm": aqlm_layers,
    "hqq": hqq_layers,
    "gemma": gemma_layers,
    "mlx": mlx_layers,
}

# Of transformers' quantisers (AUTO_QUANTIZATION_CONFIG_MAPPING) those that are not among the schemes.
_OTHERS = (
    "auto-round", "fouroversix", "gguf", "metal", "quark", *UNADAPTABLE,
)  # fmt: skip

_GPTQ = Note("kernel_dependent", "gptqmodel's PyTorch kernels are assumed; CUDA kernels hold other buffers.")
_DYNAMIC = Note(
    "dynamic_gptq",
    "Layers differ in bits or are left out (`dynamic`), which gptqmodel's own loader reads; from_pretrained, through "
    "optimum 2.3.0, does not.",
)
_FIRST_VERSION = Note(
    "older_torchao", "torchao 0.18 reads the second version of this format alone; these weights need an older one."
)
CAUTIONS: Mapping[str, Note] = {
    "gptq": _GPTQ,
    "auto-round": Note(
        "kernel_dependent",
        "The footprint is that of the packed tensors, as AutoRound's own kernels hold them. PEFT adapts the layers if "
        "AutoRound takes gptqmodel's kernels (on a GPU, where gptqmodel is installed), and refuses its own.",
    ),
    "awq": Note("kernel_dependent", "The footprint is that of the packed tensors; kernels hold buffers beside them."),
    "fp8": Note(
        "gpu_needed",
        "FP8 stays packed on a GPU of compute capability 8.9 or more; elsewhere transformers unpacks it to bfloat16.",
    ),
    "mxfp4": Note(
        "gpu_needed",
        "The packed form is assumed, as a GPU with Triton kernels holds it; elsewhere transformers unpacks MXFP4.",
    ),
    "torchao": Note(
        "logical_footprint",
        "torchao's weights report their logical size: the footprint is the plain model's, the memory held is less.",
    ),
    "quanto": Note(
        "logical_footprint",
        "quanto's weights report their logical size: the footprint is the plain model's, the memory held is less. "
        "transformers 5.23 quantises so on loading, and leaves weights out that are stored so.",
    ),
    "hqq": Note("not_loadable", "transformers 5.23 does not load HQQ checkpoints; the figures are hqq's own."),
    "mlx": Note("not_loadable", "MLX's layout: transformers cannot load it, so PEFT adapts none of it."),
}
