"""How each quantiser lays out a layer in the file, and how the logical weight's shape is read back from it.

out, in are the layer's features, g the group size, b the bits. Tensor names are given after the layer's own name.

    gptq        qweight I32 [in b/32, out]   qzeros I32 [groups, out b/32]  scales [groups, out]  g_idx I32 [in]
    awq gemm    qweight I32 [in, out b/32]   qzeros I32 [groups, out b/32]  scales [groups, out]
    awq gemv    qweight I32 [out, in b/32]; gemv_fast and llm-awq: I16 [out/4, in]
    bnb 8-bit   weight I8 [out, in]          SCB F32 [out]                  weight_format U8 []
    bnb 4-bit   weight [bytes, 1]            weight.absmax, weight.quant_map, weight.quant_state.* (JSON text as U8)
    fp8         weight F8 [out, in]          weight_scale_inv [out/block, in/block], or one scale a tensor or row
                weight I8 [out, in/2]        the same: experts of four bits (`expert_dtype`)
    compressed  weight I8 or F8 [out, in], or weight_packed I32 [out, in b/32] with weight_shape I64 [2] (floats of 4
                and 6 bits: U8 [out, in b/8])                   weight_scale [out, groups]
    torchao     _weight_qdata [out, in], [out, in/2] or tiles               _weight_scale ...
    bitnet      weight U8 [out/4, in]        weight_scale [1]
    mxfp4       X_blocks U8 [experts, out, in/32, 16]                       X_scales U8 [experts, out, in/32]
    mlx         weight U32 [out, in b/32]    scales [out, in/g]             biases [out, in/g]
    modelopt    weight U8 [out, in/2]        weight_scale F8 [out, in/16]   weight_scale_2 F32
    eetq        weight I8 [in, out]          weight_scales [out]
    aqlm        codes [out/og, in/ig, books] codebooks [books, 2^b, og, ig] scales [out/og, 1, 1, 1]
    hqq         W_q [rows, columns] of groups, not of features              shape I64 [2]
    gemma       weight I8 [out, in] or U8 [out, in b/8]                     weight_scale F32 [out, 1]
                embeddings: embedding_quantized, embedding_scale
    quanto      weight._data I8 [out, in], or weight._data._data U8 [out/2, in]         weight._scale [out, 1]
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from estimator.checkpoint.checkpoint import Checkpoint, Tensor
from estimator.checkpoint.layer_fields import auto_round_by_layer, compressed_by_layer, gptq_by_layer, mlx_by_layer

Parts = Mapping[str, Tensor]  # what follows the layer's name -> the tensor
Shape = tuple[int, ...]
Fields = Mapping[str, Any]


class Layout(NamedTuple):
    """How one quantiser stores a layer: the names of its parts, and the logical weight's shape from theirs."""

    marker: str  # ends the name of a tensor that only a packed layer has
    parts: tuple[str, ...]  # what follows the layer's name
    shape: Callable[[Parts, Fields, Checkpoint], Shape | None]
    logical: str = ".weight"
    needs: tuple[str, ...] = ()  # parts without which it is no packed layer
    is_whole: Callable[[Parts], bool] | None = None  # whether these parts are all that the quantiser needs
    also: tuple[str, ...] = ()  # markers of layers of another kind
    called: tuple[str, ...] = ()  # other names of the marker, beside a weight of eight bits
    two_a_byte: tuple[str, ...] = ()  # dtypes of weights in which an element is two values
    others: tuple[str, ...] = ()  # ends of names of what the quantiser has besides, of layers with plain weights too
    fields_by_layer: Callable[[Fields, Sequence[str]], Mapping[str, Fields | None]] | None = None  # of single layers

    @property
    def in_place(self) -> bool:
        """Whether every weight keeps its name and shape."""
        return self.shape is _as_stored and self.logical in self.parts


def _gptq(parts: Parts, fields: Fields, _: Checkpoint) -> Shape:
    rows, out = parts[".qweight"].shape
    return out, rows * 32 // _bits(parts, fields)


