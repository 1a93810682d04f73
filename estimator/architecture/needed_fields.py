"""Fields without which a class can't be built, where its config class's own defaults leave them out.

By class name or model type; a text ">bert" is a config of that model type, ">bert:decoder" one that decodes. Only
generators import this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ROPE_KIND = {"rope_theta": 10000.0, "rope_type": "default"}
_ROPE = {"rope_parameters": {"full_attention": _ROPE_KIND, "sliding_attention": _ROPE_KIND}}
NEEDED: Mapping[str, Mapping[str, Any]] = {
    "encoder-decoder": {"encoder": ">bert", "decoder": ">bert:decoder"},
    "speech-encoder-decoder": {"encoder": ">wav2vec2", "decoder": ">bert:decoder"},
    "vision-encoder-decoder": {"encoder": ">vit", "decoder": ">bert:decoder"},
    "vision-text-dual-encoder": {"vision_config": ">clip_vision_model", "text_config": ">bert"},
    "rag": {"question_encoder": ">dpr", "generator": ">bart"},
    "musicgen": {"text_encoder": ">t5", "audio_encoder": ">encodec", "decoder": ">musicgen_decoder"},
    "musicgen_melody": {"text_encoder": ">t5", "audio_encoder": ">encodec", "decoder": ">musicgen_melody_decoder"},
    "autoformer": {"prediction_length": 4},
    "informer": {"prediction_length": 4},
    "time_series_transformer": {"prediction_length": 4},
    "chameleon": {"vocabulary_map": {"<image>": 96}},
    "emu3": {"vocabulary_map": {"<image>": 96, "<|extra_200|>": 95}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_hidden_layers": 3},
    "granite4_vision": {"deepstack_layer_map": [[0, 0], [1, 1]], "spatial_layer_map": None},
    "hiera": {"decoder_hidden_size": 44, "decoder_depth": 2, "decoder_num_heads": 4},
    "ReformerModelWithLMHead": {"is_decoder": True},
    "T5GemmaEncoderModel": {"is_encoder_decoder": False},
    "PerceiverForImageClassificationFourier": {"num_cross_attention_heads": 1},
    "PerceiverForImageClassificationConvProcessing": {"num_cross_attention_heads": 1},
    "BeitForSemanticSegmentation": {"out_indices": [1, 2, 3, 4], "num_hidden_layers": 4},
    "dots1": {"moe_intermediate_size": 40, "n_routed_experts": 4, "n_shared_experts": 1},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2}},
    "cohere_compass": {"text_config": _ROPE},
    "cohere_compass_text": _ROPE,
    "perception_lm": {"vision_config": {"model_type": "timm_wrapper", "model_args": {"embed_dim": 48}}},
    "convnext": {"hidden_sizes": [12, 20, 28, 36], "depths": [1, 1, 2, 1]},
    "convnextv2": {"hidden_sizes": [12, 20, 28, 36], "depths": [1, 1, 2, 1]},
    "Wav2Vec2ConformerForCTC": {"vocab_size": 32},
    "DetrForSegmentation": {"d_model": 64, "encoder_attention_heads": 8, "decoder_attention_heads": 8},
}
