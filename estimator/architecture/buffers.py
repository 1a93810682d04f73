"""Shapes of buffers that no checkpoint stores: rotary frequencies, position ids, masks, scales.

They weigh little, but `get_memory_footprint()` counts them. Each rule holds for the classes of transformers 5.23.0 that
have a buffer of that name; where none does, the buffer is left out and the tree says so.
"""

from collections.abc import Callable, Mapping
from math import isqrt, prod
from typing import Any, NamedTuple

from estimator.architecture.image_windows import window_side
from estimator.errors import MalformedConfigError

Shape = tuple[int, ...]
Read = Callable[[str], Any]  # a config field's value, the class's default included; None where there is none

# Fields whose defaults the facts keep for these rules.
FIELDS = ("head_dim", "partial_rotary_factor", "rope_parameters.partial_rotary_factor", "rotary_pct", "rotary_dim",
          "max_position_embeddings", "window_size")  # fmt: skip
_TOWERS = (
    ("vision", "vision_config"),
    ("visual", "vision_config"),
    ("image", "vision_config"),
    ("audio", "audio_config"),
    ("encoder", "encoder"),
    ("encoder", "encoder_config"),
    ("decoder", "decoder"),
    ("decoder", "decoder_config"),
    ("backbone", "backbone_config"),
)
_PARTS = (("text_model", "text_config", "head_dim"), ("backbone", "backbone_config", "hidden_size"))
# Classes whose buffers of these names follow no field of config.json that could be named, or constants.
_OF_THEIR_OWN = (
    "RelPositionalEncoding", "DINOv3", "Sapiens2", "SeamlessM4TSin", "SeamlessM4Tv2Sin", "Speech2Text", "Tipsv2",
    "TimeEmbedding", "CsmRotary", "PPDoc", "SpeechT5", "FalconMamba",
)  # fmt: skip
_IN_TWO_AXES = ("Vision", "MLCD", "Sam3ViT")  # rows and columns take half of the head each
_IN_THREE_AXES = ("MiniMaxM3VLVision",)  # and time
_WIDER_FULL_ATTENTION = ("Gemma4", "DiffusionGemma", "EmbeddingGemma2")  # heads of global_head_dim, rotated whole
_DERIVED_HEADS = ("FalconRotaryEmbedding",)  # FalconConfig.head_dim is computed, whatever its default comes to
_ROTATED_WHOLE = ("Lfm3RotaryEmbedding",)  # whatever share is said: the frequencies beyond it are noughts
_ROTATED_ALONE = ("MiniMaxM2RotaryEmbedding",)  # rotary_dim is the config's word for the share of a head
_UNSAID_SHARES = {"MiMoV2FlashRotaryEmbedding": 0.334}  # of a head, where no config says it: a constant of the class
_OF_THE_WHOLE = ("MusicFlamingoRotaryEmbedding",)  # which reads the model's own fields, and no tower's
_HEADS = ("num_attention_heads", "num_heads", "n_head", "n_heads", "encoder_attention_heads",
          "encoder_num_attention_heads")  # fmt: skip
_OFFSET_BY_TWO = ("Mra", "Nystromformer", "Yoso")
_MOST_POSITIONS = 2**31
_POSITIONS = ("max_position_embeddings", "n_positions")  # of two names of one field the first wins
_TEXTS = ("text_config", "llm_config", "language_config", "thinker_config.text_config")


class Wanted(NamedTuple):
    """A buffer that is to be sized."""

    module: str  # full name
    cls: str
    name: str
    dimensions: int | None


def buffer_shape(wanted: Wanted, shapes: Mapping[str, Shape], read: Read) -> Shape | None:
    """The shape in torch's order, None where no rule says it. `shapes`: of all parameters, by full name."""
    if wanted.dimensions == 0:
        return ()
    if any(word in wanted.cls for word in _OF_THEIR_OWN):
        return None
    config = read if wanted.cls in _OF_THE_WHOLE else _section(wanted.module, read)
    if wanted.cls == "Sam3ViTLayer":
        return _places_of_a_window(wanted, shapes, config)
    if wanted.name.endswith("inv_freq"):
        return _inverse_frequencies(wanted, config)
    rule = _RULES.get((wanted.name, wanted.dimensions))
    return rule(wanted, shapes, config) if rule else None


