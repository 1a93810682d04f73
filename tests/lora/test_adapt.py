"""What PEFT 0.21.2 adapts, counts, saves and refuses, on a small model whose numbers can be done by hand."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter, QuantisedLayer
from estimator.errors import (
    InvalidLoraError,
    NoTargetModulesError,
    UnsupportedError,
    UnsupportedModuleError,
    UsageError,
)
from estimator.lora.adapt import adapt
from estimator.request.load_options import LoadOptions
from estimator.request.lora_config import from_mapping
from estimator.sizes.bitsandbytes import quantise
from tests.lora.small import ROWS, TIED, TREE, WIDTH, Q, V, linear, model


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        pytest.param({}, 8 * 2 * (Q + V), id="r 8 on llama's default, q_proj and v_proj"),
        pytest.param({"target_modules": ["q_proj"], "r": 4}, 4 * 2 * Q, id="a name is a suffix"),
        pytest.param({"target_modules": ["layers.1.q_proj"], "r": 4}, 4 * Q, id="a longer suffix"),
        pytest.param({"target_modules": "all-linear", "r": 1}, 2 * (Q + V), id="all-linear spares the output head"),
        pytest.param({"target_modules": r".*\.0\..*_proj", "r": 1}, Q + V, id="a text is matched whole"),
        pytest.param({"layers_to_transform": [1], "r": 1}, Q + V, id="one layer"),
        pytest.param({"layers_to_transform": [1], "layers_pattern": "(nope|layers)", "r": 1}, Q + V, id="one layer, by a choice"),
        pytest.param({"exclude_modules": ["v_proj"], "r": 1}, 2 * Q, id="excluded by suffix"),
        pytest.param({"rank_pattern": {"q_proj": 3}, "r": 1}, 3 * 2 * Q + 2 * V, id="rank by name"),
        pytest.param({"rank_pattern": {r".*\.0\..*": 5, "q_proj": 3}, "r": 1}, 5 * (Q + V) + 3 * Q + V, id="first key wins"),
        pytest.param({"use_dora": 1, "r": 1}, 2 * (Q + V + 48 + 16), id="1 is true"),
        pytest.param({"use_dora": 0.5, "r": 1}, 2 * (Q + V + 48 + 16), id="so is any number but 0"),
        pytest.param({"init_lora_weights": 0, "r": 1}, 2 * (Q + V), id="0 is false where a text may stand"),
        pytest.param({"use_dora": True, "r": 1}, 2 * (Q + V + 48 + 16), id="DoRA's magnitudes are as long as the output"),
        pytest.param({"lora_bias": True, "r": 1}, 2 * (Q + V + 48 + 16), id="lora_B gets a bias"),
        pytest.param({"bias": "all", "r": 1}, 2 * (Q + V + 16), id="the base's biases train as well"),
        pytest.param({"modules_to_save": ["lm_head"], "r": 1}, 2 * (Q + V) + ROWS * WIDTH, id="a module saved whole"),
        pytest.param({"trainable_token_indices": [0, 1], "r": 1}, 2 * (Q + V) + 2 * WIDTH, id="two rows of the embedding"),
        pytest.param({"target_parameters": ["q_proj.weight"], "target_modules": [], "r": 1}, 2 * Q, id="parameters by name"),
        pytest.param({"layer_replication": [[0, 2], [0, 1]], "r": 1}, 3 * (Q + V), id="a layer twice"),
        pytest.param({"init_lora_weights": "mica", "r": 1}, 2 * 2 * WIDTH, id="MiCA freezes lora_B"),
        pytest.param({"init_lora_weights": "pissa_niter_2", "r": 20, "target_modules": ["v_proj"]}, 2 * 16 * V,
                     id="a factorisation keeps no more than the smaller side"),
        pytest.param({"use_qalora": True, "r": 1}, 2 * (Q + V), id="QA-LoRA is passed over where nothing is GPTQ"),
        pytest.param({"kasa_config": {}, "r": 2}, 2 * (2 * (Q + V) + 4), id="KaSA's diagonal"),
        pytest.param({"peft_type": "ADALORA", "total_step": 9}, 2 * (12 * (Q + V + 2) + 2),
                     id="AdaLoRA starts with init_r 12; on a bf16 base autocast sets ranknum training"),
    ],
)  # fmt: skip
def test_trainable_parameters(config, parameters):
    assert adapt(TREE, from_mapping(config)).trainable_parameters == parameters


@pytest.mark.parametrize(
    ("config", "error"),
    [
        pytest.param({"target_modules": ["nope"]}, NoTargetModulesError, id="no such module"),
        pytest.param({"target_modules": ["layers"]}, UnsupportedModuleError, id="a container"),
        pytest.param({"target_modules": ["norm"]}, UnsupportedModuleError, id="a norm"),
        pytest.param({"r": 0}, InvalidLoraError, id="no rank"),
        pytest.param({"layers_to_transform": [1], "layers_pattern": "layers|nope"}, NoTargetModulesError,
                     id="the number stands behind the other half of the choice"),
        pytest.param({"init_lora_weights": "corda", "r": 17}, InvalidLoraError, id="CorDA finds 16 directions in v_proj"),
        pytest.param({"r": 10**30}, InvalidLoraError, id="a rank no matrix can have"),
        pytest.param({"target_modules": ".*q", "layers_to_transform": [0]}, InvalidLoraError, id="layers of an expression"),
        pytest.param({"layers_pattern": "layers"}, InvalidLoraError, id="a pattern without layers"),
        pytest.param({"use_dora": True, "lora_bias": True}, InvalidLoraError, id="DoRA has no bias"),
        pytest.param({"bias": "some"}, InvalidLoraError, id="no such bias"),
        pytest.param({"target_modules": "(a"}, InvalidLoraError, id="no regular expression"),
        pytest.param({"task_type": "CHAT"}, InvalidLoraError, id="no such task"),
        pytest.param({"target_modules": ["embed_tokens"], "lora_bias": True}, InvalidLoraError, id="embeddings have no bias"),
        pytest.param({"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["head"]}, InvalidLoraError,
                     id="modules_to_save matches the end of a word"),
        pytest.param({"trainable_token_indices": [500]}, InvalidLoraError, id="a token that is not there"),
        pytest.param({"arrow_config": {}}, InvalidLoraError, id="Arrow needs finished adapters"),
        pytest.param({"alpha_pattern": {"q_proj": "8"}}, InvalidLoraError, id="an alpha that can't be divided by r"),
        pytest.param({"alpha_pattern": {"(?i)X": 8}}, InvalidLoraError, id="PEFT puts alpha's keys inside an expression"),
        pytest.param({"rank_pattern": {"q_proj": 4, "(a": 8}}, InvalidLoraError, id="a faulty key that decides nothing"),
        pytest.param({"peft_type": "LOHA"}, UnsupportedError, id="another method"),
        pytest.param({"megatron_config": {"a": 1}}, UnsupportedError, id="Megatron's layers"),
    ],
)  # fmt: skip
def test_refusals(config, error):
    with pytest.raises(error):
        adapt(TREE, from_mapping(config))


@pytest.mark.parametrize(
    ("init", "heads_rank"),
    [
        pytest.param(True, 2, id="the embedding's matrices turned"),
        pytest.param("gaussian", 2, id="drawn into them"),
        pytest.param("pissa_niter_2", 5, id="PiSSA's own"),
        pytest.param("OLoRA", 5, id="OLoRA's own, in any case of letters"),
        pytest.param("mica", 5, id="MiCA's own"),
    ],
)
def test_the_rank_of_a_head_that_is_tied(init, heads_rank):
    config = {"target_modules": ["embed_tokens"], "ensure_weight_tying": True, "r": 2, "rank_pattern": {"lm_head": 5}}
    found = {t.name: t.shape for t in adapt(TIED, from_mapping({**config, "init_lora_weights": init})).tensors}
    assert found["base_model.model.lm_head.lora_A.weight"] == (heads_rank, WIDTH)


@pytest.mark.parametrize(
    ("scheme", "refused"),
    [("gptq", False), ("fp8", False), ("awq", True), ("eetq", True), ("hqq", True), ("aqlm", True)],
)
def test_adalora_on_packed_layers(scheme, refused):
    """AdaLoraModel._create_new_module has classes of its own for bitsandbytes and GPTQ, else torch.nn.Linear."""
    packed = QuantisedLayer(scheme, "Packed", (Parameter("weight", (9, 9), "U8"),))
    base = TREE._replace(quantised={"model.layers.0.q_proj": packed})
    config = from_mapping({"peft_type": "ADALORA", "total_step": 9, "target_modules": ["q_proj"]})
    with pytest.raises(UnsupportedModuleError, match=scheme) if refused else nullcontext():
        adapt(base, config)


ATTENTION = model(
    Module("model.layers.0", "Layer", "other"),
    Module(
        "model.layers.0.attention",
        "MultiheadAttention",
        "MultiheadAttention",
        (Parameter("in_proj_weight", (3 * WIDTH, WIDTH), "F32"),),
    ),
    linear("model.layers.0.attention.out_proj", WIDTH, WIDTH, bias=True),
)


@pytest.mark.parametrize("targets", [["attention", "out_proj"], ".*attention.*"])
def test_attention_and_the_output_that_it_wraps_are_not_both_counted(targets):
    assert adapt(ATTENTION, from_mapping({"target_modules": ["attention"]})).trainable_parameters
    with pytest.raises(UnsupportedError, match="out_proj"):
        adapt(ATTENTION, from_mapping({"target_modules": targets}))


@pytest.mark.parametrize("config", [{}, {"peft_type": "ADALORA", "total_step": 9}], ids=["LoRA", "AdaLoRA"])
def test_a_module_without_a_known_shape_is_no_refusal_of_pefts(config):
    bare = TREE._replace(
        modules=tuple(m._replace(parameters=()) if m.name.endswith("q_proj") else m for m in TREE.modules)
    )
    with pytest.raises(UnsupportedError, match="shape is not known"):
        adapt(bare, from_mapping(config))


def test_tokens_where_the_class_names_no_embedding_and_may_tie_one():
    with pytest.raises(InvalidLoraError, match="get_input_embeddings"):
        adapt(TIED._replace(input_embedding=None), from_mapping({"trainable_token_indices": {"embed_tokens": [0]}}))


def names(adaptation) -> set[str]:
    return {tensor.name.removeprefix("base_model.model.") for tensor in adaptation.tensors}


@pytest.mark.parametrize(
    ("tree", "config", "extra"),
    [
        pytest.param(TREE, {"target_modules": ["embed_tokens"]}, {"model.embed_tokens.base_layer.weight"}, id="targeted embedding"),
        pytest.param(TREE, {"modules_to_save": ["lm_head"]}, {"lm_head.weight"}, id="the copy goes by the module's name"),
        pytest.param(TREE, {"bias": "all"}, {f"model.layers.{i}.v_proj.base_layer.bias" for i in (0, 1)}, id="biases"),
        pytest.param(TIED, {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
                     {"model.embed_tokens.weight", "lm_head.weight"}, id="a tied copy is saved under both names"),
        pytest.param(TIED, {"trainable_token_indices": [0]}, {"model.embed_tokens.token_adapter.trainable_tokens_delta"},
                     id="tied rows are saved once"),
    ],
)  # fmt: skip
def test_what_is_saved_beside_lora(tree, config, extra):
    found = names(adapt(tree, from_mapping(config)))
    assert {name for name in found if ".lora_" not in name} == extra


def test_an_embedding_that_holds_the_adapted_module_is_saved_with_its_base_layer():
    patches = TREE._replace(input_embedding="model.layers.0", output_embedding=None)
    found = adapt(patches, from_mapping({"target_modules": ["0.q_proj"]}), save_embedding_layers="yes")
    assert {name for name in names(found) if "q_proj" in name and "lora" not in name} == {
        "model.layers.0.q_proj.base_layer.weight"
    }


COMPOSITE = TREE._replace(
    modules=tuple(
        m._replace(name=f"language_{m.name}" if m.name.startswith("model") else m.name) for m in TREE.modules
    ),
    input_embedding="language_model.embed_tokens",
    output_embedding=None,
)


@pytest.mark.parametrize(
    ("tree", "config", "name"),
    [
        pytest.param(TREE, ["model", "embed_tokens"], "model.embed_tokens.modules_to_save.weight", id="an attribute is read"),
        pytest.param(COMPOSITE, ["language_model", "embed_tokens"],
                     "language_model.modules_to_save.default.embed_tokens.weight", id="a part is asked"),
    ],
)  # fmt: skip
def test_whose_embedding_is_saved_where_a_copied_part_has_one_copied_again(tree, config, name):
    found = adapt(
        tree,
        from_mapping({"modules_to_save": config, "target_modules": [], "target_parameters": ["v_proj.weight"]}),
        save_embedding_layers="yes",
    )
    assert name in names(found), names(found)


def test_one_more_token_saves_both_embeddings():
    found = adapt(TREE, from_mapping({}), vocab_size=ROWS + 1)
    assert {t.name: t.shape for t in found.tensors if t.part == "embeddings"} == {
        "base_model.model.model.embed_tokens.weight": (ROWS + 1, WIDTH),
        "base_model.model.lm_head.weight": (ROWS + 1, WIDTH),
    }
    assert found.all_parameters - adapt(TREE, from_mapping({})).all_parameters == 2 * WIDTH


def test_a_head_of_other_rows_gets_as_many_as_the_embedding():
    shorter = TREE._replace(modules=(*TREE.modules[:-1], linear("lm_head", ROWS - 1, WIDTH)))
    added = [adapt(tree, from_mapping({}), vocab_size=ROWS + 1).all_parameters for tree in (TREE, shorter)]
    assert added[0] == added[1]


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


@pytest.mark.parametrize(("asked", "dtype"), [(None, "F32"), ("base", "BF16"), ("F16", "F16")])
def test_dtype_of_the_adapter(asked, dtype):
    assert {t.dtype for t in adapt(TREE, from_mapping({}), adapter_dtype=asked).tensors} == {dtype}


def test_a_name_that_matches_nothing_is_noted():
    notes = adapt(TREE, from_mapping({"target_modules": ["q_proj", "gate_proj"]})).notes
    assert [note.code for note in notes] == ["targets_not_found"]


def test_a_tied_head_that_a_quantiser_has_taken_is_refused_in_4_bits():
    """Its class is Linear4bit, its weight the embedding's (transformers 5.23.0 ties after it has converted)."""
    config = from_mapping({"target_modules": ["lm_head"]})
    four, eight = (quantise(TIED, LoadOptions(base_precision=how, skip_modules=())) for how in ("nf4", "int8"))
    with pytest.raises(UnsupportedModuleError, match="tied to"):
        adapt(four, config)
    assert adapt(eight, config).trainable_parameters == 8 * (ROWS + WIDTH)


