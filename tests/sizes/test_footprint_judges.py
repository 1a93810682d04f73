"""get_memory_footprint() and PEFT's count of tiny models, really loaded on a CPU in every precision."""

from __future__ import annotations

import pytest

from estimator.architecture.build import build
from estimator.checkpoint.index import to_checkpoint
from estimator.request.load_options import LoadOptions
from estimator.sizes.base import base_sizes
from estimator.source.folder import find_in_folder
from tests.real_models import SMALL, tiny_model

pytestmark = pytest.mark.judges

FAMILIES = {
    "llama, untied": ("LlamaForCausalLM", {**SMALL, "num_key_value_heads": 2, "tie_word_embeddings": False}),
    "llama, a classifier's head": ("LlamaForSequenceClassification", {**SMALL, "num_labels": 3}),
    "qwen2, tied, biases": ("Qwen2ForCausalLM", {**SMALL, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "odd shapes": ("LlamaForCausalLM", {**SMALL, "hidden_size": 40, "intermediate_size": 77, "attention_bias": True}),
    "gpt2, Conv1D": (
        "GPT2LMHeadModel",
        {"n_embd": 48, "n_layer": 2, "n_head": 4, "vocab_size": 101, "n_positions": 32},
    ),
    "mixtral, fused experts": ("MixtralForCausalLM", {**SMALL, "num_key_value_heads": 2, "num_local_experts": 4}),
    "t5, kept in float32": (
        "T5ForConditionalGeneration",
        {"d_model": 48, "d_kv": 12, "d_ff": 90, "num_layers": 2, "num_heads": 4, "vocab_size": 101},
    ),
    "bert, a last bias": ("BertForSequenceClassification", {**SMALL, "max_position_embeddings": 32}),
    "vit, a vision model": (
        "ViTForImageClassification",
        {**{k: v for k, v in SMALL.items() if k != "vocab_size"}, "image_size": 16, "patch_size": 8},
    ),
    "whisper, two towers": (
        "WhisperForConditionalGeneration",
        {
            "d_model": 48,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 90,
            "decoder_ffn_dim": 90,
            "vocab_size": 101,
            "num_mel_bins": 8,
            "max_source_positions": 16,
            "max_target_positions": 16,
            "pad_token_id": 0,
        },
    ),
    "gpt_oss, norms kept in float32": (
        "GptOssForCausalLM",
        {**SMALL, "num_key_value_heads": 2, "head_dim": 12, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
}
LOADS = {
    "fp32": {},
    "bf16": {},
    "fp16": {},
    "int8": {},
    "nf4": {},
    "nf4, double": {"double_quant": True},
    "fp4, bfloat16 storage": {"quant_storage": "BF16"},
    "int8, nothing skipped": {"skip_modules": ()},
}


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request, tmp_path_factory):
    """A tiny model of one family on disk, and its tree as config.json and headers tell it."""
    torch = pytest.importorskip("torch")
    model = tiny_model(*FAMILIES[request.param]).to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    found = find_in_folder(str(folder))
    return type(model), folder, build(found.config, to_checkpoint(found.files, found.index))


@pytest.mark.parametrize("name", LOADS)
def test_footprint_and_counts(saved, name):
    cls, folder, tree = saved
    load = LoadOptions(base_precision=name.split(",")[0], **LOADS[name])
    expected = base_sizes(tree, None, load)
    model = really_load(cls, folder, load)
    assert expected.loaded.footprint_bytes == model.get_memory_footprint()
    assert expected.all_parameters == model.num_parameters()
    assert expected.loaded.state_bytes == state_bytes(model)


def really_load(cls, folder, load):
    import torch

    dtypes = {"fp32": torch.float32, "fp16": torch.float16}
    dtype = dtypes.get(load.base_precision, torch.bfloat16)
    if load.base_precision in ("fp32", "bf16", "fp16"):
        return cls.from_pretrained(folder, dtype=dtype)
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    four_bit = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": load.base_precision,
        "bnb_4bit_use_double_quant": load.double_quant,
        "bnb_4bit_quant_storage": torch.bfloat16 if load.quant_storage == "BF16" else torch.uint8,
    }
    fields = {"load_in_8bit": True} if load.base_precision == "int8" else four_bit
    skipped = list(load.skip_modules) if load.skip_modules is not None else None
    config = BitsAndBytesConfig(llm_int8_skip_modules=skipped, **fields)
    return cls.from_pretrained(folder, dtype=dtype, quantization_config=config, device_map={"": "cpu"})


def state_bytes(model):
    """What stands beside the weights: QuantState's tensors of 4 bits, SCB of 8."""
    total = 0
    for _, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            total += sum(t.numel() * t.element_size() for t in tensors_of(state))
        elif getattr(parameter, "SCB", None) is not None:
            total += parameter.SCB.numel() * parameter.SCB.element_size()
    return total


def tensors_of(state):
    yield from (state.absmax, state.code)
    if state.nested:
        yield from (state.offset, state.state2.absmax, state.state2.code)


def test_prepared_for_kbit_training(saved):
    peft = pytest.importorskip("peft")
    cls, folder, tree = saved
    load = LoadOptions(base_precision="nf4", prepare_kbit=True)
    model = peft.prepare_model_for_kbit_training(really_load(cls, folder, load))
    assert base_sizes(tree, None, load).loaded.prepared_footprint_bytes == model.get_memory_footprint()
