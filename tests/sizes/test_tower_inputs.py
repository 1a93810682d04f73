"""Which repeated layers see tokens, and which see pieces of images or sound."""

from __future__ import annotations

import pytest

from estimator.architecture.from_config import from_config
from estimator.sizes.memory.shape import shape_of


@pytest.mark.parametrize(
    ("architecture", "seen"),
    [
        ("BertModel", {True}),
        ("T5Model", {True}),
        ("CanineModel", {True}),  # convolutions over characters, beside the layers
        ("ViTForImageClassification", {False}),
        ("ViTModel", {False}),  # the stem and the layers share no part of their names
        ("CLIPVisionModel", {False}),
        ("SiglipVisionModel", {False}),
        ("SwinModel", {False}),
        ("ASTModel", {False}),
        ("SamModel", {False}),
        ("CLIPModel", {False, True}),
        ("WhisperForConditionalGeneration", {False, True}),
        ("LlavaForConditionalGeneration", {False, True}),
        ("Data2VecAudioModel", {False}),  # nothing is embedded
        ("ViltModel", {True}),  # one stack that reads both
    ],
)
def test_what_layers_see(architecture: str, seen: set[bool]) -> None:
    blocks = shape_of(from_config({"architectures": [architecture]})).blocks
    assert {not block.tower for block in blocks} == seen
