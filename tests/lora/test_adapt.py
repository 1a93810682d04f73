"""What PEFT 0.21.2 adapts, counts, saves and refuses, on a small model whose numbers can be done by hand."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from estimator.architecture.module import Module, Parameter, QuantisedLayer
from estimator.errors import (
    InvalidLoraError,
    NoTargetModulesError,
    UnsupportedError,
    UnsupportedModuleError,
)
from estimator.lora.adapt import adapt
from estimator.request.load_options import LoadOptions
from estimator.request.lora_config import from_mapping
from estimator.sizes.bitsandbytes import quantise
from tests.lora.small import ROWS, TIED, TREE, WIDTH, Q, V, layer, linear, model


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
        pytest.param({"trainable_token_indices": [0, -1], "r": 1}, 2 * (Q + V) + 2 * WIDTH, id="a row counted from the end"),
        pytest.param({"target_parameters": ["q_proj.weight"], "target_modules": [], "r": 1}, 2 * Q, id="parameters by name"),
        pytest.param({"layer_replication": [[0, 2], [0, 1]], "r": 1}, 3 * (Q + V), id="a layer twice"),
        pytest.param({"init_lora_weights": "mica", "r": 1}, 2 * 2 * WIDTH, id="MiCA freezes lora_B"),
        pytest.param({"init_lora_weights": "pissa_niter_2", "r": 20, "target_modules": ["v_proj"]}, 2 * 16 * V,
                     id="a factorisation keeps no more than the smaller side"),
        pytest.param({"use_qalora": True, "r": 1}, 2 * (Q + V), id="QA-LoRA is passed over where nothing is GPTQ"),
        pytest.param({"kasa_config": {}, "r": 2}, 2 * (2 * (Q + V) + 4), id="KaSA's diagonal"),
        pytest.param({"use_bdlora": {"target_modules_bd_a": ["q_proj"], "target_modules_bd_b": ["v_proj"], "nblocks": 4}, "r": 4},
                     2 * (4 * 12 + 48 * 4 + 4 * WIDTH + 16), id="BdLoRA's A of one, B of the other in four blocks"),
        pytest.param({"use_bdlora": {"target_modules_bd_a": ["q_proj"], "nblocks": 4, "match_strict": False}, "r": 4},
                     2 * (4 * 12 + 48 * 4 + 4 * V), id="BdLoRA leaves others as they are"),
        pytest.param({"velora_config": {}, "r": 1}, 2 * (Q + V), id="VeLoRA's projection is frozen"),
        pytest.param({"monteclora_config": {"num_samples": 3}, "r": 2}, 2 * (2 * (Q + V) + 2 * (2 + 3)), id="MonteCLoRA's priors"),
        pytest.param({"alora_invocation_tokens": [], "r": 2}, 4 * (Q + V), id="aLoRA without tokens is LoRA"),
        pytest.param({"use_dora": True, "target_modules": ["embed_tokens"], "r": 2}, 2 * (ROWS + WIDTH) + WIDTH,
                     id="DoRA of an embedding"),
        pytest.param({"init_lora_weights": "mica", "target_modules": ["embed_tokens"], "r": 4}, 4 * (ROWS + WIDTH),
                     id="MiCA freezes nothing of an embedding"),
        pytest.param({"init_lora_weights": "pissa_niter_2_3", "r": 1}, 2 * (Q + V), id="int() reads 2_3"),
        pytest.param({"init_lora_weights": "orthogonal", "r": 4, "target_parameters": ["q_proj.weight"], "target_modules": []},
                     8 * Q, id="an orthogonal parameter"),
        pytest.param({"peft_type": "ADALORA", "total_step": 9}, 2 * (12 * (Q + V + 2) + 2),
                     id="AdaLoRA starts with init_r 12; on a bf16 base autocast sets ranknum training"),
        pytest.param({"peft_type": "ADALORA", "total_step": 9, "rank_pattern": None}, 2 * (12 * (Q + V + 2) + 2),
                     id="as AdaLoRA saves it before it gave up a rank"),
        pytest.param({"peft_type": "ADALORA", "total_step": 9, "r": None, "alpha_pattern": None},
                     2 * (12 * (Q + V + 2) + 2), id="AdaLoRA reads neither r nor alpha_pattern"),
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
        *(
            pytest.param({"init_lora_weights": init, **rest}, InvalidLoraError, id=f"{init}, {why}")
            for init, rest, why in (
                ("bogus", {}, "which nobody knows"),
                ("pissa_niter_x", {}, "no number"),
                ("pissa_iter_2", {}, "mistyped"),
                ("orthogonal", {"r": 3}, "an odd rank"),
                ("mica", {"r": 17}, "16 rows of v_proj"),
                ("mica", {"r": 49, "target_modules": ["embed_tokens"]}, "48 columns of an embedding"),
                ("mica", {"use_dora": True}, "itself a variant"),
                ("mica", {"target_modules": [], "target_parameters": ["q_proj.weight"]}, "of a parameter"),
                ("loftq", {"loftq_config": {"loftq_bits": 4, "loftq_iter": 1}, "target_modules": ["embed_tokens"]}, "of an embedding"),
            )
        ),
        *(
            pytest.param({"use_bdlora": {"target_modules_bd_a": ["q_proj"], **said}, "r": 4}, InvalidLoraError, id=f"BdLoRA, {why}")
            for said, why in (
                ({"target_modules_bd_b": ["q_proj"]}, "one name for both"),
                ({"target_modules_bd_b": ["layers.0"]}, "two names of one module"),
                ({"nblocks": 4}, "a module of neither"),
                ({"nblocks": 5, "match_strict": False}, "48 columns in 5 blocks"),
                ({"nblocks": 0, "match_strict": False}, "no blocks"),
            )
        ),
        pytest.param({"kasa_config": {}, "r": 16}, InvalidLoraError, id="KaSA keeps a rank of v_proj's 16"),
        pytest.param({"kasa_config": {}, "use_dora": True}, InvalidLoraError, id="two variants"),
        pytest.param({"kasa_config": {}, "target_modules": ["embed_tokens"]}, InvalidLoraError, id="KaSA of an embedding"),
        pytest.param({"alpha_pattern": {"q_proj": "8"}}, InvalidLoraError, id="an alpha that can't be divided by r"),
        pytest.param({"alpha_pattern": {"(?i)X": 8}}, InvalidLoraError, id="PEFT puts alpha's keys inside an expression"),
        pytest.param({"rank_pattern": {"q_proj": 4, "(a": 8}}, InvalidLoraError, id="a faulty key that decides nothing"),
        pytest.param({"peft_type": "LOHA"}, UnsupportedError, id="another method"),
        pytest.param({"megatron_config": {"a": 1}}, UnsupportedError, id="Megatron's layers"),
    ],
)  # fmt: skip
def test_what_peft_refuses_is_refused(config, error):
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


def test_a_head_of_other_rows_is_given_the_embeddings_matrices_too():
    """PEFT knows a tied head by the last part of its name: SeamlessM4T's t2u_model.lm_head, of 10,082 units."""
    tree = TIED._replace(modules=(*TIED.modules, Module("t2u", "T2U", "other"), linear("t2u.lm_head", 77, WIDTH)))
    config = {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True, "r": 2}
    found = {t.name: t.shape for t in adapt(tree, from_mapping(config)).tensors}
    assert found["base_model.model.t2u.lm_head.lora_B.weight"] == (ROWS, 2)


