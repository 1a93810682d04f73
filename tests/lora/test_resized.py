"""Vocabularies of another size: what transformers 5.23.0 resizes, and PEFT 0.21.2 saves along."""

from __future__ import annotations

import pytest

from estimator.architecture.module import Module, Parameter, QuantisedLayer
from estimator.errors import (
    UnsupportedError,
    UsageError,
)
from estimator.lora.adapt import adapt
from estimator.lora.ties import ties_words
from estimator.request.lora_config import from_mapping
from tests.lora.small import ROWS, TREE, WIDTH, linear


def test_one_more_token_saves_both_embeddings():
    found = adapt(TREE, from_mapping({}), vocab_size=ROWS + 1)
    assert {t.name: t.shape for t in found.tensors if t.part == "embeddings"} == {
        "base_model.model.model.embed_tokens.weight": (ROWS + 1, WIDTH),
        "base_model.model.lm_head.weight": (ROWS + 1, WIDTH),
    }
    assert found.all_parameters - adapt(TREE, from_mapping({})).all_parameters == 2 * WIDTH


def test_a_new_head_has_its_bias_in_the_dtype_of_its_weight():
    """`_get_resized_lm_head`. A file in 4 bits keeps weights as stored, a bias takes the dtype that is asked for."""
    head = linear("lm_head", ROWS, WIDTH, bias=True)
    head = head._replace(parameters=(head.parameters[0], head.parameters[1]._replace(dtype="F16")))
    tree = TREE._replace(modules=(*TREE.modules[:-1], head))
    found = adapt(tree, from_mapping({}), vocab_size=ROWS + 1)
    assert {t.dtype for t in found.tensors if "lm_head" in t.name} == {"BF16"}


def test_a_head_of_other_rows_gets_as_many_as_the_embedding():
    shorter = TREE._replace(modules=(*TREE.modules[:-1], linear("lm_head", ROWS - 1, WIDTH)))
    added = [adapt(tree, from_mapping({}), vocab_size=ROWS + 1).all_parameters for tree in (TREE, shorter)]
    assert added[0] == added[1]


HEAD = {"lm_head.weight": "model.embed_tokens.weight"}


@pytest.mark.parametrize(
    ("config", "tied", "composite", "words"),
    [
        pytest.param(False, HEAD, False, True, id="T5's class sets it again"),
        pytest.param(False, {}, False, False, id="untied"),
        pytest.param(False, HEAD, True, False, id="a part may tie by a config of its own"),
        pytest.param(True, {}, False, True, id="a head of other values"),
    ],
)
def test_what_the_config_says_of_ties_at_run_time(config, tied, composite, words):
    tree = TREE._replace(tie_word_embeddings=config, declared_ties=HEAD, tied=tied, is_composite=composite)
    assert ties_words(tree) is words


def test_resizing_ties_a_head_of_other_values_again():
    apart = TREE._replace(tie_word_embeddings=True, declared_ties=HEAD)
    found = [adapt(tree, from_mapping({}), vocab_size=ROWS + 1) for tree in (apart, apart._replace(tied=HEAD))]
    assert found[0].all_parameters == found[1].all_parameters
    assert found[0].rows_parameters == found[1].rows_parameters - ROWS * WIDTH


@pytest.mark.parametrize(
    ("more", "scale"),
    [
        pytest.param({}, ("F32", (1, 1)), id="as the file has it"),
        pytest.param({"lm_head.bias": "bias"}, ("BF16", (ROWS + 1, WIDTH)), id="BERT's: taken for the weight"),
    ],
)
def test_scales_of_a_tied_head(more, scale):
    """BertForMaskedLM in 8-bit floats: its ties are patterns, as one of their names ends in bias."""
    scales = Parameter("weight_scale_inv", (1, 1), "F32", True)
    weight = Parameter("weight", (ROWS, WIDTH), "F8_E4M3", True)
    packed = {"lm_head": QuantisedLayer(scheme="fp8", cls="FP8Linear", parameters=(weight, scales), saved_beside=())}
    tree = TREE._replace(tied=HEAD, declared_ties={**HEAD, **more}, quantised=packed)
    found = adapt(tree, from_mapping({}), vocab_size=ROWS + 1)
    assert [(t.dtype, t.shape) for t in found.tensors if t.name.endswith("weight_scale_inv")] == [scale]
    plain = adapt(tree._replace(quantised={}), from_mapping({}), vocab_size=ROWS + 1).all_parameters
    assert found.all_parameters == plain + (0 if more else 1)


def test_a_table_of_the_same_tokens_gets_the_new_rows_as_well():
    table = Module(
        "model.embed_tokens_per_layer", "Embedding", "Embedding", (Parameter("weight", (ROWS - 9, 6), "BF16"),)
    )
    more = TREE._replace(modules=(*TREE.modules, table))
    found = [adapt(tree, from_mapping({}), vocab_size=ROWS + 1).all_parameters for tree in (TREE, more)]
    assert found[1] - found[0] == (ROWS + 1) * 6


SHARED = TREE._replace(
    modules=(*TREE.modules, Module("decoder", "Decoder", "other"),
             Module("decoder.embed_tokens", "Embedding", "Embedding", (Parameter("weight", (ROWS, WIDTH), "BF16"),))),
    tied={"decoder.embed_tokens.weight": "model.embed_tokens.weight", "lm_head.weight": "model.embed_tokens.weight"},
    one_embedding=("model.embed_tokens", "decoder.embed_tokens"),
)  # fmt: skip


