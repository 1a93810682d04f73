"""What stands behind a name where no facts are at hand. Truth: what classes of transformers 5.23.0 have there."""

from __future__ import annotations

import pytest

from estimator.architecture.generate_names import generate
from estimator.architecture.inference.kinds import (
    MEANINGS,
    expert_counts,
    groups_of,
    kind_of,
    known_meanings,
    told_apart,
)
from estimator.architecture.module import Parameter


@pytest.mark.parametrize(
    ("name", "own", "kind"),
    [
        pytest.param("layers.0.q_proj", {"weight": (8, 4)}, "Linear", id="two dimensions"),
        pytest.param("new.thing", {"weight": (8, 4), "bias": (8,)}, "Linear", id="a name that nobody has"),
        pytest.param("h.0.attn.c_new", {"weight": (4, 12), "bias": (12,)}, "Conv1D", id="output last: GPT-2's Conv1D"),
        pytest.param("model.embed_tokens", {"weight": (100, 4)}, "Embedding", id="tokens"),
        pytest.param("new_embed", {"weight": (100, 4)}, "Embedding", id="called so, and without a bias"),
        pytest.param("tts.emb_code.0", {"weight": (100, 4)}, "Embedding", id="one of several, called emb"),
        pytest.param("transformer.wqe", {"weight": (100, 4)}, "Embedding", id="GPT-2's way to call them"),
        pytest.param("embed_dense", {"weight": (8, 4)}, "Linear", id="a projection of embeddings"),
        pytest.param("altup_unembed_projections.0", {"weight": (8, 4)}, "Linear", id="one of several projections"),
        pytest.param("norm", {"weight": (4,)}, "other", id="a norm"),
        pytest.param("mlp.gate", {"weight": (8, 4)}, "other", id="a router has a row for each expert"),
        pytest.param("gateway.gate", {"weight": (16, 4)}, "Linear", id="a gate that is none"),
        pytest.param("moe.input_linear", {"weight": (8, 16, 4)}, "other", id="a matrix for each expert"),
        pytest.param("patch_embed.proj", {"weight": (8, 3, 2, 2), "bias": (8,)}, "Conv2d", id="four dimensions"),
        pytest.param("conv", {"weight": (8, 3, 5)}, "Conv1d", id="three"),
        pytest.param("up.0", {"weight": (8, 4, 2, 2), "bias": (4,)}, "other", id="output second: transposed"),
        pytest.param("upsampler.0", {"weight": (8, 4, 2)}, "other", id="sound is upsampled by transposed ones"),
        pytest.param("upsample.conv", {"weight": (8, 4, 2, 2)}, "Conv2d", id="images are not"),
        pytest.param("grn", {"weight": (1, 1, 1, 8), "bias": (1, 1, 1, 8)}, "other", id="a bias of four dimensions"),
        pytest.param(
            "attn", {"in_proj_weight": (12, 4), "in_proj_bias": (12,)}, "MultiheadAttention", id="torch's own"
        ),
        pytest.param("experts", {"gate_up_proj": (8, 12, 4), "down_proj": (8, 4, 6)}, "other", id="fused experts"),
    ],
)
def test_a_name_and_its_tensors_tell_the_kind_of_module(name, own, kind):
    assert kind_of(name, own, known_meanings(), expert_counts({"text_config": {"num_experts": 8}})) == kind


@pytest.mark.parametrize(
    ("name", "weight", "config", "groups"),
    [
        pytest.param("mixer.conv1d", (16, 1, 4), {}, 16, id="one for each channel"),
        pytest.param("conv_layers.0.conv", (16, 1, 10), {}, 1, id="the first of sound hears one channel"),
        pytest.param("patch_embeddings.projection", (16, 1, 4, 4), {}, 1, id="a spectrogram's patches"),
        pytest.param(
            "pos_conv_embed.conv", (16, 4, 8), {"num_conv_pos_embedding_groups": 4}, 4, id="a field of this very name"
        ),
        pytest.param("block.conv1", (16, 4, 8), {"num_conv_pos_embedding_groups": 4}, 1, id="a field for another"),
        pytest.param("attention.query", (16, 4, 1), {"q_groups": 4}, 4, id="a field that begins the name"),
        pytest.param("layer.convolution", (16, 4, 3, 3), {"backbone_config": {"groups": 4}}, 4, id="groups, plainly"),
        pytest.param("layer.convolution", (16, 4, 1, 1), {"groups": 4}, 1, id="a bottleneck's end has none"),
    ],
)
def test_a_convolution_s_groups_follow_from_its_shape_and_the_config(name, weight, config, groups):
    assert groups_of(name, {3: "Conv1d", 4: "Conv2d"}[len(weight)], weight, config) == groups


@pytest.mark.parametrize(
    ("owner", "names", "buffers"),
    [
        pytest.param("bn", ["weight", "bias", "running_mean", "num_batches_tracked"], 2, id="batch norm"),
        pytest.param("bn", ["weight", "bias", "running_mean", "running_var"], 4, id="frozen: nothing but buffers"),
        pytest.param("embeddings", ["position_ids"], 1, id="a list of positions"),
        pytest.param("shared_image_embedding", ["positional_embedding"], 1, id="SAM's, by its module's name"),
        pytest.param("visual", ["positional_embedding"], 0, id="elsewhere it is learnt"),
        pytest.param("attn", ["weight", "bias"], 0, id="a plain bias"),
    ],
)
def test_buffers_are_told_from_parameters(owner, names, buffers):
    tensors = [Parameter(name, (4,), "F32") for name in names]
    assert len(told_apart(owner, tensors, known_meanings()).buffers) == buffers


@pytest.mark.judges
def test_the_file_of_meanings_is_not_stale():
    transformers = pytest.importorskip("transformers")
    if f"transformers {transformers.__version__}" not in known_meanings()[""]:
        pytest.skip("the file states another release")
    assert generate() == MEANINGS.read_text(encoding="utf-8")
