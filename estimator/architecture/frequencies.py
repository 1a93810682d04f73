"""Rotary frequencies: one for each pair of dimensions of a head that is rotated (transformers 5.23.0)."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from estimator.architecture.sections import Read, first_number
from estimator.errors import MalformedConfigError

Shape = tuple[int, ...]

_IN_TWO_AXES = ("Vision", "MLCD", "EomtDinov3", "Sam3ViT", "Sapiens2")  # rows and columns take half of the head each
_IN_ONE_AXIS = ("VisionText", "DeepseekOcr2Vision")  # a text model beside vision; learned queries in a row
_IN_THREE_AXES = ("MiniMaxM3VLVision",)  # and time
_WIDER_FULL_ATTENTION = ("Gemma4", "DiffusionGemma", "EmbeddingGemma2")  # heads of global_head_dim, rotated whole
# Whose config's head_dim is computed of width and heads, whatever config.json states or its default comes to.
_DERIVED_HEADS = ("DeepseekOcr2Text", "Falcon", "UnlimitedOcrText")
# Whose config's head_dim is that of the part of a head that is rotated, whatever config.json states.
_ROTATED_HEADS = ("AXK2", "BailingHybrid", "DeepseekV2", "DeepseekV32", "GlmMoeDsa", "HYV4", "HYV4VL", "MiniCPM3",
                  "MistralLarge4Text")  # fmt: skip
_ROTATED_UNLESS_STATED = ("AXK1", "DeepseekV3", "Glm4MoeLite", "Youtu")  # of that part where config.json states none
_UNSTATED = (None, 64)  # the default of qk_rope_head_dim, which stands for the head_dim of these
_OF_SOUND = "MusicFlamingo"  # whose config's head_dim is its audio encoder's width
# Whose own frequencies are of a share of a head (`compute_default_rope_parameters`): those of others are of whole
# heads, but for the ways to scale them (`ROPE_INIT_FUNCTIONS`), which know the share for all.
ROTATED_IN_PART = re.compile(
    "(Bamba|DeepseekV4|DiffusionGemmaText|Dots3Note(Audio|Text)|EfficientLoFTR|GPTNeoX(Japanese)?|Glm(4(v?Moe|MoeLite)?"
    "|4v(Moe)?Text|Asr|ImageText|OcrText)?|Laguna|Mellum|MiMoV2Flash|MiniMaxM2|MiniMaxM3VL|Moonshine(Streaming)?"
    "|MusicFlamingo|Nemotron(3Diarization|3_5Transcribe)?|NeoMME|Persimmon|Phi(3|4Multimodal)?|Qwen3Next"
    "|Qwen3_5(Moe)?Text|Qwen4ExpText|RecurrentGemma|SolarOpen|StableLm|Step3p7|Zaya)RotaryEmbedding"
)
_ROTATED = {  # the config's word for the dimensions of a head that are rotated
    "DeepseekV4RotaryEmbedding": "qk_rope_head_dim",
    "MiniMaxM2RotaryEmbedding": "rotary_dim",
}
_ROTATED_BY_PERCENT = ("GPTNeoXRotaryEmbedding", "GPTNeoXJapaneseRotaryEmbedding")  # rotary_pct is their word for it
# Of a head, where no config says it: a constant of the class.
_UNSAID_SHARES = {"DeepseekV4RotaryEmbedding": 64 / 512, "MiMoV2FlashRotaryEmbedding": 0.334}
# What config classes take where config.json states no rotation, by family.
_OWN_ROTATIONS: Mapping[str, Mapping[str, Any]] = {
    "DiffusionGemmaText": {"full_attention": {"rope_type": "proportional"}},
    "Mistral4": {"rope_type": "yarn", "factor": 128.0, "original_max_position_embeddings": 8192},
    "MistralLarge4Text": {"rope_type": "yarn", "factor": 2048.0, "original_max_position_embeddings": 512},
    "Nemotron3_5Transcribe": {"partial_rotary_factor": 0.5},
    "NeoMME": {"full_attention": {"partial_rotary_factor": 0.25}},
    "Zaya": {"hybrid": {"partial_rotary_factor": 0.5}, "hybrid_sliding": {"partial_rotary_factor": 0.5}},
}
ROTATIONS = ("rope_parameters", "rope_scaling")  # today's field, and an older one
UNSCALED = ("Cohere2MoeRotaryEmbedding",)  # whose config has a field rope_scaling that nothing reads
_SCALED_ALIKE = ("ModernBertRotaryEmbedding", "ModernBertDecoderRotaryEmbedding")  # by rope_scaling, in all layers
_HEADS = ("num_attention_heads", "num_heads", "n_head", "n_heads", "encoder_attention_heads",
          "encoder_num_attention_heads")  # fmt: skip


class Wanted(NamedTuple):
    """A buffer that is to be sized."""

    module: str  # full name
    cls: str
    name: str
    dimensions: int | None


def kind_of(name: str) -> str:
    """The kind of layer that rotary frequencies serve: "sliding_attention_original_inv_freq" -> "sliding_attention"."""
    stem = name.removesuffix("inv_freq")
    return stem.removesuffix("original_").rstrip("_") if stem != name else ""


def heads_of(config: Read) -> int | None:
    return first_number(config, *_HEADS)


def _head_dim(config: Read) -> int | None:
    stated = first_number(config, "head_dim", "attention_head_dim", "kv_channels")
    return stated if stated is not None else _divided(config)


def _divided(config: Read) -> int | None:
    width, heads = first_number(config, "hidden_size", "n_embd", "d_model", "dim"), heads_of(config)
    return width // heads if width and heads else None


def in_two_axes(cls: str) -> bool:
    """Whether it rotates by the rows and columns of an image."""
    return any(word in cls for word in _IN_TWO_AXES) and not any(word in cls for word in _IN_ONE_AXIS)


def inverse_frequencies(wanted: Wanted, shapes: Mapping[str, Shape], config: Read) -> Shape | None:
    """One for each pair of rotated dimensions. `shapes`: of all parameters, by full name."""
    kind = kind_of(wanted.name)
    if wanted.cls.endswith("PositionRelationEmbedding"):
        return _of_boxes(wanted, shapes)
    if in_two_axes(wanted.cls):
        return _of_a_vision_tower(wanted, config)
    if kind == "full_attention" and any(family in wanted.cls for family in _WIDER_FULL_ATTENTION):
        head = first_number(config, "global_head_dim") or _normalised_head(wanted.module, kind, shapes, config)
        return (_pairs(head),) if head else None
    head = _head_of(wanted.cls, config)
    if not head:
        return None
    share = 1.0 if _rotates_whole(wanted.cls, kind, config) else _share(wanted, kind, head, config)
    if not isinstance(share, (int, float)) or share < 0:
        raise MalformedConfigError(
            f"{repr(share)[:60]} of each head is to be rotated, which is no share of it.",
            where="partial_rotary_factor in config.json",
            way_out="correct the field, in config.json or in --set",
        )
    return (_pairs(int(head * share)),)


def _head_of(cls: str, config: Read) -> int | None:
    """The head_dim of the class's config."""
    family = cls.removesuffix("RotaryEmbedding")
    in_part = family in _ROTATED_HEADS or (family in _ROTATED_UNLESS_STATED and config("head_dim") in _UNSTATED)
    rotated = first_number(config, "qk_rope_head_dim") if in_part else None
    if family == _OF_SOUND:
        rotated = first_number(config, "audio_config.hidden_size")
    if rotated is not None:
        return rotated
    return _divided(config) if family in _DERIVED_HEADS else _head_dim(config)


