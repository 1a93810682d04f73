"""Tiny models saved by transformers, estimated for every task from their files and from config.json alone, then built."""

from __future__ import annotations

import json

import pytest

from estimator.jobs.estimate import estimate
from estimator.jobs.verifying.model import AUTO_CLASSES
from estimator.jobs.verifying.verify import verify
from estimator.request.request import Request
from tests.real_models import tiny_model

pytestmark = pytest.mark.judges

TEXT = {
    "hidden_size": 48, "intermediate_size": 90, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 101,
    "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
VISION = {
    "depth": 1,
    "hidden_size": 48,
    "num_heads": 4,
    "out_hidden_size": 48,
    "intermediate_size": 64,
}
ENCODER_DECODER = {
    "d_model": 48, "d_kv": 12, "d_ff": 90, "num_layers": 2, "num_heads": 4, "vocab_size": 101, "encoder_layers": 2,
    "decoder_layers": 2, "encoder_ffn_dim": 90, "decoder_ffn_dim": 90, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "decoder_start_token_id": 0, "max_position_embeddings": 32,
}  # fmt: skip
FAMILIES = {
    "causal": ("LlamaForCausalLM", TEXT),
    "encoder": ("BertForMaskedLM", {**TEXT, "max_position_embeddings": 32}),
    "encoder and decoder": ("BartForConditionalGeneration", ENCODER_DECODER),
    "encoder and decoder, tied": ("T5ForConditionalGeneration", ENCODER_DECODER),
    "image and text": (
        "Qwen2_5_VLForConditionalGeneration",
        {"text_config": {**TEXT, "tie_word_embeddings": True}, "vision_config": VISION},
    ),
    "image and text, whose text model has a class": (
        "Qwen3_5ForConditionalGeneration",
        {"text_config": {**TEXT, "full_attention_interval": 2}, "vision_config": VISION},
    ),
}


UNNAMED = "image and text, no class named"  # so that a task's Auto class builds the text model alone
GENERATING = {name for name in FAMILIES if name != "encoder"}


@pytest.fixture(scope="module", params=[*FAMILIES, UNNAMED])
def saved(request, tmp_path_factory):
    """(family, its folder)."""
    pytest.importorskip("peft")
    path = tmp_path_factory.mktemp("model")
    family = list(FAMILIES)[-1] if request.param == UNNAMED else request.param
    tiny_model(*FAMILIES[family]).bfloat16().save_pretrained(path)
    if request.param == UNNAMED:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, "architectures": None}))
    return request.param, path


@pytest.mark.parametrize("labels", [None, 5])
@pytest.mark.parametrize("task", AUTO_CLASSES)
def test_every_task(saved, task, labels):
    family, folder = saved
    if task == "SEQ_2_SEQ_LM" and family not in GENERATING:
        pytest.skip("PEFT refuses the task for a class that does not generate")
    if task in ("TOKEN_CLS", "QUESTION_ANS") and family == UNNAMED:
        pytest.skip("there is no class for the task, and none is named")
    lora = {"r": 3, "target_modules": r".*\.(q_proj|query|q)", "task_type": task}
    for model in (folder, folder / "config.json"):
        request = Request(model=str(model), lora=lora, num_labels=labels)
        answer = estimate(request)
        verification = verify(request, answer, device="meta")
        assert answer.tree.basis == "exact"
        assert [c for c in verification.comparisons if not c.equal] == []
