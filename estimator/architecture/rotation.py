"""Rotations that transformers refuses to build, though their frequencies could be counted (transformers 5.23.0)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from estimator.architecture.frequencies import ROTATIONS, kind_of, rope_of, way_of
from estimator.architecture.module import Module
from estimator.architecture.sections import Read, section_of_module
from estimator.errors import MalformedConfigError

_LENGTH = "original_max_position_embeddings"  # of texts before the scaling
# What each way to scale has to state beside its name (`RotaryEmbeddingConfigMixin.validate_rope`).
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor", _LENGTH),
    "llama3": ("factor", _LENGTH, "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor", _LENGTH),
}
# Whose config classes leave it as it is stated; others take max_position_embeddings in its place.
_AS_STATED = ("Beam", "DiffusionGemmaText", "EmbeddingGemma2", "Gemma4Text", "Gemma4UnifiedText", "Laguna", "Mellum",
              "MiMoV2Flash", "Zaya")  # fmt: skip
_SCALED = "original_inv_freq"  # what `ROPE_INIT_FUNCTIONS` may scale is kept beside the frequencies
# Whose config classes make one rotation that of each kind of layer, or take a default for the others.
_SPREAD = ("DeepseekV4", "Gemma3", "Gemma3n", "ModernBert", "ModernBertDecoder", "Olmo3", "Step3p7", "T5Gemma2")


def check_rotation(modules: Iterable[Module], read: Read) -> None:
    """Raises MalformedConfigError where the class fails on the rotation that config.json states."""
    for module in modules:
        family = module.cls.removesuffix("RotaryEmbedding")
        for buffer in (one for one in module.buffers if one.name.endswith(_SCALED)):
            config, kind = section_of_module(module.name, read), kind_of(buffer.name)
            if kind and family not in _SPREAD:
                _check_kind(kind, config)
            rope, way = rope_of(module.cls, kind, config), way_of(module.cls, kind, config)
            _check_scaling(rope if family in _AS_STATED else {_LENGTH: None, **rope}, way, buffer.shape[0])


def _check_kind(kind: str, config: Read) -> None:
    """`rope_parameters[layer_type]`: rope_scaling stands in the place of them all."""
    said = next((found for found in map(config, reversed(ROTATIONS)) if isinstance(found, Mapping) and found), None)
    if said is not None and kind not in said:
        raise _no_model(f"rotation is stated by kind of layer, and {kind} has none")


def _check_scaling(rope: Mapping[str, Any], way: Any, frequencies: int) -> None:
    lacking = [field for field in _NEEDED.get(str(way), ()) if field not in rope]
    if lacking and "short_factor" not in rope:  # older ways of Phi-3's, which are read as longrope
        raise _no_model(f"the {way} scaling of rotary frequencies lacks {' and '.join(lacking)}")
    factors = rope.get("short_factor") if way == "longrope" else None  # the long ones are for texts that are long
    if isinstance(factors, (list, tuple)) and 1 < frequencies != len(factors) > 1:
        raise _no_model(f"short_factor has {len(factors)} numbers for {frequencies} rotary frequencies")


def _no_model(what: str) -> MalformedConfigError:
    return MalformedConfigError(
        f"{what}: transformers builds no such model.",
        where="rope_parameters or rope_scaling in config.json",
        way_out="correct the field, in config.json or in --set",
    )
