"""Shapes of buffers that no checkpoint stores; truth from the classes of transformers 5.23.0."""

from __future__ import annotations

import pytest

from estimator.architecture.buffers import Wanted, buffer_exists, buffer_shape
from estimator.errors import MalformedConfigError

LLAMA = {"hidden_size": 4096, "num_attention_heads": 32, "max_position_embeddings": 131_072}
CLIP = {"vision_config": {"hidden_size": 1280, "num_heads": 16}}
POSITIONS = {
    "bert.embeddings.position_embeddings.weight": (512, 768),
    "layoutlmv3.pos_embed": (1, 197, 768),
    "owlvit.vision_model.embeddings.position_embedding.weight": (577, 768),
    "vision_model.positional_embedding_vlm": (577, 1408),
    "decoder.model.decoder.layer_norm.weight": (1024,),
    "swin.relative_position_bias_table": (529, 4),
    "model.language_model.layers.2.self_attn.q_norm.weight": (512,),
    "vision_model.connector.fine.projection.weight": (1024, 768 * 3 * 3),
    "levit.stages.0.module.attention_biases": (4, 196),
    "rel_bias_module.pos_proj.weight": (12, 64, 1, 1),
    "model.encoder.conformer_layers.0.self_attn.linear_out.weight": (384, 384),
}
SAM_3 = {"image_size": 1008, "patch_size": 14, "window_size": 24, "global_attn_indexes": [7, 15]}
SAM_2 = {
    "memory_attention_rope_feat_sizes": [64, 48],
    "memory_attention_rope_k_sizes": [16, 16],
    "memory_attention_hidden_size": 256,
    "memory_attention_downsample_rate": 1,
    "memory_attention_num_attention_heads": 2,
    "vision_config": {"hidden_size": 144, "num_attention_heads": 4},
}
SEAMLESS = {"hidden_size": 1024, "max_position_embeddings": 4096, "t2u_max_position_embeddings": 2048}
ZOE = {"bin_configurations": [{"name": "nyu", "n_bins": 64}, {"name": "kitti", "n_bins": 32}]}
LLAMA_4, SWIN = {"vision_config": {"num_attention_heads": 16}}, {"backbone_config": {"window_size": 7}}


def reader(config):
    def read(path):
        at = config
        for part in path.split("."):
            at = at.get(part) if isinstance(at, dict) else None
        return at

    return read


