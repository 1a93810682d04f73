"""Fields without which a class can't be built, where its config class's own defaults leave them out.

By class name or model type; a text ">bert" is a config of that model type, ">bert:decoder" one that decodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ROPE_KIND = {"rope_theta": 10000.0, "rope_type": "default"}
_ROPE = {"rope_parameters": {"full_attention": _ROPE_KIND, "sliding_attention": _ROPE_KIND}}
_SIDES = {"vertical_long_to_small_conv": (1, 0), "horizontal_small_to_long_conv": (0, 1), "symmetric_conv_long": (1, 1)}
_INTRACLASS = {  # kernel, stride, padding of each convolution
    "reduce_channel": [1, 1, 0],
    "return_channel": [1, 1, 0],
    **{
        f"{name}_{size}ratio": [[width if side else 1 for side in sides], 1, [width // 2 * side for side in sides]]
        for name, sides in _SIDES.items()
        for size, width in (("long", 7), ("mid", 5), ("short", 3))
    },
}
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
    "granite4_vision": {
        "deepstack_layer_map": [[0, 0], [1, 1]],
        "spatial_layer_map": None,
        "downsample_rate": "4/8",
    },
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
    "perception_lm": {
        "vision_config": {
            "model_type": "timm_wrapper",
            "architecture": "vit_tiny_patch16_224",
            "model_args": {"embed_dim": 48},
        },
    },
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense", "sparse", "sparse"], "num_hidden_layers": 3}},
    "moonshine_streaming": {"num_key_value_heads": 2},
    "qwen3_omni_moe": {
        "talker_config": {"spatial_merge_size": 2, "text_config": {"shared_expert_intermediate_size": 40}}
    },
    "T5Gemma2Encoder": {"text_config": {"dropout_rate": 0.0}},
    "TimmBackbone": {"backbone": "resnet18"},
    "gemma4_assistant": {
        "text_config": {
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
            "enable_moe_block": False,
            "use_double_wide_mlp": False,
            "num_kv_shared_layers": 3,
            "num_hidden_layers": 3,
        },
    },
    "gemma4_unified_assistant": {"text_config": {"num_kv_shared_layers": 0}},
    "sapiens2": {"head_config": {"upsample_out_channels": [24, 20], "conv_out_channels": [16, 12]}},
    "pp_ocrv5_server_det": {"intraclass_block_config": _INTRACLASS, "kernel_list": [3, 2, 2]},
    "pp_ocrv6_medium_det": {"intraclass_block_config": _INTRACLASS, "kernel_list": [3, 2, 2]},
    "convnext": {"hidden_sizes": [12, 20, 28, 36], "depths": [1, 1, 2, 1]},
    "convnextv2": {"hidden_sizes": [12, 20, 28, 36], "depths": [1, 1, 2, 1]},
    "Wav2Vec2ConformerForCTC": {"vocab_size": 32},
    "DetrForSegmentation": {"d_model": 64, "encoder_attention_heads": 8, "decoder_attention_heads": 8},
}
