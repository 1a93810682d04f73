"""GPTQ and AWQ: integers packed into int32 words, all of them buffers (gptqmodel 7.7.0, optimum 2.3.0).

gptq        qweight I32 [in bits/32, out]   qzeros I32 [groups, out bits/32]   scales F16 [groups, out]   g_idx I32 [in]
awq gemm    qweight I32 [in, out bits/32]   qzeros I32 [groups, out bits/32]   scales F16 [groups, out]
gemv        qweight I32 [out, in bits/32]   qzeros I32 [out, width]            scales F16 [out, 8 width]
gemv_fast   qweight I16 [out/4, in]         qzeros F16 [8 width, out]          scales F16 [8 width, out]
llm-awq     the same, with scaled_zeros for qzeros

gptqmodel's PyTorch kernels hold two more buffers of shifts; its CUDA kernels (Marlin, ExLlama) hold workspaces of
their own. None of these classes is a torch.nn.Linear, so PEFT's all-linear passes them by; named targets are adapted.
AutoRound (0.16.1) packs as GPTQ without g_idx, or as AWQ; its own kernels hold what is packed alone, and PEFT knows
none of them. Where none fits a layer's shape it is left with a weight that is drawn anew ("auto_round:fake").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from math import ceil
from pathlib import Path

from estimator.architecture.module import Module, ModuleTree, Parameter, QuantisedLayer
from estimator.architecture.stored_names import by_module
from estimator.checkpoint.layer_fields import Fields, auto_round_by_layer, gptq_by_layer
from estimator.checkpoint.packed_layouts import awq_format, packs_as_awq
from estimator.checkpoint.quantization import Quantization
from estimator.errors import UnsupportedError
from estimator.sizes.schemes.read_weights import first_read
from estimator.sizes.skipping import skips

# optimum 2.3.0, gptq/constants.py: where blocks are looked for when the config does not say.
BLOCK_PATTERNS = (
    "transformer.h", "model.decoder.layers", "gpt_neox.layers", "model.layers", "model.language_model.layers", "h",
    "decoder.layers", "layers",
)  # fmt: skip

WITHOUT_KERNEL = "FakeActQuantLinear"
_GROUP = 128  # where nothing is said: GPTQConfig, AwqConfig, AutoRoundConfig


def gptq_layers(tree: ModuleTree, quantization: Quantization, _dtype: str) -> dict[str, QuantisedLayer]:
    """Every Linear and Conv1D inside the blocks that optimum converts (`GPTQQuantizer.convert_model`, `get_layers`).

    Raises UnsupportedError for a width that GPTQConfig refuses, or none, for a class that does not take input_ids first
    (`GptqHfQuantizer`), and where optimum finds no blocks.
    """
    fields = quantization.fields
    if fields.get("bits") not in (2, 3, 4, 8):
        raise _not_loaded("5.23", f"GPTQ weights in {fields.get('bits', 'no')} bits")
    if not _not_text().isdisjoint((tree.architecture, tree.config.get("model_type"))):
        raise _not_loaded("5.23", f'GPTQ weights of {tree.architecture}: "We can only quantize pure text model"')
    inner = tuple(name for group in fields.get("modules_in_block_to_quantize") or () for name in group)
    start, wrapped = _start_of_blocks(tree, fields.get("block_name_to_quantize")), _wrapped(tree)
    inside = [name for name in wrapped if name.startswith(start) and (not inner or name.endswith(inner))]
    layers = _by_layer(wrapped, inside, gptq_by_layer(fields, inside), fields, _gptq_layer)
    _check_unread(tree, layers, "5.23 with optimum 2.3", "GPTQ")
    return layers


def _check_unread(tree: ModuleTree, packed: Iterable[str], release: str, scheme: str) -> None:
    if read := first_read(tree.modules, packed, linear=False):
        name, cls = read
        raise _not_loaded(release, f"{scheme} weights of {name}: what initialises {cls} reads its `weight`")


@cache
def _not_text() -> frozenset[str]:
    """Classes, and model types all of whose classes, that take something else than input_ids first (not_text.facts)."""
    lines = Path(__file__).with_name("not_text.facts").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


def auto_round_layers(tree: ModuleTree, quantization: Quantization, _dtype: str) -> dict[str, QuantisedLayer]:
    """Every Linear and Conv1D inside the blocks, and what `extra_config` and `dynamic` name beside them."""
    fields = {**quantization.fields, "extra_config": by_module(tree, quantization.fields.get("extra_config") or {})}
    blocks, wrapped = _blocks(tree, fields.get("block_name_to_quantize")), _wrapped(tree)
    inside = [name for name in wrapped if name.startswith(blocks)]
    outside = [name for name in wrapped if not name.startswith(blocks)]
    own = auto_round_by_layer(fields, inside, outside)
    make = _auto_round_layer if quantization.scheme == "auto-round" else _layer_in_floats
    return _by_layer(
        wrapped,
        [*inside, *(name for name in outside if name in own)],
        own,
        fields,
        make,
    )


def _wrapped(tree: ModuleTree) -> dict[str, Module]:
    """None of a class derived from these, as optimum and AutoRound have it: Falcon's stay as they are."""
    return {m.name: m for m in tree.modules if m.kind in ("Linear", "Conv1D") and m.cls == m.kind and m.parameters}