def _normalised_head(module: str, kind: str, shapes: Mapping[str, Shape], config: Read) -> int | None:
    """The width of a query's norm in the first layer of this kind."""
    kinds = config("layer_types")
    if not isinstance(kinds, (list, tuple)) or kind not in kinds:
        return None
    layers = f"{module.rpartition('.')[0]}.layers.".lstrip(".")
    norm = shapes.get(f"{layers}{kinds.index(kind)}.self_attn.q_norm.weight")
    return norm[0] if norm else None


def _rotates_whole(cls: str, kind: str, config: Read) -> bool:
    """Whether the class rotates whole heads, whatever share config.json says."""
    way = way_of(rope_of(cls, kind, config))
    return way == "proportional" or (way == "default" and not ROTATED_IN_PART.fullmatch(cls))


def way_of(rope: Mapping[str, Any]) -> Any:
    """The way to scale; "proportional" has noughts beyond the share."""
    return rope.get("rope_type", rope.get("type", "default"))


def rope_of(cls: str, kind: str, config: Read) -> Mapping[str, Any]:
    """What is said of rotation, for layers of this kind where there are several.

    `convert_rope_params_to_dict`: rope_scaling is of the layers of full attention, whose rope_type is there before.
    """
    said, scaling = (found if isinstance(found, Mapping) else {} for found in map(config, ROTATIONS))
    if not said and not scaling:
        said = _OWN_ROTATIONS.get(cls.removesuffix("RotaryEmbedding"), {})
    if not kind:
        return said if cls in UNSCALED else scaling or said
    own = said.get(kind)
    own = own if isinstance(own, Mapping) else {}
    takes_it = scaling and (kind == "full_attention" or cls in _SCALED_ALIKE)
    return {"rope_type": "default", **own, **scaling} if takes_it else own


