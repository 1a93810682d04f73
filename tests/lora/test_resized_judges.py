"""resize_token_embeddings on tiny models of classes drawn at random, beside what the estimate makes of --vocab-size.

LORA_SIZE_DRAWS=400 LORA_SIZE_SEED=7 python -m pytest -m judges tests/lora/test_resized_judges.py
"""

from __future__ import annotations

import os
from random import Random

import pytest

from estimator.jobs.base import BaseCache
from tests.lora.judge.compare import differences
from tests.lora.judge.run import saved
from tests.lora.judge.truth import outcome

pytestmark = pytest.mark.judges

DRAWS = int(os.environ.get("LORA_SIZE_DRAWS", "150")) // 10
SEED = int(os.environ.get("LORA_SIZE_SEED", "0"))
KINDS = (
    "BlipForConditionalGeneration",
    "CanaryModel",
    "EncoderDecoderModel",
    "IBertModel",
    "MllamaForCausalLM",
    "ReformerForMaskedLM",
    "T5GemmaForConditionalGeneration",
)
LARGEST = 20_000_000


def test_the_rows_are_those_of_the_resized_model(tmp_path):
    pytest.importorskip("peft")
    from estimator.architecture.surveying import tiny

    names = (*KINDS, *Random(SEED).sample(sorted(tiny.classes()), DRAWS))
    found = {name: told for name in names if (told := _told(name, tmp_path / name))}
    assert not found


def _told(name, folder):
    """What differs for one class; [] where no tiny model of it can be built, saved and resized."""
    from estimator.architecture.surveying import tiny

    try:
        plain = tiny.build(name, tiny.make(name, tiny.base_fields(name)))
        rows = plain.get_input_embeddings().weight.shape[0]
        if sum(parameter.numel() for parameter in plain.parameters()) > LARGEST:
            return []
        model = saved(tiny.class_of(name)(tiny.make(name, tiny.base_fields(name))), folder)
    except Exception:  # another package's part, no embedding, a class that is never saved
        return []
    found = []
    for options in ({"vocab_size": rows + 7}, {"vocab_size": rows - 3}, {"vocab_size": rows}):
        lora = {"r": 3, "target_modules": "all-linear"}
        real = outcome(model, lora, options)
        found += differences(str(folder), lora, options, real, BaseCache())
    return found
