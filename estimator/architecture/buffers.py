"""Shapes of buffers that no checkpoint stores: rotary frequencies, position ids, masks, scales.

They weigh little, but `get_memory_footprint()` counts them. Each rule holds for the classes of transformers 5.23.0 that
have a buffer of that name; where none does, the buffer is left out and the tree says so.
"""

from collections.abc import Callable, Mapping
from math import isqrt, prod
from typing import Any

from estimator.architecture.frequencies import Shape, Wanted, heads_of, inverse_frequencies, kind_of
from estimator.architecture.image_windows import window_side
from estimator.architecture.sections import Read, first_number, section_of_module

# Fields whose defaults the facts keep for these rules.
FIELDS = ("head_dim", "partial_rotary_factor", "rope_parameters.partial_rotary_factor", "rotary_pct", "rotary_dim",
          "max_position_embeddings", "window_size")  # fmt: skip
# Classes whose buffers of these names follow no field of config.json that could be named, or constants.
_OF_THEIR_OWN = (
    "ParakeetEncoderRel", "NemotronAsrStreamingEncoderRel", "DINOv3", "Speech2Text", "Tipsv2", "TimeEmbedding",
    "SpeechT5", "FalconMamba",
)  # fmt: skip
_OF_THE_WHOLE = ("MusicFlamingoRotaryEmbedding",)  # which reads the model's own fields, and no tower's
_OFFSET_BY_TWO = ("Mra", "Nystromformer", "Yoso")
_MOST_POSITIONS = 2**31
_POSITIONS = ("max_position_embeddings", "n_positions")  # of two names of one field the first wins


def buffer_shape(wanted: Wanted, shapes: Mapping[str, Shape], read: Read) -> Shape | None:
    """The shape in torch's order, None where no rule says it. `shapes`: of all parameters, by full name."""
    if wanted.dimensions == 0:
        return ()
    if any(word in wanted.cls for word in _OF_THEIR_OWN):
        return None
    config = read if wanted.cls in _OF_THE_WHOLE else section_of_module(wanted.module, read)
    if wanted.cls == "Sam3ViTLayer":
        return _places_of_a_window(wanted, shapes, config)
    if wanted.name.endswith("inv_freq"):
        return inverse_frequencies(wanted, shapes, config)
    rule = _RULES.get((wanted.name, wanted.dimensions))
    return rule(wanted, shapes, config) if rule else None


def buffer_exists(wanted: Wanted, read: Read, *, always: bool) -> bool:
    """Whether a buffer is there that some configs of the class do not have: frequencies of a kind of layer.

    always: no config is known without it; a kind of attention needs layers of it all the same.
    """
    kind = kind_of(wanted.name)
    if not kind or (always and not kind.endswith("_attention")):
        return True
    layers = section_of_module(wanted.module, read)("layer_types")
    return not isinstance(layers, (list, tuple)) or kind in layers


def _positions(wanted: Wanted, shapes: Mapping[str, Shape], config: Read) -> Shape | None:
    """As many as the position embedding beside it has rows."""
    for name in ("position_embeddings", "position_embedding", "positions_embed", "embed_positions", "pos_embed"):
        found = shapes.get(f"{wanted.module}.{name}.weight")
        if found:
            return (1, found[0] - (2 if wanted.cls.startswith(_OFFSET_BY_TWO) else 0))
    stated = first_number(config, *_POSITIONS, "max_positions")
    return (1, stated) if stated else None


def _places_of_a_grid(wanted: Wanted, shapes: Mapping[str, Shape], config: Read) -> Shape | None:
    """SAM 2's memory of a video: column and row of each place of an image, and of one in memory where they are fewer.

    Elsewhere position ids.
    """
    if not wanted.cls.endswith("VideoMemoryAttention"):
        return _positions(wanted, shapes, config) if wanted.name == "position_ids" else None
    field = "memory_attention_rope_" + ("feat_sizes" if wanted.name == "position_ids" else "k_sizes")
    sides = config(field)
    whole = isinstance(sides, (list, tuple)) and len(sides) > 1 and all(type(side) is int for side in sides[:2])
    return (sides[0] * sides[1], 2) if whole else None