@pytest.mark.parametrize(
    ("module", "cls", "name", "dimensions", "config", "shape"),
    [
        pytest.param("model.rotary_emb", "LlamaRotaryEmbedding", "inv_freq", 1, LLAMA, (64,), id="half a head"),
        pytest.param("model.rotary_emb", "LlamaRotaryEmbedding", "original_inv_freq", 1, LLAMA, (64,), id="its copy"),
        pytest.param("r", "GemmaRotaryEmbedding", "inv_freq", 1, {**LLAMA, "head_dim": 256}, (128,), id="head_dim"),
        pytest.param("r", "X", "inv_freq", 1, {**LLAMA, "head_dim": 9}, (5,), id="an odd head"),
        pytest.param(
            "r", "FalconRotaryEmbedding", "inv_freq", 1, {**LLAMA, "head_dim": 9}, (64,), id="a head that is computed"
        ),
        pytest.param(
            "r", "PhiRotaryEmbedding", "inv_freq", 1, {**LLAMA, "partial_rotary_factor": 0.5}, (32,), id="half rotated"
        ),
        pytest.param(
            "r",
            "Gemma3RotaryEmbedding",
            "sliding_attention_inv_freq",
            1,
            {**LLAMA, "rope_parameters": {"sliding_attention": {"partial_rotary_factor": 0.25}}},
            (16,),
            id="by kind of layer",
        ),
        pytest.param(
            "model.rotary_emb",
            "MiniMaxM2RotaryEmbedding",
            "inv_freq",
            1,
            {**LLAMA, "head_dim": 128, "rotary_dim": 64},
            (32,),
            id="a share of the head in dimensions",
        ),
        pytest.param(
            "r", "MiMoV2FlashRotaryEmbedding", "inv_freq", 1, {"head_dim": 192}, (32,), id="a share of the class's own"
        ),
        pytest.param("r", "MiniMaxM2RotaryEmbedding", "inv_freq", 1, {**LLAMA, "rotary_dim": 0}, (0,), id="none of it"),
        pytest.param(
            "r", "MiniMaxM2RotaryEmbedding", "inv_freq", 1, {**LLAMA, "rotary_dim": True}, (1,), id="true is 1"
        ),
        pytest.param(
            "model.rotary_emb",
            "Lfm3RotaryEmbedding",
            "full_attention_inv_freq",
            1,
            {**LLAMA, "rope_parameters": {"full_attention": {"partial_rotary_factor": 0.5}}},
            (64,),
            id="noughts beyond the share",
        ),
        pytest.param(
            "model.pos_emb",
            "MusicFlamingoRotaryEmbedding",
            "position_angles",
            2,
            {
                "head_dim": 256,
                "rope_parameters": {"rope_theta": 1200, "partial_rotary_factor": 0.2},
                "text_config": LLAMA,
            },
            (1200, 52),
            id="angles of the model's own positions",
        ),
        pytest.param(
            "encoder.layers.0.blocks.0.attention.self",
            "Swinv2SelfAttention",
            "relative_coords_table",
            4,
            {"window_size": 16, "image_size": 256, "patch_size": 4},
            (1, 31, 31, 2),
            id="a window of Swin v2",
        ),
        pytest.param(
            "encoder.layers.3.blocks.1.attention.self",
            "Swinv2SelfAttention",
            "relative_coords_table",
            4,
            {"window_size": 16, "image_size": 256, "patch_size": 4},
            (1, 15, 15, 2),
            id="the last stage's side is 8",
        ),
        pytest.param(
            "encoder.layers.3.blocks.1.attention.self",
            "Swinv2SelfAttention",
            "relative_position_index",
            2,
            {"window_size": 16, "image_size": 256, "patch_size": 4},
            (64, 64),
            id="and its pairs",
        ),
        pytest.param(
            "encoder.layers.3.blocks.1.attention.self",
            "Swinv2SelfAttention",
            "relative_position_index",
            2,
            {"window_size": 16, "image_size": [256, 1024], "patch_size": [4, 4]},
            (64, 64),
            id="the height of what is no square",
        ),
        pytest.param(
            "encoder.stages.3.layers.1.attention.self",
            "Swin2SRSelfAttention",
            "relative_coords_table",
            4,
            {"window_size": 8, "image_size": 4, "patch_size": 1},
            (1, 7, 7, 2),
            id="Swin2SR's image has one side throughout",
        ),
        pytest.param(
            "model.visual.rotary_pos_emb",
            "Qwen2VLVisionRotaryEmbedding",
            "inv_freq",
            1,
            CLIP,
            (20,),
            id="a vision tower",
        ),
        pytest.param(
            "model.visual.rotary_pos_emb",
            "Qwen2VLVisionRotaryEmbedding",
            "inv_freq",
            1,
            {"vision_config": {"embed_dim": 1280, "hidden_size": 1536, "num_heads": 16}},
            (20,),
            id="a vision tower that ends in another width",
        ),
        pytest.param("model.language_model.r", "X", "inv_freq", 1, {"text_config": LLAMA}, (64,), id="the text model"),
        pytest.param("e", "Gemma3TextScaledWordEmbedding", "embed_scale", 0, {}, (), id="a scalar"),
        pytest.param("bert.embeddings", "BertEmbeddings", "position_ids", 2, {}, (1, 512), id="rows beside it"),
        pytest.param("bert.embeddings", "BertEmbeddings", "token_type_ids", 2, {}, (1, 512), id="token types too"),
        pytest.param("bert.embeddings", "YosoEmbeddings", "position_ids", 2, {}, (1, 510), id="two rows less"),
        pytest.param("e", "X", "position_ids", 2, LLAMA, (1, 131_072), id="the config's positions"),
        pytest.param("t", "GPTBigCodeModel", "bias", 2, {"n_positions": 64}, (64, 64), id="a mask"),
        pytest.param("a", "GPTNeoSelfAttention", "bias", 4, {"n_positions": 64}, (1, 1, 64, 64), id="a mask of 4"),
        pytest.param(
            "a", "GPTJAttention", "embed_positions", 2, {"n_positions": 64, "rotary_dim": 16}, (64, 16), id="GPT-J"
        ),
        pytest.param(
            "t",
            "GPTBigCodeModel",
            "bias",
            2,
            {"max_position_embeddings": 1024, "n_positions": 64},
            (1024, 1024),
            id="the name of two that wins",
        ),
        pytest.param("layoutlmv3", "LayoutLMv3Model", "visual_bbox", 2, {}, (197, 4), id="a box for each place"),
        pytest.param("", "OwlViTForObjectDetection", "box_bias", 2, {}, (576, 4), id="a box for each patch"),
        pytest.param(
            "vision_model.r",
            "Llama4VisionRotaryEmbedding",
            "freqs_ci",
            3,
            LLAMA_4,
            (577, 1, 44),
            id="complex rotations",
        ),
        pytest.param(
            "decoder.model.decoder.embed_positions",
            "MusicgenSinusoidalPositionalEmbedding",
            "weights",
            2,
            {"decoder": {"max_position_embeddings": 2048}},
            (2048, 1024),
            id="sinusoids as wide as the norm",
        ),
        pytest.param(
            "e",
            "Wav2Vec2ConformerRelPositionalEmbedding",
            "pe",
            3,
            {"max_source_positions": 5000, "hidden_size": 1024},
            (1, 9999, 1024),
            id="distances forwards and backwards",
        ),
        pytest.param(
            "model.backbone.a",
            "SwinSelfAttention",
            "relative_position_index",
            2,
            SWIN,
            (49, 49),
            id="a backbone's window",
        ),
        pytest.param("swin", "SwinAttention", "relative_position_index", 2, SWIN, (144, 144), id="the table's window"),
        pytest.param(
            "r", "MistralLarge4TextRotaryEmbedding", "alpha", 1, LLAMA, (64,), id="a scale for each frequency"
        ),
        pytest.param("q", "X", "codebook", 2, {"quantization_levels": [4, 4, 8]}, (128, 3), id="all combinations"),
        pytest.param("q", "X", "codebook", 2, {"quantization_levels": [4, "4"]}, None, id="levels that are none"),
        pytest.param(
            "model", "GroundingDinoModel", "special_tokens", 1, {}, (4,), id="Grounding DINO's ends of phrases"
        ),
        pytest.param("v.r", "MLCDRotaryEmbedding", "inv_freq", 1, LLAMA, (32,), id="rows and columns"),
        pytest.param("r", "Granite4VisionTextRotaryEmbedding", "inv_freq", 1, LLAMA, (64,), id="a text model's"),
        pytest.param(
            "vision_tower.vision_encoder.rotary_emb",
            "DeepseekOcr2VisionRotaryEmbedding",
            "inv_freq",
            1,
            {"vision_config": {"encoder_config": LLAMA}, "text_config": {"head_dim": 8}},
            (64,),
            id="queries in a row",
        ),
        pytest.param("v.r", "Glm4vVisionRotaryEmbedding", "inv_freq", 1, {**LLAMA, "head_dim": 80}, (20,), id="stated"),
        pytest.param("v.r", "MiniMaxM3VLVisionRotaryEmbedding", "inv_freq", 1, LLAMA, (21,), id="and time"),
        pytest.param("layers.7", "Sam3ViTLayer", "position_ids", 2, SAM_3, (5184, 2), id="patches of the image"),
        pytest.param(
            "vision_encoder.backbone.layers.6",
            "Sam3ViTLayer",
            "position_ids",
            2,
            {"vision_config": {"backbone_config": {**SAM_3, "hidden_size": 1024}}},
            (576, 2),
            id="patches of a window, a backbone's in a tower",
        ),
        pytest.param("layers.6", "Sam3ViTLayer", "position_ids", 2, LLAMA, None, id="no patches are said"),
        pytest.param(
            "encoder.text_model.r",
            "T5Gemma2RotaryEmbedding",
            "sliding_attention_inv_freq",
            1,
            {"encoder": {"text_config": {"head_dim": 256}}},
            (128,),
            id="an encoder's text",
        ),
        pytest.param(
            "audio_tower.asr_encoder.rotary_emb",
            "Nemotron3_5TranscribeRotaryEmbedding",
            "inv_freq",
            1,
            {"audio_config": {"asr_config": LLAMA}, "text_config": {"head_dim": 256}},
            (64,),
            id="a section within a section",
        ),
        pytest.param(
            "model.word_timestamp_encoder.rotary_emb",
            "Nemotron3_5TranscribeRotaryEmbedding",
            "inv_freq",
            1,
            {"word_timestamp_config": LLAMA, "text_config": {"head_dim": 256}},
            (64,),
            id="a section that the module's name begins like",
        ),
        pytest.param(
            "model.language_model.rotary_emb",
            "Gemma4TextRotaryEmbedding",
            "full_attention_inv_freq",
            1,
            {"text_config": {"head_dim": 64, "layer_types": ["sliding_attention"] * 2 + ["full_attention"]}},
            (256,),
            id="heads as wide as the norm of their queries",
        ),
        pytest.param(
            "vision_model.connector.fine.pos_embed",
            "GraniteDoclingPositionEmbedding",
            "pos_embed",
            2,
            {"vision_config": {"hidden_size": 768, "image_size": 512, "patch_size": 16}},
            (100, 1024),
            id="places of nine patches together",
        ),
        pytest.param("c.pos_embed", "X", "pos_embed", 2, LLAMA, None, id="no projection beside it"),
        pytest.param(
            "memory_attention", "Sam2VideoMemoryAttention", "position_ids", 2, SAM_2, (3072, 2), id="places of an image"
        ),
        pytest.param(
            "memory_attention", "EdgeTamVideoMemoryAttention", "position_ids_k", 2, SAM_2, (256, 2), id="in memory"
        ),
        pytest.param(
            "memory_attention",
            "Sam2VideoMemoryAttention",
            "position_ids",
            2,
            {**SAM_2, "memory_attention_rope_feat_sizes": [64]},
            None,
            id="one side of an image",
        ),
        pytest.param(
            "tracker_model.memory_attention.rotary_emb",
            "Sam3TrackerVideoVisionRotaryEmbedding",
            "inv_freq",
            1,
            SAM_2,
            (32,),
            id="heads of the memory, not of the tower",
        ),
        pytest.param("r", "Sapiens2RopePositionEmbedding", "inv_freq", 1, LLAMA, (32,), id="axes of Sapiens 2"),
        pytest.param(
            "rel_bias_module",
            "PPDocLayoutV2PositionRelationEmbedding",
            "inv_freq",
            1,
            {},
            (8,),
            id="numbers of a box",
        ),
        pytest.param(
            "levit.stages.0.module", "LevitAttention", "attention_bias_idxs", 2, {}, (196, 196), id="a place each bias"
        ),
        pytest.param(
            "levit.stages.0.module", "LevitAttentionSubsample", "attention_bias_idxs", 2, {}, (49, 196), id="a quarter"
        ),
        pytest.param(
            "text_decoder.embed_positions",
            "SeamlessM4TSinusoidalPositionalEmbedding",
            "weights",
            2,
            SEAMLESS,
            (4098, 1024),
            id="sinusoids of text",
        ),
        pytest.param(
            "t2u_model.model.decoder.embed_positions",
            "SeamlessM4Tv2SinusoidalPositionalEmbedding",
            "weights",
            2,
            SEAMLESS,
            (2050, 1024),
            id="and of units",
        ),
        pytest.param(
            "thinker.model.audio_tower.positional_embedding",
            "SinusoidsPositionEmbedding",
            "positional_embedding",
            2,
            {"thinker_config": {"audio_config": {"d_model": 1280, "max_source_positions": 1500}}},
            (1500, 1280),
            id="sinusoids of sound",
        ),
        pytest.param("e", "FunAsrNanoX", "positional_embedding", 2, {"d_model": 8}, None, id="a width of another kind"),
        pytest.param(
            "model.encoder.pos_enc",
            "FastSpeech2ConformerRelPositionalEncoding",
            "pos_enc",
            3,
            {},
            (1, 9999, 384),
            id="distances of a constant",
        ),
        pytest.param(
            "audio_tower.rel_pos_enc",
            "Gemma4AudioRelPositionalEncoding",
            "inv_timescales",
            3,
            {"audio_config": {"hidden_size": 1024}},
            (1, 1, 512),
            id="timescales",
        ),
        pytest.param(
            "model.diffusion_head.timestep_embedding",
            "VibeVoiceDiffusionHeadSinusoidalEmbedding",
            "freq",
            1,
            {"diffusion_head_config": {"frequency_embedding_size": 256}},
            (128,),
            id="timesteps",
        ),
        pytest.param("e", "CsmX", "audio_tokens_offsets", 1, {"num_codebooks": 32}, (32,), id="a codebook each"),
        pytest.param("e", "KyutaiX", "audio_tokens_offsets", 1, {"num_codebooks": 32}, (33,), id="text before them"),
        pytest.param("h", "X", "eye", 2, {"num_queries": 300}, (300, 300), id="pairs of queries"),
        pytest.param("h.nyu.t", "LogBinomialSoftmax", "k_idx", 4, ZOE, (1, 64, 1, 1), id="bins of one of two heads"),
        pytest.param("h.t", "LogBinomialSoftmax", "k_idx", 4, ZOE, None, id="bins of neither"),
        pytest.param("h.t", "LogBinomialSoftmax", "k_minus_1", 4, ZOE, (1, 1, 1, 1), id="their number"),
        pytest.param("d", "Qwen2_5OmniDownSample1d", "filter", 3, {}, (1, 1, 12), id="a filter of BigVGAN"),
        pytest.param("a", "SwinSelfAttention", "relative_position_index", 2, LLAMA, None, id="no rule"),
        pytest.param("a", "ParakeetEncoderRelPositionalEncoding", "inv_freq", 1, LLAMA, None, id="a class of its own"),
    ],
)
def test_a_buffer_has_the_shape_that_the_class_gives_it(module, cls, name, dimensions, config, shape):
    assert buffer_shape(Wanted(module, cls, name, dimensions), POSITIONS, reader(config)) == shape


