"""Headers, index, config.json and real sizes against one another."""

from __future__ import annotations

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.checkpoint.checkpoint import CheckedFile, Checkpoint, Tensor
from estimator.sizes.cross_check import cross_check

TREE = ModuleTree(architecture=None, config={}, modules=(), tied={}, input_embedding="model.embed_tokens")


def file(expected, actual, path="model.safetensors"):
    return CheckedFile(path, expected, actual, {"BF16": 2}, {})


def checkpoint(*files, layers=2, rows=100, width=64, **fields):
    shapes = {"model.embed_tokens.weight": (rows, width)}
    shapes |= {f"model.layers.{i}.mlp.up_proj.weight": (width, width) for i in range(layers)}
    tensors = {name: Tensor(name, "BF16", shape, "model.safetensors") for name, shape in shapes.items()}
    return Checkpoint(tensors=tensors, files=files, bytes=0, **fields)


GOOD = file(1000, 1000)
CONFIG = {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("found", "config", "status", "complaint"),
    [
        pytest.param(None, CONFIG, "unavailable", None, id="no headers"),
        pytest.param(checkpoint(), CONFIG, "unavailable", None, id="no files"),
        pytest.param(checkpoint(file(1000, None)), CONFIG, "unavailable", None, id="the real size is not known"),
        pytest.param(checkpoint(GOOD), CONFIG, "match", None, id="sizes agree"),
        pytest.param(checkpoint(file(1000, None), index_total_size=7), CONFIG, "match", None, id="the index agrees"),
        pytest.param(checkpoint(file(1000, 999)), CONFIG, "mismatch", None, id="cut short"),
        pytest.param(checkpoint(GOOD, file(9, 10, "b")), CONFIG, "mismatch", None, id="one of two is longer"),
        pytest.param(
            checkpoint(GOOD, complaints=("the index claims",)), CONFIG, "mismatch", "claims", id="the index differs"
        ),
        pytest.param(checkpoint(GOOD, rows=99), CONFIG, "mismatch", "vocab_size 100", id="vocabulary"),
        pytest.param(checkpoint(GOOD, width=32), CONFIG, "mismatch", "hidden_size 64", id="width"),
        pytest.param(checkpoint(GOOD, layers=1), CONFIG, "mismatch", "num_hidden_layers 2", id="a layer is missing"),
        pytest.param(checkpoint(GOOD, layers=3), CONFIG, "match", None, id="one more layer is common"),
        pytest.param(checkpoint(GOOD, rows=99), {}, "match", None, id="a silent config"),
        pytest.param(
            checkpoint(GOOD, width=32), {**CONFIG, "embedding_size": 32}, "match", None, id="a width of its own"
        ),
        pytest.param(
            checkpoint(GOOD, rows=104), {**CONFIG, "pad_vocab_size_multiple": 8}, "match", None, id="padded rows"
        ),
        pytest.param(checkpoint(GOOD), {"text_config": CONFIG}, "match", None, id="the text model's section"),
    ],
)
def test_files_are_held_against_what_they_claim(found, config, status, complaint):
    check = cross_check(found, config, TREE)
    assert check.status == status
    assert (complaint is None) == (not check.complaints)
    assert complaint is None or complaint in check.complaints[0]


@pytest.mark.parametrize(
    ("lacking", "complaints"),
    [
        pytest.param(
            ("lm_head.weight", "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"),
            ("The files do not hold model.layers.1.mlp.up_proj.weight and 1 more, which config.json promises.",),
            id="weights",
        ),
        pytest.param(
            ("bert.encoder.layer.1.output.LayerNorm.bias",),
            ("The files do not hold bert.encoder.layer.1.output.LayerNorm.bias, which config.json promises.",),
            id="a norm",
        ),
        pytest.param(
            ("backbone.layers.1.mixer.A_log",),
            ("The files do not hold backbone.layers.1.mixer.A_log, which config.json promises.",),
            id="a layer's own",
        ),
        pytest.param(("wav2vec2.masked_spec_embed",), (), id="most fine-tunes of wav2vec 2.0 lack it"),
        pytest.param(("pooler.dense.weight", "pooler.dense.bias"), (), id="saved from a class without a pooler"),
        pytest.param(("model.encoder.embed_positions.weight",), (), id="Marian never saves it"),
    ],
)
def test_weights_of_layers_that_the_files_do_not_hold_are_a_mismatch(lacking, complaints):
    check = cross_check(checkpoint(GOOD), CONFIG, TREE._replace(lacking=lacking))
    assert check.complaints == complaints
    assert check.status == ("mismatch" if complaints else "match")