def _by_layer(
    modules: Mapping[str, Module],
    names: Sequence[str],
    own: Mapping[str, Fields | None],
    fields: Fields,
    make: Callable[[Module, Fields], QuantisedLayer],
) -> dict[str, QuantisedLayer]:
    """A layer for each name, by its own fields or those of all; None among its own leaves it out."""
    said = {name: own.get(name, fields) for name in names}
    return {name: make(modules[name], one) for name, one in said.items() if one is not None}


def _start_of_blocks(tree: ModuleTree, said: str | Sequence[str] | None) -> tuple[str, ...]:
    """What names of layers begin with that are converted; no dot ends it (`get_block_name_with_pattern`)."""
    if said:
        return (said,) if isinstance(said, str) else tuple(said)
    found = next((one for one in BLOCK_PATTERNS if any(m.name.startswith(one) for m in tree.modules)), None)
    if found is None:
        raise _not_loaded(
            "5.23 with optimum 2.3", f"GPTQ weights of {tree.architecture}: optimum finds no blocks in it"
        )
    return (found,)


def _blocks(tree: ModuleTree, said: str | Sequence[str] | None) -> tuple[str, ...]:
    """What names inside the blocks begin with; several are a list, or lie between commas."""
    if said:
        names = said.split(",") if isinstance(said, str) else said
        return tuple(f"{name}." for name in by_module(tree, dict.fromkeys(name.strip() for name in names)))
    named = [module.name for module in tree.modules]
    return tuple(f"{p}." for p in BLOCK_PATTERNS if any(name.startswith(p) for name in named))[:1]


