"""Which repeated layers see tokens, and which see pieces of images or sound."""

from __future__ import annotations

import pytest

from estimator.architecture.from_config import from_config
from estimator.sizes.blocks import shape_of


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
        ("ViltModel", {True}),  # one stack that reads both
    ],
)
def test_what_layers_see(architecture: str, seen: set[bool]) -> None:
    blocks = shape_of(from_config({"architectures": [architecture]})).blocks
    assert {block.sees_tokens for block in blocks} == seen