def _bits(parts: Parts, fields: Fields) -> int:
    """From the zeros where they are: one file may hold layers of several widths (gptqmodel's `dynamic`)."""
    zeros, out = parts.get(".qzeros"), parts[".qweight"].shape[1]
    if zeros is not None and out and zeros.shape[-1] * 32 % out == 0:
        return zeros.shape[-1] * 32 // out
    return int(fields.get("bits") or 4)


def _awq(parts: Parts, fields: Fields, _: Checkpoint) -> Shape | None:
    rows, columns = parts[".qweight"].shape
    if parts[".qweight"].dtype == "I16":  # four rows in one, four values to a word
        return rows * 4, columns
    bits, form = int(fields.get("bits") or fields.get("w_bit") or 4), awq_format(fields)
    if form == "gemm":
        return columns * 32 // bits, rows
    return (rows, columns * 32 // bits) if form == "gemv" else None


def awq_format(fields: Fields) -> str:
    """gemm, gemv, gemv_fast or llm-awq (transformers 5.23.0, `AwqConfig`)."""
    form = "llm-awq" if fields.get("backend") == "llm-awq" else fields.get("version") or fields.get("format")
    return str(form or "gemm").lower()


def _auto_round(parts: Parts, fields: Fields, checkpoint: Checkpoint) -> Shape | None:
    return (_awq if packs_as_awq(fields) else _gptq)(parts, fields, checkpoint)


def packs_as_awq(fields: Fields) -> bool:
    """Whether AutoRound packed as AWQ does, and not as GPTQ."""
    return "awq" in str(fields.get("packing_format") or fields.get("backend") or "")


def _as_stored(parts: Parts, _: Fields, __: Checkpoint) -> Shape:
    return parts[".weight"].shape


def _transposed(parts: Parts, _: Fields, __: Checkpoint) -> Shape:
    return tuple(reversed(parts[".weight"].shape))


def _halved(parts: Parts, _: Fields, __: Checkpoint) -> Shape:
    out, half = parts[".weight"].shape
    return out, half * 2


def _bnb_4bit(parts: Parts, _: Fields, checkpoint: Checkpoint) -> Shape | None:
    """From the quantisation state's text, where the file is at hand; headers alone do not hold the shape."""
    state = next((t for part, t in parts.items() if part.startswith(".weight.quant_state")), None)
    text = _read(state, checkpoint) if state is not None else None
    try:
        shape = json.loads(text)["shape"] if text else None
        return tuple(int(size) for size in shape) if shape else None
    except (ValueError, KeyError, TypeError):
        return None


def _is_whole_4bit(parts: Parts) -> bool:
    """bitsandbytes 0.50.2, `QuantState.from_dict`: one text, and the codes of double quantisation beside its sizes."""
    texts = sum(part.startswith(".weight.quant_state.") for part in parts)
    is_nested = ".weight.nested_absmax" in parts
    return ".weight.quant_map" in parts and texts == 1 and (not is_nested or ".weight.nested_quant_map" in parts)


def _compressed(parts: Parts, fields: Fields, _: Checkpoint) -> Shape | None:
    if ".weight" in parts:
        return parts[".weight"].shape
    if ".weight_packed" not in parts:
        return None
    packed, scale = parts[".weight_packed"], parts.get(".weight_scale")
    out, columns = packed.shape[-2:]
    if packed.dtype == "U8":
        return *packed.shape[:-1], columns * 8 // int(fields.get("num_bits") or 4)
    group = fields.get("group_size") or 0
    if group > 0 and scale is not None and scale.shape[-1] > 1:
        return *packed.shape[:-1], scale.shape[-1] * group
    return *packed.shape[:-1], columns * 32 // int(fields.get("num_bits") or 4)


def _torchao(parts: Parts, fields: Fields, _: Checkpoint) -> Shape | None:
    """Of floats and integers of a byte each; those of four bits lie by twos or in tiles, some in signed bytes too."""
    data = parts["._weight_qdata"]
    whole = data.dtype in ("I8", "F8_E4M3", "F8_E5M2") and not (data.dtype == "I8" and "Int4" in str(fields))
    return data.shape if whole else None


def _bitnet(parts: Parts, _: Fields, __: Checkpoint) -> Shape:
    rows, columns = parts[".weight"].shape
    return (rows * 4, columns) if parts[".weight"].dtype == "U8" else (rows, columns)


def _mxfp4(parts: Parts, _: Fields, __: Checkpoint) -> Shape:
    experts, out, blocks, _bytes = parts["_blocks"].shape
    return experts, blocks * 32, out


def _mlx(parts: Parts, fields: Fields, _: Checkpoint) -> Shape:
    *leading, columns = parts[".weight"].shape
    return *leading, columns * 32 // int(fields.get("bits") or 4)


def _aqlm(parts: Parts, _: Fields, __: Checkpoint) -> Shape:
    (out_groups, in_groups, _books), codebooks = parts[".codes"].shape, parts[".codebooks"].shape
    return out_groups * codebooks[2], in_groups * codebooks[3]


def _quanto(parts: Parts, _: Fields, __: Checkpoint) -> Shape | None:
    scale = parts[".weight._scale"].shape
    if ".weight._data" in parts:
        return parts[".weight._data"].shape
    packed = parts.get(".weight._data._data")
    if packed is None or len(scale) != 2 or scale[1] != 1 or packed.shape[0] != -(-scale[0] // 2):
        return None  # not in one group
    return scale[0], packed.shape[1]


def _hqq(parts: Parts, _: Fields, checkpoint: Checkpoint) -> Shape | None:
    stored = _read(parts[".shape"], checkpoint) if ".shape" in parts else None
    if not stored or len(stored) != 16:
        return None
    shape = int.from_bytes(stored[:8], "little"), int.from_bytes(stored[8:], "little")
    return shape if all(shape) else None


def _gemma(parts: Parts, _: Fields, __: Checkpoint) -> Shape | None:
    """Bytes hold two or four values, the last of a row perhaps fewer."""
    packed = parts[".weight"] if ".weight" in parts else parts[".embedding_quantized"]
    return packed.shape if packed.dtype == "I8" else None


def _is_whole_gemma(parts: Parts) -> bool:
    return ".weight" in parts or ".embedding_quantized" in parts


def _read(tensor: Tensor, checkpoint: Checkpoint) -> bytes | None:
    """A small tensor's bytes from the file, None where it is not at hand."""
    file = next((f for f in checkpoint.files if f.path == tensor.file), None)
    if file is None or file.local_path is None or file.data_start is None:
        return None
    begin, end = tensor.offsets
    with open(file.local_path, "rb") as stream:
        stream.seek(file.data_start + begin)
        return stream.read(end - begin)


_GPTQ_PARTS = (".qweight", ".qzeros", ".scales", ".g_idx")
_BNB_PARTS = (
    ".weight", ".weight.absmax", ".weight.quant_map", ".weight.nested_absmax", ".weight.nested_quant_map",
    ".weight.quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__fp4",
)  # fmt: skip
_COMPRESSED_PARTS = (
    ".weight", ".weight_packed", ".weight_scale", ".weight_shape", ".weight_zero_point", ".weight_g_idx",
    ".weight_global_scale", ".input_scale", ".input_zero_point", ".input_global_scale", ".output_scale",
    ".output_zero_point",
)  # fmt: skip
_COMPRESSED_OTHERS = tuple(
    f".{side}_{part}" for side in ("input", "output", "q", "k", "v") for part in ("scale", "zero_point", "global_scale")
)
_FP8_PARTS = (".weight", ".weight_scale_inv", ".activation_scale", ".input_scale")
_MODELOPT_PARTS = (".weight", ".weight_scale", ".weight_scale_2", ".input_scale")
_TORCHAO_PARTS = (
    "._weight_qdata", "._weight_scale", "._weight_zero_point", "._weight_scale_and_zero", "._weight_per_tensor_scale",
    "._weight_act_pre_scale",
)  # fmt: skip
_HQQ_PARTS = tuple(
    f".{part}"
    for part in (
        "W_q", "shape", "scale", "zero", "nbits", "group_size", "axis", "packing", "unpack_view_dtype", "view_as_float",
        "quant_scale", "quant_zero", "compute_dtype", "offload_meta", "encoded_state_dict", "stores_quant_config",
        "channel_wise", "optimize", "round_zero",
    )
)  # fmt: skip
_QUANTO_PARTS = (
    ".weight._data", ".weight._data._data", ".weight._scale", ".weight._shift", ".input_scale", ".output_scale",
)  # fmt: skip

_GEMMA_PARTS = (
    ".weight", ".weight_scale", ".input_activation_scale", ".output_activation_scale", ".embedding_quantized",
    ".embedding_scale",
)  # fmt: skip

_AWQ_OTHERS = (".act.scales", ".gelu_impl.scales")  # of activations
LAYOUTS: Mapping[str, Layout] = {
    "gptq": Layout(".qweight", _GPTQ_PARTS, _gptq, fields_by_layer=gptq_by_layer),
    "awq": Layout(".qweight", (".qweight", ".qzeros", ".scaled_zeros", ".scales"), _awq, others=_AWQ_OTHERS),
    "auto-round": Layout(".qweight", _GPTQ_PARTS, _auto_round, fields_by_layer=auto_round_by_layer),
    "bitsandbytes_4bit": Layout(".weight.absmax", _BNB_PARTS, _bnb_4bit, needs=(".weight",), is_whole=_is_whole_4bit),
    "bitsandbytes_8bit": Layout(".SCB", (".weight", ".SCB", ".weight_format"), _as_stored, needs=(".weight",)),
    **dict.fromkeys(
        ("fp8", "mxfp8"),
        Layout(
            ".weight_scale_inv",
            _FP8_PARTS,
            _as_stored,
            needs=(".weight",),
            called=(".scale", ".qscale_weight"),
            two_a_byte=("I8", "U8"),
            others=("_proj_scale_inv", "_proj_activation_scale"),
        ),
    ),
    "fbgemm_fp8": Layout(
        ".weight_scale", (".weight", ".weight_scale"), _as_stored, needs=(".weight",), others=("_proj_scale",)
    ),
    "compressed-tensors": Layout(
        ".weight_scale",
        _COMPRESSED_PARTS,
        _compressed,
        others=_COMPRESSED_OTHERS,
        fields_by_layer=compressed_by_layer,
    ),
    "torchao": Layout("._weight_qdata", _TORCHAO_PARTS, _torchao),
    "bitnet": Layout(
        ".weight_scale", (".weight", ".weight_scale"), _bitnet, needs=(".weight",), others=(".rms_norm.weight",)
    ),
    "mxfp4": Layout("_blocks", ("_blocks", "_scales"), _mxfp4, "", needs=("_scales",)),
    "mlx": Layout(".scales", (".weight", ".scales", ".biases"), _mlx, needs=(".weight",), fields_by_layer=mlx_by_layer),
    "modelopt": Layout(".weight_scale_2", _MODELOPT_PARTS, _halved, needs=(".weight", ".weight_scale")),
    "eetq": Layout(".weight_scales", (".weight", ".weight_scales"), _transposed, needs=(".weight",)),
    "aqlm": Layout(".codes", (".codes", ".codebooks", ".scales"), _aqlm, needs=(".codebooks",)),
    "hqq": Layout(".W_q", _HQQ_PARTS, _hqq),
    "quanto": Layout(".weight._scale", _QUANTO_PARTS, _quanto),
    "gemma": Layout(
        ".weight_scale",
        _GEMMA_PARTS,
        _gemma,
        is_whole=_is_whole_gemma,
        also=(".embedding_scale",),
        others=(".k_cache_scale", ".v_cache_scale"),
    ),
}
