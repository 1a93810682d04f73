"""Causes found from a file's size alone; each hypothesis has to fit to the byte."""

from __future__ import annotations

import pytest

from estimator.sizes.adapter_causes import Cause, Part
from estimator.sizes.adapter_guesses import guess_bin_causes, guess_causes

Q, ROW = "base_model.model.layers.0.q_proj.{}", Part("F32", (32,))
IMPLIED = {
    "base_model.model.layers.0.q_proj.lora_A.weight": Part("F32", (8, 64)),
    "base_model.model.layers.0.q_proj.lora_B.weight": Part("F32", (32, 8)),
    "base_model.model.layers.0.q_proj.bias": Part("F32", (32,)),
    "base_model.model.score.dense.weight": Part("F32", (64, 64)),
    "base_model.model.score.out.weight": Part("F32", (2, 64)),
    "base_model.model.score.out.bias": Part("F32", (2,)),
}
EMBEDDINGS = {
    "base_model.model.embed_tokens.weight": Part("F32", (300, 64)),
    "base_model.model.lm_head.weight": Part("F32", (300, 64)),
}


def size_of(parts):
    """A stand-in for the file: each tensor's data, its name and dtype, and 60 bytes of punctuation, padded to 8."""
    header = sum(len(name) + len(part.dtype) + 60 for name, part in parts.items())
    return 64 + header + -header % 8 + sum(part.bytes for part in parts.values())


def labels(count):
    resized = {name: Part("F32", (count, *part.shape[1:])) for name, part in IMPLIED.items() if ".out." in name}
    return {**IMPLIED, **resized}


def halved(parts, dtype):
    return {name: part._replace(dtype=dtype) for name, part in parts.items()}


def along(rows, dtype="F32", names=tuple(EMBEDDINGS)[:1]):
    return {**IMPLIED, **{name: Part(dtype, (rows, 64)) for name in names}}


@pytest.mark.parametrize(
    ("real", "codes"),
    [
        pytest.param(IMPLIED, [], id="as implied"),
        pytest.param(halved(IMPLIED, "BF16"), ["sixteen_bit"], id="bfloat16"),
        pytest.param(halved(IMPLIED, "F16"), ["sixteen_bit"], id="float16, a character shorter each"),
        pytest.param({"base_model.model." + n: p for n, p in IMPLIED.items()}, ["doubled_prefix"], id="prefix twice"),
        pytest.param({n: p for n, p in IMPLIED.items() if n[-4:] != "bias"}, ["older_peft_bias"], id="no biases"),
        pytest.param(labels(7), ["number_of_labels"], id="seven labels"),
        pytest.param(labels(1), ["number_of_labels"], id="one label"),
        pytest.param(halved(labels(7), "BF16"), ["number_of_labels", "sixteen_bit"], id="seven labels in bfloat16"),
        pytest.param(along(300), ["embeddings_saved"], id="the embedding"),
        pytest.param(along(301), ["embeddings_saved", "resized_vocabulary"], id="the embedding with a new token"),
        pytest.param(along(300, "BF16"), ["embeddings_saved"], id="the embedding in bfloat16"),
        pytest.param(
            along(320, names=tuple(EMBEDDINGS)), ["embeddings_saved", "resized_vocabulary"], id="embedding and head"
        ),
        pytest.param(along(200), None, id="a vocabulary is not cut by a third"),
        pytest.param({"x" * 9 + n: p for n, p in IMPLIED.items()}, ["older_names"], id="longer names"),
        pytest.param({"x" * 25 + n: p for n, p in IMPLIED.items()}, None, id="no names are that much longer"),
        pytest.param({**IMPLIED, Q.format("lora_magnitude_vector"): ROW}, ["dora_not_said"], id="DoRA's magnitudes"),
        pytest.param({**IMPLIED, Q.format("lora_B.bias"): ROW}, ["lora_bias_not_said"], id="LoRA's own bias"),
        pytest.param({**IMPLIED, "one.more": Part("F32", (999, 7))}, None, id="nothing fits"),
    ],
)
def test_a_size_alone_leads_to_what_may_have_made_it(real, codes):
    found = guess_causes(IMPLIED, size_of(real), size_of, EMBEDDINGS)
    assert (None if found is None else [cause.code for cause in found]) == codes


@pytest.mark.parametrize(
    ("dtype", "names", "said"),
    [
        pytest.param("F16", 2, "in F16: ", id="a letter shorter twice"),
        pytest.param("BF16", 2, "in BF16: ", id="a letter longer twice"),
        pytest.param("F16", 1, "in F16 or BF16: ", id="a letter that the padding hides"),
    ],
)
def test_the_dtype_of_embeddings_saved_along(dtype, names, said):
    real = along(301, dtype, tuple(EMBEDDINGS)[:names])
    causes = guess_causes(IMPLIED, size_of(real), size_of, EMBEDDINGS)
    assert said in causes[0].message


def test_a_further_hypothesis_has_to_fit_in_its_data_alone():
    fused = {**IMPLIED, "base_model.model.layers.0.Wqkv.lora_A.weight": Part("F32", (8, 1000))}
    cause = Cause("names_not_in_class", "Wqkv", 1, 32_000)
    real = {name.replace("model.layers", "transformer.h"): part for name, part in fused.items()}
    assert guess_causes(IMPLIED, size_of(real), size_of, {}, [(cause, fused)]) == (cause,)
    assert guess_causes(IMPLIED, size_of(real) + 9_000, size_of, {}, [(cause, fused)]) is None