# What bitsandbytes 0.50.2 and transformers 5.23.0 write of a head of 101 x 48 weights.
FOUR_BIT_HEAD = {
    "weight": ("U8", (2424, 1)),
    "weight.absmax": ("F32", (76,)),
    "weight.quant_map": ("F32", (16,)),
    "weight.quant_state.bitsandbytes__nf4": ("U8", (79,)),
}
EIGHT_BIT_HEAD = {"weight": ("I8", (101, 48)), "SCB": ("F32", (101,)), "weight_format": ("U8", ())}


@pytest.mark.parametrize(
    ("precision", "storage", "head"),
    [
        pytest.param("int8", "U8", EIGHT_BIT_HEAD, id="int8"),
        pytest.param("nf4", "U8", FOUR_BIT_HEAD, id="nf4"),
        pytest.param("nf4", "BF16", {**FOUR_BIT_HEAD, "weight": ("BF16", (1212, 1))}, id="nf4 seen as bfloat16"),
    ],
)
def test_a_packed_head_is_saved_along_with_its_state(precision, storage, head):
    load = LoadOptions(base_precision=precision, quant_storage=storage, skip_modules=())
    tensors = adapt(quantise(TREE, load), from_mapping({"target_modules": ["lm_head"]})).tensors
    before = "base_model.model.lm_head.base_layer."
    found = {t.name.removeprefix(before): (t.dtype, t.shape) for t in tensors if t.name.startswith(before)}
    assert found == head