def conv1d(*shape):
    parameters = (Parameter("weight", shape, "I8"), Parameter("bias", (96,), "BF16"))
    return TREE._replace(modules=(Module("h.0.c_attn", "Conv1D", "Conv1D", parameters),))


@pytest.mark.parametrize(
    ("stored", "quantised", "status"),
    [
        pytest.param((96, 32), True, "match", id="8-bit GPT-2"),
        pytest.param((96, 32), False, "mismatch", id="a plain one the other way round"),
        pytest.param((96, 16), True, "mismatch", id="another width"),
    ],
)
def test_quantisers_store_conv1d_the_other_way_round(stored, quantised, status):
    config = {**CONFIG, **({"quantization_config": {"load_in_8bit": True}} if quantised else {})}
    assert cross_check(checkpoint(GOOD), config, conv1d(*stored), conv1d(32, 96)).status == status


OWN = {**CONFIG, "architectures": ["OwnForCausalLM"]}
OF_OWN = TREE._replace(
    architecture="OwnForCausalLM", modules=(Module("a", "Linear", "Linear", (Parameter("weight", (64, 96), "BF16"),)),)
)

TIED = OF_OWN._replace(modules=(*OF_OWN.modules, OF_OWN.modules[0]._replace(name="b")), tied={"b.weight": "a.weight"})


@pytest.mark.parametrize(
    ("claimed", "config", "tree", "said"),
    [
        pytest.param(64 * 96, OWN, OF_OWN, False, id="the class's own"),
        pytest.param(64 * 96 * 2, OWN, TIED, False, id="a tied head counted again, as some who shard do"),
        pytest.param(64 * 96, OWN, TIED, False, id="a tied head counted once"),
        pytest.param(64 * (100 + 2 * 64), OWN, OF_OWN, False, id="of all tensors, buffers among them"),
        pytest.param(7, OWN, OF_OWN, True, id="another number"),
        pytest.param(7, CONFIG, OF_OWN, False, id="a task's class"),
        pytest.param(7, OWN, OF_OWN._replace(basis="inferred"), False, id="an inferred class"),
        pytest.param(7, {**OWN, "quantization_config": {"load_in_8bit": True}}, OF_OWN, False, id="packed"),
    ],
)
def test_the_parameters_that_the_index_claims(claimed, config, tree, said):
    found = cross_check(checkpoint(GOOD, index_total_parameters=claimed), config, tree)
    assert found.complaints == (
        ("the index claims 7 parameters; OwnForCausalLM has 6,144, the headers 14,592",) if said else ()
    )


def test_dtypes_of_all_files():
    assert cross_check(checkpoint(GOOD, file(1, 1, "b")), {}, TREE).dtypes == {"BF16": 4}


def tree(*shapes):
    modules = tuple(
        Module(f"model.layers.{at}.up_proj", "Linear", "Linear", (Parameter("weight", shape, "BF16"),))
        for at, shape in enumerate(shapes)
    )
    return ModuleTree(architecture="X", config={}, modules=modules, tied={})


@pytest.mark.parametrize(
    ("held", "promised", "complaints"),
    [
        pytest.param([(8, 4)] * 2, [(8, 4)] * 2, (), id="as config.json promises"),
        pytest.param(
            [(8, 4)],
            [(8, 4)] * 2,
            ("model.layers has 1 layers in the headers, 2 by config.json.",),
            id="a layer was cut away",
        ),
        pytest.param(
            [(6, 4), (8, 4)],
            [(8, 4)] * 2,
            ("model.layers.0.up_proj.weight is 6 x 4 in the headers, 8 x 4 by config.json.",),
            id="a layer was pruned",
        ),
    ],
)
def test_what_the_headers_hold_is_compared_with_what_config_json_promises(held, promised, complaints):
    check = cross_check(checkpoint(GOOD), {}, tree(*held), tree(*promised))
    assert check.complaints == complaints
    assert check.status == ("mismatch" if complaints else "match")


def test_of_many_differences_the_first_are_named_and_the_others_counted():
    check = cross_check(checkpoint(GOOD), {}, tree(*[(6, 4)] * 30), tree(*[(8, 4)] * 30))
    assert len(check.complaints) == 9
    assert check.complaints[-1] == "22 more parameters differ from what config.json promises."