SECOND_HEAD = SHARED._replace(modules=(*TREE.modules, linear("model.proj", ROWS, WIDTH)), one_embedding=(),
    tied={"model.proj.weight": "model.embed_tokens.weight"},
)  # fmt: skip
HEAD_IN_A_PART = TREE._replace(
    modules=(*TREE.modules[:-1], Module("cls", "Head", "other", (Parameter("bias", (ROWS,), "BF16"),)),
             linear("cls.decoder", ROWS, WIDTH)),
    output_embedding="cls.decoder",
)  # fmt: skip
NO_EMBEDDING_LAYER = TREE._replace(input_embedding="lm_head", output_embedding=None)


@pytest.mark.parametrize(
    ("tree", "error", "named"),
    [
        pytest.param(HEAD_IN_A_PART, UnsupportedError, "cls.bias", id="a bias beside the head"),
        pytest.param(SECOND_HEAD, UnsupportedError, "model.proj", id="an adapted layer that is no head keeps its features"),
        pytest.param(NO_EMBEDDING_LAYER, UsageError, "can't be resized", id="no torch Embedding"),
        pytest.param(TREE._replace(config={"encoder": {}, "decoder": {}}), UsageError, "encoder and decoder",
                     id="each part has its own"),
        pytest.param(TREE._replace(is_composite=True, config={}), UnsupportedError, "no vocab_size", id="PEFT's look-up fails"),
    ],
)  # fmt: skip
def test_a_vocabulary_whose_resizing_is_not_known_is_refused(tree, error, named):
    with pytest.raises(error, match=named):
        adapt(tree, from_mapping({"target_modules": ["q_proj", "proj"]}), vocab_size=ROWS + 1)


TWO_BIASES = HEAD_IN_A_PART._replace(
    modules=(*HEAD_IN_A_PART.modules[:-1], linear("cls.decoder", ROWS, WIDTH, bias=True))
)


@pytest.mark.parametrize("more", [0, 3, -3])
@pytest.mark.parametrize(
    ("beside", "tied", "gone", "resized"),
    [
        pytest.param({"cls.bias": ""}, {}, 0, 2 * WIDTH + 1, id="RoBERTa keeps it as it is"),
        pytest.param({"cls.bias": "cls.decoder.bias"}, {}, ROWS, 2 * WIDTH + 1, id="BERT puts the head's in its place"),
        pytest.param({"cls.bias": None}, {}, ROWS, 2 * WIDTH + 1, id="Reformer drops it"),
        pytest.param({}, {"cls.bias": "cls.decoder.bias"}, 0, 2 * WIDTH + 1, id="one bias already"),
    ],
)
def test_a_bias_beside_the_head_becomes_what_its_class_makes_of_it(beside, tied, gone, resized, more):
    tree = TWO_BIASES._replace(beside_head=beside, tied=tied)
    config = from_mapping({"target_modules": ["q_proj"]})
    found = [adapt(tree, config, vocab_size=rows).added_parameters for rows in (None, ROWS + more)]
    assert found[1] - found[0] == more * resized - gone


def test_a_bias_beside_the_head_of_an_unknown_class_is_refused_at_as_many_rows_too():
    with pytest.raises(UnsupportedError, match="cls.bias"):
        adapt(TWO_BIASES, from_mapping({"target_modules": ["q_proj"]}), vocab_size=ROWS)


@pytest.mark.parametrize(
    ("config", "adapted"),
    [
        pytest.param({"target_modules": ["embed_tokens"]}, {"model.embed_tokens"}, id="two names, one module"),
        pytest.param({"target_modules": ["decoder.embed_tokens", "0.q_proj"]}, {"model.layers.0.q_proj"}, id="the second is gone"),
        pytest.param({"target_modules": ["0.q_proj"], "modules_to_save": ["decoder"]}, {"model.layers.0.q_proj", "decoder"},
                     id="a part that is copied takes the embedding along"),
    ],
)  # fmt: skip
def test_resizing_makes_one_module_of_the_embeddings(config, adapted):
    found = adapt(SHARED, from_mapping(config), vocab_size=ROWS + 1)
    assert {module.name for module in found.modules} == adapted
    assert found.parameters_by_part.get("saved_modules") == ((ROWS + 1) * WIDTH if "decoder" in adapted else None)


def test_an_embedding_that_stays_a_module_of_its_own_is_not_guessed():
    with pytest.raises(UnsupportedError, match="resized"):
        adapt(
            SHARED._replace(one_embedding=()), from_mapping({"target_modules": ["embed_tokens"]}), vocab_size=ROWS + 1
        )


@pytest.mark.parametrize(
    ("config", "saved"),
    [
        pytest.param({"vocab_size": ROWS}, True, id="the size stands at the top"),
        pytest.param({"vocab_size": ROWS + 1}, False, id="the size stood there before, with other rows"),
        pytest.param({"vocab_size": ROWS, "decoder": {"vocab_size": ROWS}}, False, id="resizing changes a section's"),
        pytest.param({"vocab_size": ROWS, "decoder_config": {}}, False, id="as get_text_config() of Canary has it"),
        pytest.param({}, True, id="the class has it by default"),
    ],
)
def test_whether_a_new_size_is_seen(config, saved):
    found = adapt(TREE._replace(config={"model_type": "llama", **config}), from_mapping({}), vocab_size=ROWS + 1)
    assert any(tensor.part == "embeddings" for tensor in found.tensors) == saved


def test_a_vocabulary_that_transformers_cannot_resize():
    config = {"model_type": "llama", "text_encoder": {}, "decoder": {}}
    with pytest.raises(UsageError, match="text_encoder and decoder"):
        adapt(TREE._replace(config=config), from_mapping({}), vocab_size=ROWS + 1)