def _gptq_layer(module: Module, fields: Fields) -> QuantisedLayer:
    (rows, columns), bits = _in_out(module), int(fields.get("bits") or 4)
    groups = _groups(rows, fields.get("group_size", _GROUP))
    return QuantisedLayer(
        scheme="gptq",
        cls="QuantLinear",
        parameters=(),
        buffers=(
            Parameter("qweight", (rows * bits // 32, columns), "I32", True),
            Parameter("qzeros", (groups, columns * bits // 32), "I32", True),
            Parameter("scales", (groups, columns), "F16", True),
            Parameter("g_idx", (rows,), "I32", True),
            *(bias._replace(dtype="F16", fixed=True) for bias in module.parameters[1:]),
            Parameter("wf_unsqueeze_zero", _shifts(bits), "I32", True, persistent=False),
            Parameter("wf_unsqueeze_neg_one", _shifts(bits), "I32", True, persistent=False),
        ),
        saved_beside=(),
        is_linear=False,
    )


def _layer_in_floats(module: Module, fields: Fields) -> QuantisedLayer:
    """A layer of AutoRound's own, on every device; with plain parameters, as how it is packed is not known."""
    packed = str(fields.get("data_type") or fields.get("packing_format"))[:40]
    refusal = f"PEFT's LoRA supports none of AutoRound's layers in {packed}"
    return QuantisedLayer("auto-round", "QuantLinear", module.parameters, is_linear=False, refusal=refusal)


def _auto_round_layer(module: Module, fields: Fields) -> QuantisedLayer:
    """Packed, or a layer with a plain weight, which no file has, where no kernel fits (`check_compatible`)."""
    (rows, columns), as_awq = _in_out(module), packs_as_awq(fields)
    size, step = fields.get("group_size") or _GROUP, 16 if as_awq else 32
    in_groups = as_awq or fields.get("bits", 4) in _ANY_GROUPS or rows % size == 0
    if rows % step or columns % step or not in_groups:
        refusal = (
            f"AutoRound has no kernel for {rows} x {columns} weights, and PEFT's LoRA supports no {WITHOUT_KERNEL}"
        )
        return QuantisedLayer("auto-round", WITHOUT_KERNEL, module.parameters, is_linear=False, refusal=refusal)
    if as_awq:
        return _awq_layer(module, fields)
    layer = _gptq_layer(module, fields)
    packed = ("qweight", "qzeros", "scales", "bias")
    return layer._replace(buffers=tuple(buffer for buffer in layer.buffers if buffer.name in packed))


_ANY_GROUPS = (2, 4, 8)  # bits of AutoRound's Triton kernels, which split a row's last group; its others do not


def _shifts(bits: int) -> tuple[int, ...]:
    """Shifts of the PyTorch kernels: one for each value in a word, three words of twelve at 3 bits."""
    return (3, 12) if bits == 3 else (32 // bits,)


# transformers 5.23.0, AWQ_SCALES_MAPPINGS: the activation that gets scales, and the Linear before it.
_SCALED_ACTIVATIONS = {
    "bloom": ("gelu_impl", "dense_h_to_4h"), "falcon": ("act", "dense_h_to_4h"), "gpt_bigcode": ("act", "c_fc"),
    "gpt_neox": ("act", "dense_h_to_4h"), "gptj": ("act", "fc_in"), "mpt": ("act", "up_proj"),
    "starcoder2": ("act", "c_fc"),
}  # fmt: skip


def awq_layers(tree: ModuleTree, quantization: Quantization, dtype: str) -> dict[str, QuantisedLayer]:
    """Every Linear that is not skipped; the default list counts beside the config's own (quantizer_awq.py).

    Some activations get scales, one for each feature (`replace_quantization_scales`).
    Raises UnsupportedError where there is none: UnboundLocalError in `replace_with_awq_linear`.
    """
    fields = quantization.fields
    skipped = skips(tree, fields.get("modules_to_not_convert"), add_default=True)
    linears = [m for m in tree.modules if m.kind == "Linear" and m.parameters and not skipped(m.name)]
    if not linears:
        raise _no_awq(f"{tree.architecture}, where no Linear is to be converted")
    _check_unread(tree, (module.name for module in linears), "5.23 with gptqmodel 7.7", "AWQ")
    return {module.name: _awq_layer(module, fields) for module in linears} | _scaled_activations(tree, dtype)


def _scaled_activations(tree: ModuleTree, dtype: str) -> dict[str, QuantisedLayer]:
    activation, before = _SCALED_ACTIVATIONS.get(str(tree.config.get("model_type")), ("", ""))
    linears = {m.name: m for m in tree.modules if m.name.endswith(f".{before}") and m.parameters}
    found = {}
    for module in tree.modules:
        parent, _, own = module.name.rpartition(".")
        if own == activation and f"{parent}.{before}" in linears:
            scales = Parameter("scales", linears[f"{parent}.{before}"].parameters[0].shape[:1], dtype)
            found[module.name] = QuantisedLayer("awq", "ScaledActivation", (scales,), saved_beside=(), is_linear=False)
    return found


def _awq_layer(module: Module, fields: Fields) -> QuantisedLayer:
    bias = tuple(bias._replace(dtype="F16", fixed=True) for bias in module.parameters[1:])
    return QuantisedLayer(
        scheme="awq",
        cls="AwqQuantLinear",
        parameters=(),
        buffers=(*_awq_tensors(*_in_out(module), fields), *bias),
        saved_beside=(),
        is_linear=False,
    )


def _awq_tensors(rows: int, columns: int, fields: Fields) -> tuple[Parameter, ...]:
    """rows, columns: in and out features. Raises UnsupportedError for what no kernel reads."""
    bits, form = int(fields.get("bits") or fields.get("w_bit") or 4), awq_format(fields)
    size = fields.get("group_size") or fields.get("q_group_size", _GROUP)
    groups, values = _groups(rows, size), 32 // bits
    if form == "gemm":
        return (
            Parameter("qweight", (rows, columns // values), "I32", True),
            Parameter("qzeros", (groups, columns // values), "I32", True),
            Parameter("scales", (groups, columns), "F16", True),
        )
    width = _zeros_width(groups, rows if size == -1 else size)
    if form == "gemv":
        return (
            Parameter("qweight", (columns, rows // values), "I32", True),
            Parameter("qzeros", (columns, width), "I32", True),
            Parameter("scales", (columns, width * values), "F16", True),
        )
    if form not in ("gemv_fast", "llm-awq"):
        raise _no_awq(f"the format {form[:40]!r}")
    return (
        Parameter("qweight", (columns // 4, rows * 4 // (16 // bits)), "I16", True),
        Parameter("scaled_zeros" if form == "llm-awq" else "qzeros", (width * values, columns), "F16", True),
        Parameter("scales", (width * values, columns), "F16", True),
    )


def _zeros_width(groups: int, size: int) -> int:
    """Words of a row's zeros, in steps that the kernels read (gptqmodel, `calculate_zeros_width`)."""
    step = 1 if size >= _GROUP else {64: 2, 32: 4, 16: 8}.get(size)
    if step is None:
        raise _no_awq(f"groups of {size}")
    return ceil(ceil(groups / 8) / step) * step


def _no_awq(what: str) -> UnsupportedError:
    return _not_loaded("5.23 with gptqmodel 7.7", f"AWQ weights in {what}")


def _not_loaded(release: str, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"transformers {release} loads no {what}.",
        where="quantization_config in config.json",
        way_out="name the model that was quantised instead",
    )


def _in_out(module: Module) -> tuple[int, int]:
    shape = module.parameters[0].shape
    return (shape[0], shape[1]) if module.kind == "Conv1D" else (shape[1], shape[0])


def _groups(rows: int, group_size: int | None) -> int:
    """-1 (and nothing) is one group for the whole column."""
    return ceil(rows / group_size) if group_size and group_size > 0 else 1
