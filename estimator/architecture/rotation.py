"""Rotations that transformers refuses to build, though their frequencies could be counted (transformers 5.23.0)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from estimator.architecture.frequencies import ROTATIONS, UNSCALED, in_two_axes, kind_of, rope_of, way_of
from estimator.architecture.module import Module
from estimator.architecture.sections import Read, section_of_module
from estimator.errors import MalformedConfigError

_LENGTH = "original_max_position_embeddings"  # of texts before the scaling
# What each way has to state beside its name (`RotaryEmbeddingConfigMixin.validate_rope`); there is no other way.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "proportional": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor", _LENGTH),
    "llama3": ("factor", _LENGTH, "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor", _LENGTH),
}
_LISTS = ("short_factor", "long_factor")
_MAY_BE_NULL = ("yarn", "longrope")  # whose factor is worked out of the lengths
_PLAIN = ("Cosmos3EdgeText", "EomtDinov3", "Ernie4_5_VLMoeText", "RecurrentGemma")  # never scaled
# Ways that a config class takes for others (`convert_rope_params_to_dict`).
_READ_AS: Mapping[str, Mapping[str, str]] = {
    "HunYuanVL": {"xdrope": "dynamic"},
    "Phi3": {"su": "longrope", "yarn": "longrope"},
    "Phi4Multimodal": {"su": "longrope", "yarn": "longrope"},
    "Qwen2VL": {"mrope": "default"},
    "Qwen2_5_VL": {"mrope": "default"},
}
_BESIDE = {"Phimoe": ("short_mscale", "long_mscale")}  # what its config class asks of every way
# Whose config classes leave head_dim null, which these ways multiply.
_HEADS_UNSAID = ("HunYuanDenseV1", "HunYuanMoEV1", "HunYuanVL", "MiniMax", "Ministral", "Mixtral")
_OF_HEADS = ("dynamic", "yarn", "longrope")
_ONE_WAY = ("Phi3", "Phi4Multimodal")  # to scale: longrope
# Whose config classes leave it as it is stated; others take max_position_embeddings in its place.
_AS_STATED = ("Beam", "DiffusionGemmaText", "EmbeddingGemma2", "Gemma4Text", "Gemma4UnifiedText", "Laguna", "Mellum",
              "MiMoV2Flash", "Zaya")  # fmt: skip
_UNSCALED_WAYS = ("default", "axial")  # the latter of images
_SCALED = "original_inv_freq"  # what `ROPE_INIT_FUNCTIONS` may scale is kept beside the frequencies
# Whose config classes make one rotation that of each kind of layer, or take a default for the others.
_SPREAD = ("DeepseekV4", "Gemma3", "Gemma3n", "ModernBert", "ModernBertDecoder", "Olmo3", "Step3p7", "T5Gemma2")


def check_rotation(modules: Iterable[Module], read: Read) -> None:
    """Raises MalformedConfigError where the class fails on the rotation that config.json states."""
    for module in modules:
        family = module.cls.removesuffix("RotaryEmbedding")
        for buffer in (one for one in module.buffers if one.name.endswith(_SCALED)):
            config, kind = section_of_module(module.name, read), kind_of(buffer.name)
            _check_said("" if family in _SPREAD else kind, config)
            if module.cls not in UNSCALED:
                way = _check_scaling(module.cls, rope_of(module.cls, kind, config), buffer.shape[0])
                if way in _OF_HEADS and family in _HEADS_UNSAID and config("head_dim") is None:
                    raise _no_model(f"the {way} scaling of rotary frequencies needs head_dim, which is null")


def _check_said(kind: str, config: Read) -> None:
    """kind: of the layers whose own has to be there. `rope_parameters[layer_type]`: rope_scaling is in place of all."""
    said: Any = next((found for found in map(config, reversed(ROTATIONS)) if found), {})
    if not isinstance(said, Mapping):
        raise _no_model(f"rotation is {repr(said)[:60]}, which is no object")
    if kind and said and kind not in said:
        raise _no_model(f"rotation is stated by kind of layer, and {kind} has none")


def _check_scaling(cls: str, rope: Mapping[str, Any], frequencies: int) -> str:
    """The way that is taken."""
    family, stated = cls.removesuffix("RotaryEmbedding"), way_of(rope)
    way = _READ_AS.get(family, {}).get(stated, stated) if isinstance(stated, str) else ""
    if way not in _ways(cls, family):
        raise _no_model(f"{repr(stated)[:60]} is no way to scale the rotary frequencies of {family}")
    if way in _UNSCALED_WAYS:
        return way
    needed = (*_NEEDED[way], *_BESIDE.get(family, ()))
    if family not in _AS_STATED and stated in _NEEDED:  # words that are read as others are so once the length is there
        rope = {_LENGTH: 1, **rope}
    lacking = [field for field in needed if field not in rope]
    if lacking:
        raise _no_model(f"the {way} scaling of rotary frequencies lacks {' and '.join(lacking)}")
    for field in dict.fromkeys(("factor", *needed)):
        value = rope.get(field, 1) if field not in _LISTS else 1
        if not isinstance(value, (int, float)) and not (value is None and field == "factor" and way in _MAY_BE_NULL):
            raise _no_model(f"the {field} of rotary frequencies is {repr(value)[:60]}, which is no number")
    for field in _LISTS if way == "longrope" else ():
        _check_list(field, rope[field], frequencies)
    return way


def _ways(cls: str, family: str) -> Collection[str]:
    if in_two_axes(cls):
        return _UNSCALED_WAYS
    if family in _PLAIN:
        return ("default",)
    return ("default", "longrope") if family in _ONE_WAY else _NEEDED


def _check_list(field: str, factors: Any, frequencies: int) -> None:
    if not isinstance(factors, (list, tuple)) or not all(isinstance(factor, (int, float)) for factor in factors):
        raise _no_model(f"{field} is no list of numbers")
    # The long ones are for texts that are long.
    if field == "short_factor" and 1 < frequencies != len(factors) != 1:
        raise _no_model(f"short_factor has {len(factors)} numbers for {frequencies} rotary frequencies")


def _no_model(what: str) -> MalformedConfigError:
    return MalformedConfigError(
        f"{what}: transformers builds no such model.",
        where="rope_parameters or rope_scaling in config.json",
        way_out="correct the field, in config.json or in --set",
    )
