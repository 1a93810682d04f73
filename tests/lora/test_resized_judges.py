"""resize_token_embeddings on tiny models of classes drawn at random, beside what the estimate makes of --vocab-size.

LORA_SIZE_DRAWS=400 LORA_SIZE_SEED=7 python -m pytest -m judges tests/lora/test_resized_judges.py
"""

from __future__ import annotations

import copy
import json
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


ON_THE_ENDS = (
    {"trainable_token_indices": [3]},
    {"trainable_token_indices": {"shared": [3], "lm_head": [3]}},
    {"modules_to_save": ["lm_head"], "ensure_weight_tying": True},
    {"target_modules": "all-linear"},
)


@pytest.mark.parametrize("head", ["its own", "tied"])
def test_t5_ties_whatever_config_json_says(tmp_path, head):
    """Flan-T5's file has a head of other values, which stays apart until the vocabulary is resized."""
    pytest.importorskip("peft")
    from safetensors.torch import load_file, save_file
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(d_model=48, d_kv=8, d_ff=56, num_layers=1, num_heads=6, vocab_size=101, decoder_start_token_id=0)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    if head == "its own":
        held = load_file(tmp_path / "model.safetensors")
        save_file(
            {**held, "lm_head.weight": held["shared.weight"] + 1}, tmp_path / "model.safetensors", {"format": "pt"}
        )
    said = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**said, "tie_word_embeddings": False}))
    model = T5ForConditionalGeneration.from_pretrained(tmp_path)
    found = []
    for lora in ({"r": 3, "target_modules": ["v"], **more} for more in ON_THE_ENDS):
        for options in ({}, {"vocab_size": 105}):
            real = outcome(model, copy.deepcopy(lora), options)
            found += differences(str(tmp_path), copy.deepcopy(lora), options, real, BaseCache())
    assert not found
