"""Tiny models of many families, every width another number so that a mixed-up shape shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_TEXT = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "vocab_size": 101,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_TEXT, "num_key_value_heads": 2, "head_dim": 10}
_VISION = {
    "hidden_size": 36,
    "intermediate_size": 52,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}

# family -> classes of transformers, the config's class, and its fields. Classes of one family are drawn by the seed.
FAMILIES: dict[str, tuple[tuple[str, ...], str, dict[str, Any]]] = {
    "llama": (
        ("LlamaForCausalLM", "LlamaForSequenceClassification", "LlamaForTokenClassification", "LlamaModel"),
        "LlamaConfig",
        {**_GROUPED, "attention_bias": True, "tie_word_embeddings": False},
    ),
    "gpt2": (
        ("GPT2LMHeadModel", "GPT2DoubleHeadsModel", "GPT2ForSequenceClassification", "GPT2ForTokenClassification"),
        "GPT2Config",
        {"n_embd": 48, "n_layer": 3, "n_head": 4, "vocab_size": 101, "n_positions": 33, "pad_token_id": 0},
    ),
    "t5": (
        ("T5ForConditionalGeneration", "T5EncoderModel", "T5ForTokenClassification"),
        "T5Config",
        {"d_model": 48, "d_kv": 10, "d_ff": 80, "num_layers": 2, "num_heads": 4, "vocab_size": 101,
         "decoder_start_token_id": 0, "feed_forward_proj": "gated-gelu"},
    ),
    "bert": (
        ("BertForSequenceClassification", "BertForMaskedLM", "BertForQuestionAnswering", "BertForTokenClassification"),
        "BertConfig",
        {**_TEXT, "max_position_embeddings": 34, "num_labels": 3},
    ),
    "qwen3_moe": (
        ("Qwen3MoeForCausalLM",),
        "Qwen3MoeConfig",
        {**_GROUPED, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 28, "decoder_sparse_step": 1,
         "mlp_only_layers": [1], "tie_word_embeddings": True},
    ),
    "mixtral": (("MixtralForCausalLM",), "MixtralConfig", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "mamba": (
        ("MambaForCausalLM", "Mamba2ForCausalLM"),
        "MambaConfig",
        {"hidden_size": 48, "num_hidden_layers": 2, "vocab_size": 101, "state_size": 8},
    ),
    "vit": (
        ("ViTForImageClassification", "ViTModel"),
        "ViTConfig",
        {**_VISION, "num_labels": 3},
    ),
    "whisper": (
        ("WhisperForConditionalGeneration", "WhisperForAudioClassification"),
        "WhisperConfig",
        {"d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "num_labels": 3,
         "decoder_attention_heads": 4, "encoder_ffn_dim": 80, "decoder_ffn_dim": 72, "vocab_size": 101, "pad_token_id": 0,
         "num_mel_bins": 12, "max_source_positions": 20, "max_target_positions": 22, "decoder_start_token_id": 1,
         "bos_token_id": 1, "eos_token_id": 2, "classifier_proj_size": 26},
    ),
    "gemma3": (
        ("Gemma3ForConditionalGeneration",),
        "Gemma3Config",
        {"text_config": {**_GROUPED, "query_pre_attn_scalar": 12}, "vision_config": {**_VISION, "model_type": "siglip_vision_model"},
         "mm_tokens_per_image": 4, "image_token_index": 99, "boi_token_index": 97, "eoi_token_index": 98},
    ),
    "clip": (
        ("CLIPModel", "CLIPTextModelWithProjection"),
        "CLIPConfig",
        {"text_config": {**_TEXT, "num_attention_heads": 4, "max_position_embeddings": 21, "projection_dim": 30},
         "vision_config": {**_VISION, "projection_dim": 30}, "projection_dim": 30},
    ),
    "siglip": (("SiglipVisionModel",), "SiglipVisionConfig", _VISION),
    "wav2vec2": (
        ("Wav2Vec2ForCTC", "Wav2Vec2ForSequenceClassification", "Wav2Vec2ForPreTraining"),
        "Wav2Vec2Config",
        {**_TEXT, "num_attention_heads": 4, "conv_dim": (16, 18), "conv_stride": (2, 2), "conv_kernel": (3, 4),
         "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4,
         "classifier_proj_size": 26, "num_labels": 3, "codevector_dim": 24, "proj_codevector_dim": 22},
    ),
}  # fmt: skip
_OTHER_CONFIGS = {
    "Mamba2ForCausalLM": (
        "Mamba2Config",
        {"hidden_size": 48, "num_hidden_layers": 2, "vocab_size": 101, "state_size": 8, "num_heads": 8, "head_dim": 12, "n_groups": 2},
    ),
    "CLIPTextModelWithProjection": (
        "CLIPTextConfig",
        {**_TEXT, "num_attention_heads": 4, "max_position_embeddings": 21, "projection_dim": 30},
    ),
}  # fmt: skip
DTYPES = ("float32", "bfloat16", "float16")


def classes(family: str) -> tuple[str, ...]:
    """The classes of a family."""
    return FAMILIES[family][0]


def build(family: str, cls: str, dtype: str, changes: dict[str, Any]) -> Any:
    """The model, with weights as its class makes them. `changes` are fields of the config beside the family's."""
    import torch
    import transformers

    name, fields = _OTHER_CONFIGS.get(cls, FAMILIES[family][1:])
    config = getattr(transformers, name)(**{**fields, **changes})
    torch.manual_seed(0)
    return getattr(transformers, cls)(config).to(getattr(torch, dtype))


Builder = Callable[[], Any]