def _share(wanted: Wanted, kind: str, head: int, config: Read) -> Any:
    """Of a head that is rotated: as the kind of layer has it, the config, or the dimensions that it states."""
    factor = rope_of(wanted.cls, kind, config).get("partial_rotary_factor")
    rotated = config(_ROTATED[wanted.cls]) if wanted.cls in _ROTATED else None
    if rotated is not None and not isinstance(rotated, (int, float)):
        return rotated
    unsaid = _UNSAID_SHARES.get(wanted.cls, 1.0) if rotated is None else rotated / head
    return next((f for f in (factor, *map(config, _stated(wanted.cls, kind, config))) if f is not None), unsaid)


def _stated(cls: str, kind: str, config: Read) -> tuple[str, ...]:
    """The config's own fields for the share. Kinds of layers have theirs alone, until one of them, in order of their
    names, is scaled (`standardize_rope_params`).
    """
    if not kind:
        own = "rotary_pct" if cls in _ROTATED_BY_PERCENT else "partial_rotary_factor"
        return own, "rope_parameters.partial_rotary_factor"
    kinds = config("layer_types")
    kinds = kinds if isinstance(kinds, (list, tuple)) else ()
    before = (one for one in {kind, *kinds} if isinstance(one, str) and one <= kind)
    scaled = any(way_of(rope_of(cls, one, config)) != "default" for one in before)
    return ("partial_rotary_factor",) if scaled else ()


def _of_boxes(wanted: Wanted, shapes: Mapping[str, Shape]) -> Shape | None:
    """PP-DocLayout v2: the projection beside it takes a sine and a cosine for each of a box's four numbers."""
    projection = shapes.get(f"{wanted.module}.pos_proj.weight")
    return (projection[1] // 8,) if projection else None


def _of_a_vision_tower(wanted: Wanted, config: Read) -> Shape | None:
    """An axis takes its share of the head's pairs; Pixtral keeps rows and columns side by side."""
    head = _head_of_memory(config) if ".memory_attention." in f".{wanted.module}." else _head_that_sees(config)
    if not head:
        return None
    if any(word in wanted.cls for word in _IN_THREE_AXES):
        return (head // 3 // 2,)
    return (_pairs(head // (1 if "Pixtral" in wanted.cls else 2)),)


def _head_that_sees(config: Read) -> int | None:
    width = first_number(config, "embed_dim", "hidden_size", "d_model")  # hidden_size may be the width that it ends in
    heads = first_number(config, "num_heads", "num_attention_heads")
    return first_number(config, "head_dim") or (width // heads if width and heads else None)


def _head_of_memory(config: Read) -> int | None:
    """SAM 2's memory attention: a head of what is left of the width."""
    names = ("hidden_size", "downsample_rate", "num_attention_heads")
    width, rate, heads = (first_number(config, f"memory_attention_{name}") for name in names)
    return width // (rate * heads) if width and rate and heads else None


def _pairs(dimensions: int) -> int:
    return -(-dimensions // 2)