DOUBLE = LoadOptions(base_precision="nf4", skip_modules=(), double_quant=True)


def test_a_packed_head_whose_text_is_as_long_as_the_weights_make_it_is_counted_and_not_weighed():
    """Double quantisation writes a float into the state's text, of as many digits as it needs."""
    config = from_mapping({"target_modules": ["lm_head"]})
    four = quantise(TREE, DOUBLE)
    varies = adapt(four, config)
    assert varies.trainable_parameters == 8 * (ROWS + WIDTH)
    assert not varies.has_size
    assert "file_size_varies" in {note.code for note in varies.notes}
    assert adapt(four, config, save_embedding_layers="no").has_size
    assert adapt(four, from_mapping({"target_modules": ["q_proj", "embed_tokens"]})).has_size


def test_a_packed_head_of_unknown_state_is_not_weighed():
    unknown = {"lm_head": quantise(TREE, DOUBLE).quantised["lm_head"]._replace(saved_beside=None)}
    with pytest.raises(UnsupportedError, match="packed"):
        adapt(TREE._replace(quantised=unknown), from_mapping({"target_modules": ["lm_head"]}))


def test_olora_quantises_anew_from_float32():
    """The text names the dtype: one letter less than bfloat16."""
    base = quantise(TREE, LoadOptions(base_precision="nf4", skip_modules=()))
    texts = {
        init: t.shape
        for init in (True, "OLoRA")
        for t in adapt(base, from_mapping({"target_modules": ["lm_head"], "init_lora_weights": init})).tensors
        if ".quant_state." in t.name
    }
    assert texts[True] == FOUR_BIT_HEAD["weight.quant_state.bitsandbytes__nf4"][1]
    assert texts["OLoRA"] == (texts[True][0] + len("float32") - len("bfloat16"),)


