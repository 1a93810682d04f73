"""Shapes of the frequencies that positions are rotated by; truth from the classes of transformers 5.23.0."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from estimator.architecture.buffers import Wanted, buffer_exists, buffer_shape
from estimator.architecture.frequencies import ROTATED_IN_PART
from tests.architecture.buffer_places import CLIP, LLAMA, LLAMA_4, POSITIONS, SAM_2, reader

YARN = {"rope_type": "yarn", "factor": 2.0}
WINDOWS = {**LLAMA, "layer_types": ["sliding_attention", "full_attention"]}


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
            "LlamaRotaryEmbedding",
            "inv_freq",
            1,
            {**LLAMA, "partial_rotary_factor": 0.5},
            (64,),
            id="no share known",
        ),
        pytest.param(
            "r",
            "LlamaRotaryEmbedding",
            "inv_freq",
            1,
            {**LLAMA, "partial_rotary_factor": 0.5, "rope_scaling": {"type": "linear", "factor": 2.0}},
            (32,),
            id="but to what scales it",
        ),
        pytest.param(
            "r",
            "MellumRotaryEmbedding",
            "full_attention_inv_freq",
            1,
            {**LLAMA, "partial_rotary_factor": 0.5},
            (64,),
            id="kinds have shares of their own",
        ),
        pytest.param(
            "r",
            "MellumRotaryEmbedding",
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
        pytest.param("r", "DeepseekV4RotaryEmbedding", "main_inv_freq", 1, {"head_dim": 512}, (32,), id="an eighth"),
        pytest.param(
            "r", "ZayaRotaryEmbedding", "hybrid_inv_freq", 1, {"head_dim": 64}, (16,), id="the class's rotation"
        ),
        pytest.param(
            "r",
            "ZayaRotaryEmbedding",
            "hybrid_inv_freq",
            1,
            {"head_dim": 64, "rope_parameters": {"hybrid": {"rope_type": "default"}}},
            (32,),
            id="but where one is stated",
        ),
        pytest.param(
            "r",
            "MistralLarge4TextRotaryEmbedding",
            "inv_freq",
            1,
            {"qk_rope_head_dim": 64, "partial_rotary_factor": 0.25},
            (8,),
            id="a share of what the class scales",
        ),
        pytest.param(
            "r",
            "MusicFlamingoRotaryEmbedding",
            "inv_freq",
            1,
            {**LLAMA, "audio_config": {"hidden_size": 40}, "partial_rotary_factor": 0.5},
            (10,),
            id="of an encoder's width",
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
            id="a class that knows no share",
        ),
        pytest.param(
            "r",
            "Gemma3RotaryEmbedding",
            "full_attention_inv_freq",
            1,
            {**WINDOWS, "rope_scaling": {**YARN, "partial_rotary_factor": 0.5}},
            (32,),
            id="rope_scaling is of the full attention",
        ),
        pytest.param(
            "r",
            "Gemma3RotaryEmbedding",
            "sliding_attention_inv_freq",
            1,
            {**WINDOWS, "rope_scaling": {**YARN, "partial_rotary_factor": 0.5}},
            (64,),
            id="and of no other",
        ),
        pytest.param(
            "r",
            "ModernBertRotaryEmbedding",
            "sliding_attention_inv_freq",
            1,
            {**WINDOWS, "rope_scaling": {**YARN, "partial_rotary_factor": 0.5}},
            (32,),
            id="but of all of ModernBERT's",
        ),
        pytest.param(
            "r",
            "Gemma3RotaryEmbedding",
            "full_attention_inv_freq",
            1,
            {**WINDOWS, "rope_scaling": {"type": "linear", "partial_rotary_factor": 0.5}},
            (64,),
            id="whose type of old is not read",
        ),
        pytest.param(
            "r",
            "Gemma3RotaryEmbedding",
            "full_attention_inv_freq",
            1,
            {**WINDOWS, "rope_parameters": {**YARN, "partial_rotary_factor": 0.5}},
            (64,),
            id="nor are parameters of no kind",
        ),
        pytest.param(
            "r",
            "CohereCompassRotaryEmbedding",
            "full_attention_inv_freq",
            1,
            {**WINDOWS, "partial_rotary_factor": 0.5, "rope_parameters": {"full_attention": YARN}},
            (32,),
            id="a kind that is scaled takes the config's share",
        ),
        pytest.param(
            "r",
            "MellumRotaryEmbedding",
            "sliding_attention_inv_freq",
            1,
            {**WINDOWS, "partial_rotary_factor": 0.5, "rope_parameters": {"full_attention": YARN}},
            (32,),
            id="and so does a kind that is set up after it",
        ),
        pytest.param(
            "r",
            "Lfm3RotaryEmbedding",
            "full_attention_inv_freq",
            1,
            {**LLAMA, "rope_parameters": {"full_attention": {**YARN, "partial_rotary_factor": 0.5}}},
            (32,),
            id="LFM3 with a share",
        ),
        pytest.param(
            "r",
            "Gemma3RotaryEmbedding",
            "full_attention_inv_freq",
            1,
            {
                **LLAMA,
                "rope_parameters": {"full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.5}},
            },
            (64,),
            id="noughts beyond the share",
        ),
        pytest.param(
            "r",
            "LlamaRotaryEmbedding",
            "inv_freq",
            1,
            {
                **LLAMA,
                "rope_scaling": {**YARN, "partial_rotary_factor": 0.25},
                "rope_parameters": {"partial_rotary_factor": 0.5},
            },
            (16,),
            id="rope_scaling wins",
        ),
        pytest.param(
            "r",
            "GPTNeoXRotaryEmbedding",
            "inv_freq",
            1,
            {**LLAMA, "partial_rotary_factor": 0.5, "rotary_pct": 0.25},
            (16,),
            id="another word for it",
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
        pytest.param(
            "a", "GPTJAttention", "embed_positions", 2, {"n_positions": 64, "rotary_dim": 16}, (64, 16), id="GPT-J"
        ),
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
            "r", "MistralLarge4TextRotaryEmbedding", "alpha", 1, LLAMA, (64,), id="a scale for each frequency"
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
            (32,),
            id="a section within a section",
        ),
        pytest.param(
            "model.word_timestamp_encoder.rotary_emb",
            "Nemotron3_5TranscribeRotaryEmbedding",
            "inv_freq",
            1,
            {"word_timestamp_config": LLAMA, "text_config": {"head_dim": 256}},
            (32,),
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
            "tracker_model.memory_attention.rotary_emb",
            "Sam3TrackerVideoVisionRotaryEmbedding",
            "inv_freq",
            1,
            SAM_2,
            (32,),
            id="heads of the memory, not of the tower",
        ),
        pytest.param("r", "EomtDinov3RotaryEmbedding", "inv_freq", 1, LLAMA, (32,), id="axes of EoMT-DINOv3"),
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
        pytest.param("a", "ParakeetEncoderRelPositionalEncoding", "inv_freq", 1, LLAMA, None, id="a class of its own"),
    ],
)
def test_frequencies_have_the_shape_that_the_class_gives_it(module, cls, name, dimensions, config, shape):
    assert buffer_shape(Wanted(module, cls, name, dimensions), POSITIONS, reader(config)) == shape


@pytest.mark.parametrize(
    ("name", "always", "config", "exists"),
    [
        pytest.param("sliding_attention_inv_freq", False, {"layer_types": ["sliding_attention"]}, True, id="such"),
        pytest.param(
            "full_attention_original_inv_freq", False, {"layer_types": ["sliding_attention"]}, False, id="none"
        ),
        pytest.param(
            "sliding_attention_inv_freq", True, {"layer_types": ["full_attention"]}, False, id="none of Olmo 3"
        ),
        pytest.param("full_attention_inv_freq", False, {}, True, id="the config does not say"),
        pytest.param("inv_freq", True, {"layer_types": ["full_attention"]}, True, id="for all kinds"),
        pytest.param(
            "main_inv_freq", True, {"layer_types": ["full_attention"]}, True, id="DeepSeek V4: no kind of layer"
        ),
    ],
)
def test_frequencies_of_a_kind_of_layer(name, always, config, exists):
    assert buffer_exists(Wanted("rotary_emb", "X", name, 1), reader(config), always=always) is exists


@pytest.mark.judges
def test_classes_that_know_a_share_are_those_whose_own_frequencies_read_one():
    """The source of transformers is read, not run."""
    transformers = pytest.importorskip("transformers")
    models = Path(transformers.__file__).parent / "models"
    known = {}
    for source in models.glob("*/modeling_*.py"):
        for cls in re.split(r"^class ", source.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            own = re.search(r"def compute_default_rope_parameters\(.*?\n        return ", cls, re.DOTALL)
            if own:
                known[re.match(r"\w+", cls)[0]] = bool(re.search(r"partial_rotary_factor|rotary_pct", own[0]))
    assert len(known) > 150
    assert {cls for cls in known if ROTATED_IN_PART.fullmatch(cls)} == {cls for cls, does in known.items() if does}