def buffer_exists(wanted: Wanted, read: Read) -> bool:
    """Whether a buffer is there that some configs of the class do not have: frequencies of a kind of layer."""
    kind = _kind(wanted.name)
    layers = _section(wanted.module, read)("layer_types")
    if not wanted.name.endswith("inv_freq") or not isinstance(layers, (list, tuple)):
        return True
    return not kind or kind in layers


def _kind(name: str) -> str:
    """The kind of layer that rotary frequencies serve: "sliding_attention_original_inv_freq" -> "sliding_attention"."""
    return name.removesuffix("inv_freq").removesuffix("original_").rstrip("_")


def _section(module: str, read: Read) -> Read:
    """The fields of the tower that a module belongs to."""
    sections = [section for word, section in _TOWERS if word in module]
    for section in (*sections, *(() if sections[:1] in (["vision_config"], ["audio_config"]) else _TEXTS)):
        if isinstance(read(section), Mapping):
            return _within(section, module, read)
    return read


def _within(section: str, module: str, read: Read) -> Read:
    """The fields of a section, or of the part of it that the module belongs to: T5Gemma 2's text, SAM 3's backbone.

    A part counts where it says what the facts keep no default of.
    """
    named = ((f"{section}.{inner}", said) for part, inner, said in _PARTS if f".{part}." in module)
    inside = next((path for path, said in named if type(read(f"{path}.{said}")) is int), section)
    return lambda field: read(f"{inside}.{field}")


def _first(config: Read, *fields: str) -> int | None:
    values = (config(field) for field in fields)
    return next((value for value in values if type(value) is int), None)


def _heads(config: Read) -> int | None:
    return _first(config, *_HEADS)


def _head_dim(config: Read) -> int | None:
    stated = _first(config, "head_dim", "attention_head_dim", "kv_channels")
    return stated if stated is not None else _divided(config)


def _divided(config: Read) -> int | None:
    width, heads = _first(config, "hidden_size", "n_embd", "d_model", "dim"), _heads(config)
    return width // heads if width and heads else None


def _inverse_frequencies(wanted: Wanted, config: Read) -> Shape | None:
    """One for each pair of rotated dimensions."""
    kind = _kind(wanted.name)
    if any(word in wanted.cls for word in _IN_TWO_AXES):
        return _of_a_vision_tower(wanted, config)
    if kind == "full_attention" and any(family in wanted.cls for family in _WIDER_FULL_ATTENTION):
        head = _first(config, "global_head_dim")
        return (_pairs(head),) if head else None
    head = _divided(config) if wanted.cls in _DERIVED_HEADS else _head_dim(config)
    if not head:
        return None
    share = 1.0 if wanted.cls in _ROTATED_WHOLE else _share(wanted, kind, head, config)
    if not isinstance(share, (int, float)) or share < 0:
        raise MalformedConfigError(
            f"{repr(share)[:60]} of each head is to be rotated, which is no share of it.",
            where="partial_rotary_factor in config.json",
            way_out="correct the field, in config.json or in --set",
        )
    return (_pairs(int(head * share)),)


def _share(wanted: Wanted, kind: str, head: int, config: Read) -> Any:
    """Of a head that is rotated: as the kind of layer has it, the config, or the dimensions that MiniMax M2 states."""
    rope = config("rope_parameters") or config("rope_scaling") or {}
    rope = rope.get(kind, rope) if isinstance(rope, Mapping) else {}
    factor = rope.get("partial_rotary_factor") if isinstance(rope, Mapping) else None
    stated = ("partial_rotary_factor", "rotary_pct", "rope_parameters.partial_rotary_factor")
    rotated = config("rotary_dim") if wanted.cls in _ROTATED_ALONE else None
    if rotated is not None and not isinstance(rotated, (int, float)):
        return rotated
    unsaid = _UNSAID_SHARES.get(wanted.cls, 1.0) if rotated is None else rotated / head
    return next((f for f in (factor, *map(config, stated)) if f is not None), unsaid)