def _pairs_of_places(wanted: Wanted, shapes: Mapping[str, Shape], _: Read) -> Shape | None:
    """LeViT: which bias each pair of places has; as many biases as places, where half the sides are left a quarter."""
    biases = shapes.get(f"{wanted.module}.attention_biases")
    if not biases:
        return None
    side = isqrt(biases[-1])
    return ((side + 1) // 2) ** 2 if wanted.cls.endswith("Subsample") else side * side, side * side


def _places_of_a_window(wanted: Wanted, _: Mapping[str, Shape], config: Read) -> Shape | None:
    """SAM 3: row and column of each patch, of a window or, in layers of global attention, of the image."""
    everywhere = config("global_attn_indexes")
    patch, image = first_number(config, "patch_size"), first_number(config, "image_size")
    layer = wanted.module.rpartition(".")[2]
    if not isinstance(everywhere, (list, tuple)) or not layer.isdigit() or not patch or not image:
        return None
    side = image // patch if int(layer) in everywhere else first_number(config, "window_size")
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
    stated = first_number(config, *_POSITIONS, "n_ctx")
    return (1, 1, stated, stated)[-2 if wanted.dimensions == 2 else 0 :] if stated else None


def _rotary_table(_: Wanted, __: Mapping[str, Shape], config: Read) -> Shape | None:
    """GPT-J's sines and cosines: positions x rotated dimensions."""
    positions = first_number(config, *_POSITIONS)
    rotated = first_number(config, "rotary_dim") or first_number(config, "hidden_size", "n_embd")
    return (positions, rotated) if positions and rotated else None


def _sinusoids(wanted: Wanted, shapes: Mapping[str, Shape], config: Read) -> Shape | None:
    positions = first_number(config, "max_position_embeddings", "max_source_positions")
    if wanted.cls.startswith("Musicgen"):  # as long as it says, as wide as the norm behind the layers
        norm = shapes.get(f"{wanted.module.rpartition('.')[0]}.layer_norm.weight")
        return (positions, *norm) if positions and norm else None
    if "t2u_model" in wanted.module.split("."):  # Seamless: its fields stand in the model's own section
        positions = first_number(config, "t2u_max_position_embeddings") or positions
    width = first_number(config, "d_model", "hidden_size", "embed_dim")
    return (positions + 2, width) if positions and width else None


def _frames(wanted: Wanted, _: Mapping[str, Shape], config: Read) -> Shape | None:
    """Qwen's sound: sines and cosines side by side, no row more than positions."""
    if wanted.cls != "SinusoidsPositionEmbedding":
        return None
    frames = first_number(config, "max_source_positions", "max_position_embeddings")
    width = first_number(config, "d_model", "hidden_size")
    return (frames, width) if frames and width else None


def _distances_of_a_constant(wanted: Wanted, shapes: Mapping[str, Shape], _: Read) -> Shape | None:
    """FastSpeech 2: as `_distances`, of 5,000 positions whatever config.json says, as wide as the layers."""
    output = shapes.get(f"{wanted.module.rpartition('.')[0]}.conformer_layers.0.self_attn.linear_out.weight")
    return (1, 2 * 5000 - 1, output[0]) if output else None


def _timescales(_: Wanted, __: Mapping[str, Shape], config: Read) -> Shape | None:
    width = first_number(config, "hidden_size")
    return (1, 1, width // 2) if width else None


def _distances(_: Wanted, __: Mapping[str, Shape], config: Read) -> Shape | None:
    """A row for each distance between two frames, forwards and backwards."""
    frames, width = first_number(config, "max_source_positions"), first_number(config, "hidden_size")
    return (1, 2 * frames - 1, width) if frames and width else None


def _boxes_of_patches(wanted: Wanted, shapes: Mapping[str, Shape], _: Read) -> Shape | None:
    """LayoutLMv3: four corners for each place that has a position; OWL: the same but for the class token's."""
    places = shapes.get(f"{wanted.module}.pos_embed".lstrip("."))
    if places:
        return (places[1], 4)
    rows = next((s[0] for n, s in shapes.items() if n.endswith("vision_model.embeddings.position_embedding.weight")), 0)
    return (rows - 1, 4) if rows else None


def _places_of_a_tile(wanted: Wanted, shapes: Mapping[str, Shape], config: Read) -> Shape | None:
    """Granite Docling: places of an image's patches, of which the projection beside it joins so many times so many."""
    projection = shapes.get(f"{wanted.module.rpartition('.')[0]}.projection.weight")
    width, image, patch = (first_number(config, field) for field in ("hidden_size", "image_size", "patch_size"))
    if not projection or not width or not image or not patch:
        return None
    side = image // patch // (isqrt(projection[1] // width) or 1)
    return (side * side, projection[0])


def _rotations_of_patches(wanted: Wanted, shapes: Mapping[str, Shape], config: Read) -> Shape | None:
    """Llama 4: complex numbers for each place that has a position, as many as rows and columns take of a head."""
    tower, heads = wanted.module.rpartition(".")[0], heads_of(config)
    places = shapes.get(f"{tower}.positional_embedding_vlm".lstrip("."))
    return (places[0], 1, places[1] // heads // 2 // 2 * 2) if places and heads else None


def _angles_of_positions(wanted: Wanted, shapes: Mapping[str, Shape], config: Read) -> Shape | None:
    """MusicFlamingo: each frequency twice, at as many positions as the config's rope_theta is."""
    frequencies, rope = inverse_frequencies(wanted, shapes, config), config("rope_parameters")
    positions: Any = rope.get("rope_theta") if isinstance(rope, Mapping) else None
    is_number = isinstance(positions, (int, float)) and 0 < positions < _MOST_POSITIONS
    return (int(positions), 2 * frequencies[0]) if frequencies and is_number else None


def _every_code(_: Wanted, __: Mapping[str, Shape], config: Read) -> Shape | None:
    """Finite scalar quantisation: all combinations of the levels."""
    levels = config("quantization_levels")
    whole = isinstance(levels, (list, tuple)) and all(type(level) is int and level > 0 for level in levels)
    return (prod(levels), len(levels)) if whole and levels else None


def _codebooks(wanted: Wanted, _: Mapping[str, Shape], config: Read) -> Shape | None:
    """Where each codebook begins in the one table of all; Kyutai's has text before them. Inkling's bins are as much."""
    count = first_number(config, "num_codebooks", "n_mel_bins")
    return (count + wanted.cls.startswith("Kyutai"),) if count else None


def _pairs_of_queries(_: Wanted, __: Mapping[str, Shape], config: Read) -> Shape | None:
    queries = first_number(config, "num_queries")
    return (queries, queries) if queries else None


def _bins(wanted: Wanted, _: Mapping[str, Shape], config: Read) -> Shape | None:
    """ZoeDepth: the bins of the head that the module's name ends in, of the only one where it ends in none."""
    heads = config("bin_configurations")
    heads = [head for head in heads if isinstance(head, Mapping)] if isinstance(heads, (list, tuple)) else []
    on_path = wanted.module.split(".")
    bins = next((head.get("n_bins") for head in heads if len(heads) == 1 or head.get("name") in on_path), None)
    return (1, bins, 1, 1) if type(bins) is int else None


def _timesteps(_: Wanted, __: Mapping[str, Shape], config: Read) -> Shape | None:
    """VibeVoice's diffusion: a frequency for each sine and cosine."""
    width = first_number(config, "frequency_embedding_size")
    return (width // 2,) if width else None


_RULES: Mapping[tuple[str, int | None], Callable[[Wanted, Mapping[str, Shape], Read], Shape | None]] = {
    ("position_ids", 2): _places_of_a_grid,
    ("position_ids_k", 2): _places_of_a_grid,
    ("attention_bias_idxs", 2): _pairs_of_places,
    ("token_type_ids", 2): _positions,
    ("position_ids", 1): _position_list,
    ("relative_position_index", 1): _window_pairs,
    ("relative_position_index", 2): _window_pairs,
    ("relative_coords_table", 4): _window_offsets,
    ("bias", 2): _square_mask,
    ("bias", 4): _square_mask,
    ("embed_positions", 2): _rotary_table,
    ("weights", 2): _sinusoids,
    ("positional_embedding", 2): _frames,
    ("pe", 3): _distances,
    ("pos_enc", 3): _distances_of_a_constant,
    ("inv_timescales", 3): _timescales,
    ("freq", 1): _timesteps,
    ("visual_bbox", 2): _boxes_of_patches,
    ("box_bias", 2): _boxes_of_patches,
    ("pos_embed", 2): _places_of_a_tile,
    ("freqs_ci", 3): _rotations_of_patches,
    ("alpha", 1): inverse_frequencies,  # Mistral Large 4: a learned scale for each
    ("position_angles", 2): _angles_of_positions,
    ("codebook", 2): _every_code,
    ("audio_tokens_offsets", 1): _codebooks,
    ("eye", 2): _pairs_of_queries,
    ("one_minus_eye", 2): _pairs_of_queries,
    ("k_idx", 4): _bins,
    ("k_minus_1", 4): lambda *_: (1, 1, 1, 1),
    ("filter", 3): lambda *_: (1, 1, 12),  # BigVGAN's resampling, as the classes have it by default
    ("special_tokens", 1): lambda *_: (4,),  # Grounding DINO: two that frame a text, two that end a phrase of it
}