@pytest.mark.parametrize(
    ("init", "rank", "weight", "trained"),
    [
        pytest.param("olora", 60, (48, 48, 3), 7_344, id="OLoRA above both first sides"),
        pytest.param("OLoRA", 200, (48, 80, 3), 11_952, id="OLoRA above another second side"),
        pytest.param("olora", 1, (48, 80, 3), 153, id="OLoRA's one row"),
        pytest.param("pissa", 4, (48, 48, 3), 204, id="PiSSA of as many inputs as outputs"),
        pytest.param("olora", 8, (48, 48, 3), None, id="OLoRA between"),
        pytest.param("pissa", 4, (48, 80, 3), None, id="PiSSA of other inputs"),
        pytest.param("pissa", 2, (48, 48, 3), None, id="PiSSA below the kernel"),
        pytest.param("pissa_niter_2", 4, (48, 48, 3), None, id="PiSSA by iterations"),
    ],
)
def test_factors_of_a_convolution_that_is_a_target_parameter(init, rank, weight, trained):
    """Counts of Whisper's conv1 and conv2, built tiny."""
    tree = model(Module("conv", "Conv1d", "Conv1d", (Parameter("weight", weight, "F32"),)))
    config = {"target_modules": [], "target_parameters": ["conv.weight"], "r": rank, "init_lora_weights": init}
    with pytest.raises(InvalidLoraError) if trained is None else nullcontext():
        assert adapt(tree, from_mapping(config)).trainable_parameters == trained


