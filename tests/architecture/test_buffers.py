"""Shapes of buffers that no checkpoint stores; truth from the classes of transformers 5.23.0."""

from __future__ import annotations

import pytest

from estimator.architecture.buffers import Wanted, buffer_shape
from estimator.errors import MalformedConfigError
from tests.architecture.buffer_places import LLAMA, POSITIONS, SAM_2, SAM_3, SEAMLESS, SWIN, ZOE, reader


@pytest.mark.parametrize(
    ("module", "cls", "name", "dimensions", "config", "shape"),
    [
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
        pytest.param("e", "Gemma3TextScaledWordEmbedding", "embed_scale", 0, {}, (), id="a scalar"),
        pytest.param("bert.embeddings", "BertEmbeddings", "position_ids", 2, {}, (1, 512), id="rows beside it"),
        pytest.param("bert.embeddings", "BertEmbeddings", "token_type_ids", 2, {}, (1, 512), id="token types too"),
        pytest.param("bert.embeddings", "YosoEmbeddings", "position_ids", 2, {}, (1, 510), id="two rows less"),
        pytest.param("e", "X", "position_ids", 2, LLAMA, (1, 131_072), id="the config's positions"),
        pytest.param("t", "GPTBigCodeModel", "bias", 2, {"n_positions": 64}, (64, 64), id="a mask"),
        pytest.param("a", "GPTNeoSelfAttention", "bias", 4, {"n_positions": 64}, (1, 1, 64, 64), id="a mask of 4"),
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
        pytest.param("q", "X", "codebook", 2, {"quantization_levels": [4, 4, 8]}, (128, 3), id="all combinations"),
        pytest.param("q", "X", "codebook", 2, {"quantization_levels": [4, "4"]}, None, id="levels that are none"),
        pytest.param(
            "model", "GroundingDinoModel", "special_tokens", 1, {}, (4,), id="Grounding DINO's ends of phrases"
        ),
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
    ],
)
def test_a_buffer_has_the_shape_that_the_class_gives_it(module, cls, name, dimensions, config, shape):
    assert buffer_shape(Wanted(module, cls, name, dimensions), POSITIONS, reader(config)) == shape


M2, V2, NEOX = "MiniMaxM2RotaryEmbedding", "Swinv2SelfAttention", "GPTNeoXRotaryEmbedding"
IMAGE = {"window_size": 16, "image_size": 256, "patch_size": 4}


@pytest.mark.parametrize(
    ("cls", "name", "dimensions", "config", "said"),
    [
        pytest.param(M2, "inv_freq", 1, {**LLAMA, "rotary_dim": -3}, "of each head", id="less than none of a head"),
        pytest.param(M2, "inv_freq", 1, {**LLAMA, "rotary_dim": "64"}, "'64' of each head", id="a text"),
        pytest.param(M2, "inv_freq", 1, {**LLAMA, "rotary_dim": [64]}, r"\[64\] of each head", id="a list"),
        pytest.param(NEOX, "inv_freq", 1, {**LLAMA, "rotary_pct": "x"}, "'x' of each head", id="a share that is text"),
        pytest.param(NEOX, "inv_freq", 1, {**LLAMA, "rotary_pct": -0.5}, "-0.5 of each head", id="less than nothing"),
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