M2, V2 = "MiniMaxM2RotaryEmbedding", "Swinv2SelfAttention"
IMAGE = {"window_size": 16, "image_size": 256, "patch_size": 4}


@pytest.mark.parametrize(
    ("cls", "name", "dimensions", "config", "said"),
    [
        pytest.param(M2, "inv_freq", 1, {**LLAMA, "rotary_dim": -3}, "of each head", id="less than none of a head"),
        pytest.param(M2, "inv_freq", 1, {**LLAMA, "rotary_dim": "64"}, "'64' of each head", id="a text"),
        pytest.param(M2, "inv_freq", 1, {**LLAMA, "rotary_dim": [64]}, r"\[64\] of each head", id="a list"),
        pytest.param("X", "inv_freq", 1, {**LLAMA, "rotary_pct": "x"}, "'x' of each head", id="a share that is text"),
        pytest.param("X", "inv_freq", 1, {**LLAMA, "rotary_pct": -0.5}, "-0.5 of each head", id="less than nothing"),
        pytest.param(V2, "relative_coords_table", 4, {**IMAGE, "window_size": -1}, "window_size is -1", id="no window"),
        pytest.param(
            V2, "relative_coords_table", 4, {**IMAGE, "window_size": [7, 7]}, "window_size is", id="two sides"
        ),
        pytest.param(V2, "relative_coords_table", 4, {**IMAGE, "image_size": -64}, "image_size is -64", id="no image"),
        pytest.param(V2, "relative_coords_table", 4, {**IMAGE, "image_size": "64"}, "image_size is '64'", id="no size"),
        pytest.param(V2, "relative_coords_table", 4, {**IMAGE, "image_size": 16}, "no patch is left", id="used up"),
        pytest.param("SwinAttention", "relative_position_index", 2, {"window_size": -1}, "is -1", id="Swin's own"),
    ],
)
def test_what_the_class_fails_on_is_refused(cls, name, dimensions, config, said):
    """TypeError, RuntimeError of torch.arange, or the config class's own check, as the model is built."""
    module = "swin" if cls == "SwinAttention" else "encoder.layers.3.blocks.1.attention.self"
    with pytest.raises(MalformedConfigError, match=said):
        buffer_shape(Wanted(module, cls, name, dimensions), POSITIONS, reader(config))


@pytest.mark.parametrize(
    ("name", "config", "exists"),
    [
        pytest.param("sliding_attention_inv_freq", {"layer_types": ["sliding_attention"]}, True, id="such layers"),
        pytest.param("full_attention_original_inv_freq", {"layer_types": ["sliding_attention"]}, False, id="none such"),
        pytest.param("full_attention_inv_freq", {}, True, id="the config does not say"),
        pytest.param("inv_freq", {"layer_types": ["full_attention"]}, True, id="for all kinds"),
    ],
)
def test_frequencies_of_a_kind_of_layer(name, config, exists):
    assert buffer_exists(Wanted("rotary_emb", "X", name, 1), reader(config)) is exists