def _of_a_vision_tower(wanted: Wanted, config: Read) -> Shape | None:
    """An axis takes its share of the head's pairs; Pixtral keeps rows and columns side by side."""
    width = _first(config, "embed_dim", "hidden_size", "d_model")  # hidden_size may be the width that it ends in
    heads = _first(config, "num_heads", "num_attention_heads")
    head = _first(config, "head_dim") or (width // heads if width and heads else 0)
    if not head:
        return None
    if any(word in wanted.cls for word in _IN_THREE_AXES):
        return (head // 3 // 2,)
    return (_pairs(head // (1 if "Pixtral" in wanted.cls else 2)),)


def _pairs(dimensions: int) -> int:
    return -(-dimensions // 2)


def _positions(wanted: Wanted, shapes: Mapping[str, Shape], config: Read) -> Shape | None:
    """As many as the position embedding beside it has rows."""
    for name in ("position_embeddings", "position_embedding", "positions_embed", "embed_positions", "pos_embed"):
        found = shapes.get(f"{wanted.module}.{name}.weight")
        if found:
            return (1, found[0] - (2 if wanted.cls.startswith(_OFFSET_BY_TWO) else 0))
    stated = _first(config, *_POSITIONS, "max_positions")
    return (1, stated) if stated else None


def _places_of_a_window(wanted: Wanted, _: Mapping[str, Shape], config: Read) -> Shape | None:
    """SAM 3: row and column of each patch, of a window or, in layers of global attention, of the image."""
    everywhere, patch, image = config("global_attn_indexes"), _first(config, "patch_size"), _first(config, "image_size")
    layer = wanted.module.rpartition(".")[2]
    if not isinstance(everywhere, (list, tuple)) or not layer.isdigit() or not patch or not image:
        return None
    side = image // patch if int(layer) in everywhere else _first(config, "window_size")
    return (side * side, 2) if side else None


def _position_list(wanted: Wanted, shapes: Mapping[str, Shape], config: Read) -> Shape | None:
    found = _positions(wanted, shapes, config)
    return found[1:] if found else None


def _window_pairs(wanted: Wanted, shapes: Mapping[str, Shape], config: Read) -> Shape | None:
    """Swin: an index for each pair of places in a window, whose distances have a bias each where there is a table."""
    table = shapes.get(f"{wanted.module}.relative_position_bias_table")
    said = window_side(wanted.cls, wanted.module, config)
    window = (isqrt(table[0]) + 1) // 2 if table else said
    places = window * window if window else 0
    return ((places,) * 2 if wanted.dimensions == 2 else (places * places,)) if window else None


def _window_offsets(wanted: Wanted, __: Mapping[str, Shape], config: Read) -> Shape | None:
    window = window_side(wanted.cls, wanted.module, config)
    return (1, 2 * window - 1, 2 * window - 1, 2) if window else None


def _square_mask(wanted: Wanted, _: Mapping[str, Shape], config: Read) -> Shape | None:
    stated = _first(config, *_POSITIONS, "n_ctx")
    return (1, 1, stated, stated)[-2 if wanted.dimensions == 2 else 0 :] if stated else None


def _rotary_table(_: Wanted, __: Mapping[str, Shape], config: Read) -> Shape | None:
    """GPT-J's sines and cosines: positions x rotated dimensions."""
    positions = _first(config, *_POSITIONS)
    rotated = _first(config, "rotary_dim") or _first(config, "hidden_size", "n_embd")
    return (positions, rotated) if positions and rotated else None


def _sinusoids(wanted: Wanted, shapes: Mapping[str, Shape], config: Read) -> Shape | None:
    positions = _first(config, "max_position_embeddings", "max_source_positions")
    if wanted.cls.startswith("Musicgen"):  # as long as it says, as wide as the norm behind the layers
        norm = shapes.get(f"{wanted.module.rpartition('.')[0]}.layer_norm.weight")
        return (positions, *norm) if positions and norm else None
    width = _first(config, "d_model", "hidden_size", "embed_dim")
    return (positions + 2, width) if positions and width else None


def _distances(_: Wanted, __: Mapping[str, Shape], config: Read) -> Shape | None:
    """A row for each distance between two frames, forwards and backwards."""
    frames, width = _first(config, "max_source_positions"), _first(config, "hidden_size")
    return (1, 2 * frames - 1, width) if frames and width else None


def _boxes_of_patches(wanted: Wanted, shapes: Mapping[str, Shape], _: Read) -> Shape | None:
    """LayoutLMv3: four corners for each place that has a position; OWL: the same but for the class token's."""
    places = shapes.get(f"{wanted.module}.pos_embed".lstrip("."))
    if places:
        return (places[1], 4)
    rows = next((s[0] for n, s in shapes.items() if n.endswith("vision_model.embeddings.position_embedding.weight")), 0)
    return (rows - 1, 4) if rows else None


def _rotations_of_patches(wanted: Wanted, shapes: Mapping[str, Shape], config: Read) -> Shape | None:
    """Llama 4: complex numbers for each place that has a position, as many as rows and columns take of a head."""
    tower, heads = wanted.module.rpartition(".")[0], _heads(config)
    places = shapes.get(f"{tower}.positional_embedding_vlm".lstrip("."))
    return (places[0], 1, places[1] // heads // 2 // 2 * 2) if places and heads else None


def _like_frequencies(wanted: Wanted, _: Mapping[str, Shape], config: Read) -> Shape | None:
    """Mistral Large 4: a learned scale for each frequency."""
    return _inverse_frequencies(wanted, config)


def _angles_of_positions(wanted: Wanted, _: Mapping[str, Shape], config: Read) -> Shape | None:
    """MusicFlamingo: each frequency twice, at as many positions as the config's rope_theta is."""
    frequencies, rope = _inverse_frequencies(wanted, config), config("rope_parameters")
    positions: Any = rope.get("rope_theta") if isinstance(rope, Mapping) else None
    is_number = isinstance(positions, (int, float)) and 0 < positions < _MOST_POSITIONS
    return (int(positions), 2 * frequencies[0]) if frequencies and is_number else None


def _every_code(_: Wanted, __: Mapping[str, Shape], config: Read) -> Shape | None:
    """Finite scalar quantisation: all combinations of the levels."""
    levels = config("quantization_levels")
    whole = isinstance(levels, (list, tuple)) and all(type(level) is int and level > 0 for level in levels)
    return (prod(levels), len(levels)) if whole and levels else None


_RULES: Mapping[tuple[str, int | None], Callable[[Wanted, Mapping[str, Shape], Read], Shape | None]] = {
    ("position_ids", 2): _positions,
    ("token_type_ids", 2): _positions,
    ("position_ids", 1): _position_list,
    ("relative_position_index", 1): _window_pairs,
    ("relative_position_index", 2): _window_pairs,
    ("relative_coords_table", 4): _window_offsets,
    ("bias", 2): _square_mask,
    ("bias", 4): _square_mask,
    ("embed_positions", 2): _rotary_table,
    ("weights", 2): _sinusoids,
    ("pe", 3): _distances,
    ("visual_bbox", 2): _boxes_of_patches,
    ("box_bias", 2): _boxes_of_patches,
    ("freqs_ci", 3): _rotations_of_patches,
    ("alpha", 1): _like_frequencies,
    ("position_angles", 2): _angles_of_positions,
    ("codebook", 2): _every_code,
    ("special_tokens", 1): lambda *_: (4,),  # Grounding DINO: two that frame a text, two that end a phrase of it
}
