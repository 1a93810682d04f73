"""Loading in 4 or 8 bits through bitsandbytes (0.50.2), as transformers (5.23.0) does it.

A 4-bit weight of n elements is ceil(n / 2) bytes, held as [bytes / itemsize, 1] of the storage dtype; beside it stand
a code book (16 float32) and a float32 absmax for each block of 64 elements. Double quantisation turns the absmax into
bytes and adds a float32 for each 256 of them, a code book of 256 float32 and a float32 offset. An 8-bit weight is int8,
with a float32 for each row beside it. What stands beside a weight is in no footprint. Only what is read from a file is
quantised: a weight that is made anew stays plain, in the class that was to hold a packed one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod

from estimator.architecture.module import VARIES, Module, ModuleTree, Parameter, QuantisedLayer
from estimator.dtypes import BITS, to_torch
from estimator.errors import UsageError
from estimator.lora.closest import listed
from estimator.notes import Note
from estimator.request.load_options import LoadOptions
from estimator.sizes.skipping import OPTION, skipped_by, skips

BLOCK = 64  # elements that share an absmax: bnb.functional.quantize_4bit
NESTED_BLOCK = 256  # absmax bytes that share one of their own
CODE_BYTES = 16 * 4
NESTED_CODE_BYTES = 256 * 4
OFFSET_BYTES = 4
NO_STATISTICS = "its weight is a plain one, without the `compress_statistics` that PEFT asks a 4-bit layer for"
STATE_TEXT = "weight.quant_state.bitsandbytes__"


def quantise(tree: ModuleTree, load: LoadOptions, *, where: str = OPTION) -> ModuleTree:
    """The tree with the layers that `load` converts in `quantised`; the same tree where it converts none.

    where: what says `load.skip_modules`; CONFIG of a checkpoint that is packed. A note names those of an option's that
    spare no layer.
    """
    convert = {"int8": eight_bit_layer, "nf4": four_bit_layer, "fp4": four_bit_layer}.get(load.base_precision)
    if convert is None:
        return tree
    skipped = skips(tree, load.skip_modules, where=where)
    convertible = [module for module in tree.modules if _convertible(module)]
    alike: dict[tuple[str, tuple[Parameter, ...]], QuantisedLayer] = {}  # layers of few shapes make up a model
    layers = {}
    for module in convertible:
        if not skipped(module.name):
            if f"{module.name}.weight" in tree.unstored and where == OPTION:
                shell = convert(module, load._replace(quant_storage="U8"))
                layers[module.name] = unquantised(shell, module.parameters)
                continue
            if f"{module.name}.weight" in tree.tied:  # takes another's weight: it has no bytes of its own to fit
                layers[module.name] = convert(module, load._replace(quant_storage="U8"))
                continue
            kind = module.kind, module.parameters
            layers[module.name] = alike.get(kind) or alike.setdefault(kind, convert(module, load))
    notes = _spare_nothing(tree, load.skip_modules or (), convertible) if where == OPTION else ()
    return tree._replace(quantised=layers, notes=(*tree.notes, *notes))


def _spare_nothing(tree: ModuleTree, patterns: Sequence[str], convertible: Sequence[Module]) -> tuple[Note, ...]:
    names = {module.name for module in convertible}
    missing = [pattern for pattern, spared in skipped_by(tree, patterns, where=OPTION).items() if not spared & names]
    if not missing:
        return ()
    message = f"skip_modules spares no layer that would be quantised by {listed(missing)}."
    return (Note("skips_not_found", message),)


def _convertible(module: Module) -> bool:
    """Exactly torch.nn.Linear, or a Conv1D (transformers, `replace_with_bnb_linear`); subclasses of Linear stay."""
    return bool(module.parameters) and (module.kind == "Conv1D" or (module.kind, module.cls) == ("Linear", "Linear"))


def four_bit_layer(module: Module, load: LoadOptions) -> QuantisedLayer:
    """bnb.nn.Linear4bit in place of a module; raises UsageError where its bytes don't fit the storage dtype."""
    _, shape, dtype, *_ = module.parameters[0]
    elements = prod(shape)
    packed, width = -(-elements // 2), BITS[load.quant_storage] // 8
    if packed % width:
        raise UsageError(
            f"{module.name} is {packed:,} bytes in 4 bits, and {load.quant_storage} elements are {width} bytes wide.",
            where=f"--quant-storage {load.quant_storage}",
            way_out="take uint8, or skip this module with --skip-modules",
        )
    weight = Parameter("weight", (packed // width, 1), load.quant_storage, True)
    return QuantisedLayer(
        scheme="bitsandbytes_4bit",
        cls="Linear4bit",
        parameters=(weight, *module.parameters[1:]),
        state_bytes=four_bit_state_bytes(elements, load.double_quant),
        saved_beside=saved_state(shape, dtype, load.base_precision, load.double_quant),
        saved_anew=saved_state(shape, "F32", load.base_precision, load.double_quant),
        packed_factor=2 * width,
        compute_dtype=load.compute_dtype or "F32",
        unpacked_dtype=dtype,
    )


def saved_state(shape: tuple[int, ...], dtype: str, quant_type: str, double_quant: bool) -> tuple[Parameter, ...]:
    """What state_dict() has beside a weight of this shape that was quantised from this dtype (`QuantState.as_dict`).

    The text of double quantisation holds the float32 offset, in as many digits as that needs.
    """
    blocks = -(-prod(shape) // BLOCK)
    text = {"quant_type": quant_type, "blocksize": BLOCK, "dtype": to_torch(dtype), "shape": shape}
    nested = (
        Parameter("weight.nested_absmax", (-(-blocks // NESTED_BLOCK),), "F32"),
        Parameter("weight.nested_quant_map", (NESTED_CODE_BYTES // 4,), "F32"),
    )
    return (
        Parameter("weight.absmax", (blocks,), "U8" if double_quant else "F32"),
        Parameter("weight.quant_map", (CODE_BYTES // 4,), "F32"),
        *(nested if double_quant else ()),
        Parameter(f"{STATE_TEXT}{quant_type}", VARIES if double_quant else (len(json.dumps(text)),), "U8"),
    )


def four_bit_state_bytes(elements: int, double_quant: bool) -> int:
    """Bytes beside a 4-bit weight, outside the footprint (bnb.functional.QuantState)."""
    blocks = -(-elements // BLOCK)
    if not double_quant:
        return CODE_BYTES + 4 * blocks
    return CODE_BYTES + blocks + 4 * -(-blocks // NESTED_BLOCK) + NESTED_CODE_BYTES + OFFSET_BYTES


def eight_bit_layer(module: Module, load: LoadOptions) -> QuantisedLayer:
    """bnb.nn.Linear8bitLt in place of a module: int8 [out, in], and SCB beside it."""
    shape = module.parameters[0].shape
    out_first = tuple(reversed(shape)) if module.kind == "Conv1D" else shape
    return QuantisedLayer(
        scheme="bitsandbytes_8bit",
        cls="Linear8bitLt",
        parameters=(Parameter("weight", out_first, "I8", True), *module.parameters[1:]),
        state_bytes=4 * out_first[0],
        saved_beside=(Parameter("SCB", out_first[:1], "F32"), Parameter("weight_format", (), "U8")),
    )


def unquantised(layer: QuantisedLayer, parameters: tuple[Parameter, ...]) -> QuantisedLayer:
    """The class that was to hold packed weights, around plain ones: bitsandbytes cannot run it."""
    return QuantisedLayer(
        scheme=layer.scheme,
        cls=layer.cls,
        parameters=parameters,
        saved_beside=(),
        saved_anew=(),
        refusal=NO_STATISTICS if layer.cls == "Linear4bit" else None,
        compute_dtype=layer.compute_dtype,
    )
