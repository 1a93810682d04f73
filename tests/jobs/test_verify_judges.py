"""Tiny models of ten families, saved, estimated from their files, then really loaded with PEFT's adapter on them."""

from __future__ import annotations

import pytest

from estimator.jobs.estimate import estimate
from estimator.jobs.verifying.verify import verify
from estimator.request.request import Request
from tests.real_models import GROUPED, SMALL, tiny_model

pytestmark = pytest.mark.judges

FAMILIES = {
    "llama": ("LlamaForCausalLM", {**GROUPED, "tie_word_embeddings": False}),
    "qwen2, tied": ("Qwen2ForCausalLM", {**GROUPED, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2ForCausalLM", {**GROUPED, "head_dim": 12}),
    "mistral": ("MistralForCausalLM", GROUPED),
    "phi3, fused": ("Phi3ForCausalLM", {**GROUPED, "pad_token_id": 0}),
    "gpt2, Conv1D": (
        "GPT2LMHeadModel",
        {"n_embd": 48, "n_layer": 2, "n_head": 4, "vocab_size": 101, "n_positions": 32},
    ),
    "mixtral, experts": ("MixtralForCausalLM", {**GROUPED, "intermediate_size": 96, "num_local_experts": 4}),
    "t5": (
        "T5ForConditionalGeneration",
        {
            "d_model": 48,
            "d_kv": 12,
            "d_ff": 90,
            "num_layers": 2,
            "num_heads": 4,
            "vocab_size": 101,
            "decoder_start_token_id": 0,
        },
    ),
    "bert": ("BertForSequenceClassification", {**SMALL, "max_position_embeddings": 32}),
    "opt": (
        "OPTForCausalLM",
        {
            "hidden_size": 48,
            "ffn_dim": 90,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 101,
            "word_embed_proj_dim": 48,
        },
    ),
}
LORAS = {
    "DoRA by a regular expression": {
        "target_modules": r".*\.(q_proj|qkv_proj|c_attn|q|query)",
        "r": 4,
        "use_dora": True,
    },
    "all-linear, r 3": {"target_modules": "all-linear", "r": 3},
}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    pytest.importorskip("peft")
    path = tmp_path_factory.mktemp("model")
    tiny_model(*FAMILIES[request.param]).bfloat16().save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("lora", LORAS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "nf4"])
def test_loaded_on_a_cpu(folder, precision, lora):
    if precision in ("int8", "nf4"):
        pytest.importorskip("bitsandbytes")
    check(Request(model=folder, base_precision=precision, lora=LORAS[lora]), "cpu")


@pytest.mark.parametrize("lora", LORAS)
def test_without_weights(folder, lora):
    check(Request(model=folder, lora=LORAS[lora]), "meta")


def test_saved_modules_stay_tied_on_meta(tmp_path):
    pytest.importorskip("peft")
    tiny_model(*FAMILIES["qwen2, tied"]).save_pretrained(tmp_path)
    lora = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    check(Request(model=str(tmp_path), lora=lora), "meta")


@pytest.mark.parametrize(
    ("name", "subfolder"),
    [
        pytest.param("", "text", id="a subfolder"),
        pytest.param("text/config.json", None, id="a config.json in its folder"),
        pytest.param("text/model.safetensors", None, id="a file of weights in its folder"),
    ],
)
def test_weights_are_loaded_from_where_the_headers_were_read(tmp_path, name, subfolder):
    pytest.importorskip("peft")
    tiny_model(*FAMILIES["qwen2, tied"]).save_pretrained(tmp_path / "text")
    check(Request(model=str(tmp_path / name), subfolder=subfolder, lora={"target_modules": ["q_proj"]}), "cpu")


def check(request, device):
    verification = verify(request, estimate(request), device=device)
    assert not verification.differences
    assert [c for c in verification.comparisons if not c.equal] == []
    compared = {c.what for c in verification.comparisons}
    assert {"trainable parameters", "adapted modules", "tensors of the adapter file"} <= compared


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_broken_fact_is_caught_and_named(folder, device):
    request = Request(model=folder, lora={"target_modules": "all-linear"})
    answer = estimate(request)
    modules = answer.tree.modules
    broken = next(module for module in modules if module.kind in ("Linear", "Conv1D"))
    changed = tuple(module._replace(cls="Identity") if module is broken else module for module in modules)
    verification = verify(request, answer._replace(tree=answer.tree._replace(modules=changed)), device=device)
    assert [c.what for c in verification.comparisons if not c.equal] == ["modules of the base"]
    assert [difference.name for difference in verification.differences] == [broken.name]


def test_one_training_step_goes_through(folder):
    request = Request(model=folder, lora={"target_modules": "all-linear"})
    verification = verify(request, estimate(request), device="cpu", train_step=True)
    assert verification.equal
    assert not [text for text in verification.left_out if "failed" in text]


def test_a_task_s_class_without_the_head_that_the_files_hold_untied():
    pytest.importorskip("peft")
    request = Request(
        model="mt5-small", lora={"task_type": "FEATURE_EXTRACTION", "target_modules": ["q"]}, offline=True
    )
    check(request, "meta")