@pytest.mark.parametrize(("storage", "double"), [("BF16", False), ("F16", False), ("F16", True)])
def test_a_head_in_4_bits_of_a_floating_storage_trains(storage, double):
    """PEFT saves its copy with the quantisation state; of integers it refuses to make one at all."""
    config = from_mapping({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]})
    known = adapt(quantise(TREE, DOUBLE._replace(quant_storage=storage, double_quant=double)), config)
    assert known.parameters_by_part["saved_modules"] == ROWS * WIDTH
    assert known.has_size is not double


def test_a_copy_of_unknown_state_is_not_weighed():
    unknown = {
        "lm_head": quantise(TREE, DOUBLE._replace(quant_storage="F16")).quantised["lm_head"]._replace(saved_beside=None)
    }
    config = from_mapping({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]})
    with pytest.raises(UnsupportedError, match="floating storage"):
        adapt(TREE._replace(quantised=unknown), config)


@pytest.mark.parametrize(
    ("stored", "way_out"),
    [
        pytest.param({}, "--skip-modules", id="packed as it is loaded"),
        pytest.param(
            {"quant_method": "bitsandbytes", "load_in_4bit": True}, "model that was quantised", id="stored so"
        ),
    ],
)
def test_no_option_unpacks_a_stored_head(stored, way_out):
    tree = quantise(TREE, LoadOptions(base_precision="nf4", skip_modules=()))
    tree = tree._replace(config={**tree.config, "quantization_config": stored} if stored else tree.config)
    with pytest.raises(InvalidLoraError) as refusal:
        adapt(tree, from_mapping({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}))
    assert way_out in refusal.value.way_out