@pytest.mark.parametrize(
    ("beside", "codes"),
    [
        pytest.param(3_000, ["bin_file"], id="a zip around the data"),
        pytest.param(-9_000, ["sixteen_bit", "bin_file"], id="a zip around half the data"),
        pytest.param(400_000, None, id="too much beside the data"),
    ],
)
def test_pickled_files(beside, codes):
    data = sum(part.bytes for part in IMPLIED.values())
    found = guess_bin_causes(IMPLIED, data + beside)
    assert (None if found is None else [cause.code for cause in found]) == codes


def test_of_several_vocabularies_that_fit_the_nearest_is_taken():
    """Twice 303 rows in bfloat16 are the bytes of 303 rows in float32, but for a name and a letter."""
    real = along(303, "BF16", tuple(EMBEDDINGS))
    causes = guess_causes(IMPLIED, size_of(real), size_of, EMBEDDINGS)
    assert [cause.tensors for cause in causes if cause.code == "embeddings_saved"] == [2]


def test_rows_of_an_adapted_embedding_may_be_left_out():
    own = {"base_model.model.model.embed_tokens.base_layer.weight": Part("F32", (300, 64))}
    (cause,) = guess_causes({**IMPLIED, **own}, size_of(IMPLIED), size_of, {})
    assert (cause.code, cause.tensors, cause.bytes) == ("embeddings_left_out", 1, -4 * 300 * 64)


MATRICES = {
    f"base_model.model.layers.{layer}.q_proj.lora_{matrix}.weight": Part("F32", (8, 64) if matrix == "A" else (32, 8))
    for layer in range(8)
    for matrix in "AB"
}


@pytest.mark.parametrize(
    ("beside", "codes", "said"),
    [
        pytest.param(16 * 338, ["bin_file"], False, id="as torch.save leaves them"),
        pytest.param(16 * 338 + 16_384, None, False, id="and another matrix"),
        pytest.param(16 * 338 - 8 * 4 * 8 * 96 // 2, ["sixteen_bit", "bin_file"], True, id="half the bits or the rank"),
    ],
)
def test_what_torch_saves_beside_matrices(beside, codes, said):
    """torch 2.13: 345 bytes a tensor of 16 whose names have 60 letters."""
    found = guess_bin_causes(MATRICES, sum(part.bytes for part in MATRICES.values()) + beside)
    assert (None if found is None else [cause.code for cause in found]) == codes
    assert any("half the rank" in cause.message for cause in found or ()) == said


@pytest.mark.parametrize(("dtype", "said"), [("F16", True), pytest.param("BF16", False, id="a longer header")])
def test_half_the_rank_may_be_as_long_as_half_the_bits(dtype, said):
    (cause,) = guess_causes(MATRICES, size_of(halved(MATRICES, dtype)), size_of, {})
    assert (cause.code, "half the rank" in cause.message) == ("sixteen_bit", said)


def test_trained_tokens_are_no_labels():
    rows = "base_model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    two, three = ({**MATRICES, rows: Part("F32", (count, 6400))} for count in (2, 3))
    assert guess_causes(two, size_of(three), size_of, {}) is None


@pytest.mark.parametrize(
    ("saved", "grown_by"),
    [
        pytest.param({Q.format("base_layer.bias"): Part("F32", (32,))}, 4_000, id="biases"),
        pytest.param({Q.format("weight"): Part("F32", (32, 64))}, 40 * 4 * 64, id="a module of a layer, saved whole"),
        pytest.param({"base_model.model.lm_head.weight": Part("F32", (300, 64))}, 40 * 4 * 64, id="a head of tokens"),
        pytest.param({"base_model.model.embed_tokens.base_layer.weight": Part("F32", (300, 64))}, 1_024, id="along"),
    ],
)
def test_what_has_no_labels_gets_none(saved, grown_by):
    implied = {name: part for name, part in IMPLIED.items() if ".lora_" in name} | saved
    causes = guess_causes(implied, size_of(implied) + grown_by, size_of, EMBEDDINGS)
    assert "number_of_labels" not in [cause.code for cause in causes or ()]


def test_other_names_go_before_halves_with_other_labels():
    """Names that are sixteen characters longer are as long as 16 bits with a head of 88 labels."""
    implied = {**IMPLIED, "base_model.model.layers.1.q_proj.lora_A.weight": Part("F32", (8, 64))}
    longer = {"x" * 16 + name: part for name, part in implied.items()}
    causes = guess_causes(implied, size_of(longer), size_of, EMBEDDINGS)
    assert [cause.code for cause in causes or ()] == ["older_names"]


def test_a_head_of_tokens_has_no_labels_under_a_doubled_prefix():
    head = "base_model.model.lm_head.base_layer.weight"
    implied = {**{name: part for name, part in IMPLIED.items() if "lora" in name}, head: Part("F32", (300, 64))}
    doubled = {"base_model.model." + name: part for name, part in implied.items()}
    real = {name: part._replace(shape=(290, 64)) if "lm_head" in name else part for name, part in doubled.items()}
    found = guess_causes(implied, size_of(real), size_of, EMBEDDINGS) or ()
    assert "number_of_labels" not in [cause.code for cause in found]


@pytest.mark.parametrize(("dtype", "found"), [("F32", True), ("F16", False)])
def test_an_embedding_that_is_saved_anyway_keeps_its_dtype(dtype, found):
    assert (guess_causes(along(300), size_of(along(310, dtype)), size_of, EMBEDDINGS) is not None) is found