@pytest.mark.parametrize(
    ("packed", "fan_in_fan_out", "refused"),
    [
        pytest.param(True, False, False, id="packed, which sets nothing"),
        pytest.param(True, True, True, id="packed, beside what the config says"),
        pytest.param(False, False, True, id="a Conv1D sets it"),
    ],
)
def test_parameters_beside_a_conv1d(packed, fan_in_fan_out, refused):
    """GPT-2 in 4 bits: PEFT's layers of bitsandbytes leave fan_in_fan_out as the config has it."""
    conv = Module("c_attn", "Conv1D", "Conv1D", (Parameter("weight", (WIDTH, 9), "BF16"),))
    four_bit = QuantisedLayer("bitsandbytes_4bit", "Linear4bit", (Parameter("weight", (WIDTH * 9 // 2, 1), "U8"),))
    tree = model(conv)._replace(quantised={"c_attn": four_bit} if packed else {})
    names = {"target_modules": ["c_attn"], "target_parameters": ["embed_tokens.weight"], "r": 1}
    with pytest.raises(InvalidLoraError, match="fan_in_fan_out") if refused else nullcontext():
        found = adapt(tree, from_mapping({**names, "fan_in_fan_out": fan_in_fan_out}))
        assert found.trainable_parameters == WIDTH + 9 + ROWS + WIDTH


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


@pytest.mark.parametrize(("asked", "dtype"), [(None, "F32"), ("base", "BF16"), ("F16", "F16")])
def test_dtype_of_the_adapter(asked, dtype):
    assert {t.dtype for t in adapt(TREE, from_mapping({}), adapter_dtype=asked).tensors} == {dtype}


@pytest.mark.parametrize(("computed", "dtype"), [("BF16", "BF16"), ("F16", "F32"), (None, "F32")])
def test_dtype_of_magnitudes_beside_4_bits(computed, dtype):
    """DoraLinearLayer adds what LoRA has in the dtype of the computation to a weight unpacked to bfloat16."""
    tree = quantise(TREE, LoadOptions(base_precision="nf4", compute_dtype=computed))
    tensors = adapt(tree, from_mapping({"use_dora": True}), adapter_dtype="base").tensors
    assert {t.dtype for t in tensors if t.part == "dora"} == {dtype}
    assert {t.dtype for t in tensors if t.part == "lora"} == {computed or "F32"}


def test_on_weights_in_bytes():
    """Of Gemma's: DoRA finds another shape; MonteCLoRA's buffers are not cast to the bytes' dtype."""
    layers = {m.name: QuantisedLayer("gemma", "QuantizedLinear", (Parameter("weight", (48, 4), "U8"),), saved_beside=())
              for m in TREE.modules if m.kind == "Linear"}  # fmt: skip
    tree = TREE._replace(quantised=layers)
    with pytest.raises(InvalidLoraError, match="several values in a byte"):
        adapt(tree, from_mapping({"use_dora": True}))
    found = adapt(tree, from_mapping({"monteclora_config": {}})).tensors
    assert {tensor.dtype for tensor in found} == {"F32"}


def test_parameters_that_torchao_packs_are_adapted_as_a_linear():
    """dispatch_torchao (peft 0.21.2) goes before what wraps a parameter, which takes no DoRA."""
    layers = {m.name: QuantisedLayer("torchao", "Linear", m.parameters) for m in TREE.modules if m.kind == "Linear"}
    config = {"target_modules": [], "target_parameters": ["q_proj.weight"], "use_dora": True}
    assert adapt(TREE._replace(quantised=layers), from_mapping(config)).tensors
    with pytest.raises(InvalidLoraError, match="use_dora"):
        adapt(TREE, from_mapping(config))


def test_a_name_that_matches_nothing_is_noted():
    notes = adapt(TREE, from_mapping({"target_modules": ["q_proj", "gate_proj"]})).notes
    assert [note.code for note in notes] == ["targets_not_found"]


def test_a_mistyped_all_linear_is_known():
    with pytest.raises(NoTargetModulesError) as refused:
        adapt(TREE, from_mapping({"target_modules": ["all_linear"]}))
    assert refused.value.way_out == "did you mean all-linear?"


def test_all_linear_in_a_list_is_a_name():
    with pytest.raises(NoTargetModulesError) as refused:
        adapt(TREE, from_mapping({"target_modules": ["all-linear"]}))
    assert refused.value.way_out.endswith('give it alone, as a text ("target_modules": "all-linear")')


@pytest.mark.parametrize("beside", [{}, {"modules_to_save": ["lm_head"]}, {"exclude_modules": ".*lm_head"}])
def test_no_target_at_all_is_said_so(beside):
    with pytest.raises(NoTargetModulesError) as refused:
        adapt(TREE, from_mapping({"target_modules": [], **beside}))
    assert refused.value.what.startswith("No module and no parameter is targeted in ")


@pytest.mark.parametrize(
    ("packed", "way_out"),
    [
        pytest.param({"q_proj", "v_proj"}, "target lm_head", id="all but the head, which all-linear spares"),
        pytest.param({"q_proj", "v_proj", "lm_head"}, "load a base that is not quantised so", id="all"),
    ],
)
def test_all_linear_is_no_way_out_where_it_finds_nothing(packed, way_out):
    layers = [m for m in TREE.modules if m.kind == "Linear" and m.name.rpartition(".")[2] in packed]
    own = {
        m.name: QuantisedLayer("higgs", "HiggsLinear", m.parameters, is_linear=False, refusal="none") for m in layers
    }
    with pytest.raises(NoTargetModulesError) as refused:
        adapt(TREE._replace(quantised=own), from_mapping({"target_modules": "all-linear"}))
    assert refused.value.way_out.startswith(way_out)
    assert "all-linear" not in refused.value.way_out


@pytest.mark.parametrize(("targets", "refused"), [(["q_proj"], True), (["v_proj"], False)])
def test_a_parameter_inside_of_an_adapted_module(targets: list[str], refused: bool) -> None:
    """PEFT 0.21.2: the layer of LoRA around a Wav2Vec2's convolution has no attribute `parametrizations`."""
    inner = Module(
        "model.layers.0.q_proj.parametrizations.weight", "ParametrizationList", "other",
        (Parameter("original1", (48, 48), "F32"),),
    )  # fmt: skip
    config = from_mapping({"r": 2, "target_modules": targets, "target_parameters": ["weight.original1"]})
    with pytest.raises(InvalidLoraError, match="which target_modules adapts already") if refused else nullcontext():
        adapt(model(*layer(0), inner), config)