@pytest.mark.parametrize(("storage", "held"), [("F16", True), ("U8", False)])
def test_orthogonal_matrices_want_a_weight_that_is_seen_as_floats(storage, held):
    base = quantise(TREE, LoadOptions(base_precision="nf4", quant_storage=storage))
    config = from_mapping({"target_modules": ["q_proj"], "init_lora_weights": "orthogonal"})
    with nullcontext() if held else pytest.raises(InvalidLoraError, match="floating point"):
        assert adapt(base, config).trainable_parameters == 8 * 2 * Q


def test_a_tied_head_in_8_bit_floats_keeps_the_embeddings_weight_and_its_own_scale():
    """FP8Linear has a scale whatever its weight is tied to: Camembert's decoder, which comes before the embedding."""
    head, scale = Parameter("weight", (100, 64), "F8_E4M3", True), Parameter("weight_scale_inv", (1, 1), "F32", True)
    tree = ModuleTree(
        architecture="Model",
        config={"model_type": "llama"},
        modules=(
            Module("", "Model", "other"),
            Module("lm_head", "Linear", "Linear", (Parameter("weight", (100, 64), "BF16"),)),
            Module("embed_tokens", "Embedding", "Embedding", (Parameter("weight", (100, 64), "BF16"),)),
            Module("q_proj", "Linear", "Linear", (Parameter("weight", (64, 64), "BF16"),)),
        ),
        tied={"lm_head.weight": "embed_tokens.weight"},
        input_embedding="embed_tokens",
        output_embedding="lm_head",
        quantised={"lm_head": QuantisedLayer("fp8", "FP8Linear", (head, scale), saved_beside=())},
    )
    done = adapt(tree, from_mapping({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}))
    saved = {t.name.rpartition("lm_head.")[2]: (t.dtype, t.shape) for t in done.tensors if "lm_head" in t.name}
    assert saved == {"weight": ("BF16", (100, 64)), "weight_scale_inv": ("F32", (1, 1))}
