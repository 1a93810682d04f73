"""Formulas against the models that transformers builds, on the meta device."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from estimator.architecture.conditions import Place
from estimator.architecture.shapes import shapes_of

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.judges

FAMILIES = (
    "LlamaForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "MixtralForCausalLM", "Gemma3ForCausalLM",
    "Phi3ForCausalLM", "CohereForCausalLM", "GPT2LMHeadModel", "OPTForCausalLM", "BloomForCausalLM",
    "DeepseekV3ForCausalLM", "JambaForCausalLM", "MambaForCausalLM", "T5ForConditionalGeneration",
    "BartForConditionalGeneration", "BertForSequenceClassification", "ViTForImageClassification",
    "SwinForImageClassification", "WhisperForConditionalGeneration", "Qwen2VLForConditionalGeneration",
    "Sam2HieraDetModel", "ChameleonForConditionalGeneration",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _build_dtype():
    """What has another dtype than this one was given it by its class."""
    import torch

    from estimator.architecture.surveying.observe import BUILD_DTYPE

    before = torch.get_default_dtype()
    torch.set_default_dtype(BUILD_DTYPE)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", FAMILIES)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_configs_drawn_at_random_give_the_tree_that_transformers_builds(name, seed):
    from estimator.architecture.learning.changing import changed_numbers, numbers
    from estimator.architecture.surveying import tiny

    base = tiny.base_fields(name)
    why = difference_of(name, changed_numbers(base, numbers(name, base), random.Random(seed)))
    assume(why is not None)
    assert why == ""


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param(
            "JambaForCausalLM",
            {"num_hidden_layers": 6, "attn_layer_period": 4, "num_experts": 1},
            id="what is compared decides in layers that the base does not have",
        ),
        pytest.param(
            "T5ForQuestionAnswering",
            {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"},
            id="a field is made of another than the one that mostly goes with it",
        ),
        pytest.param(
            "WavLMForSequenceClassification",
            {"do_stable_layer_norm": True, "feat_extract_norm": "layer"},
            id="a number that few random configs show",
        ),
        pytest.param(
            "RecurrentGemmaForCausalLM",
            {"num_hidden_layers": 5, "block_types": ["recurrent", "attention"]},
            id="a list said over and over",
        ),
        pytest.param(
            "FalconForCausalLM",
            {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1},
            id="a number that a switch sets where it is not given",
        ),
        pytest.param(
            "MiniMaxM3VLForCausalLM",
            {"moe_layer_freq": [0, 1, 1], "sparse_attention_config": {"sparse_attention_freq": [0, 1, 1]}},
            id="two lists of as many, one of which spells the kinds of layers",
        ),
        pytest.param(
            "GlmMoeDsaForCausalLM",
            {"num_hidden_layers": 8, "index_topk_freq": 3, "index_skip_topk_offset": 3},
            id="a field that matters beside another one alone",
        ),
        pytest.param(
            "Qwen3MoeForCausalLM", {"num_experts": 3, "num_local_experts": 5}, id="two names, the first one declared"
        ),
        pytest.param(
            "KimiLinearForCausalLM", {"num_experts": 3, "num_local_experts": 5}, id="two names, the second one declared"
        ),
    ],
)
def test_two_changes_at_once_give_the_tree_that_transformers_builds(name, changes):
    from estimator.architecture.surveying import tiny

    assert difference_of(name, {**tiny.base_fields(name), **changes}) == ""


def difference_of(name, fields):
    """The first difference from the tree that transformers builds; None where it refuses."""
    from estimator.architecture.learning.experiments import Experiments
    from estimator.architecture.learning.taken import taken_by
    from estimator.architecture.learning.trial import difference

    built = Experiments(name, taken_by(name)).build(fields)
    facts = shapes_of(name)
    assert facts is not None
    return None if built is None else difference(name, facts, built)


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "Qwen2MoeForCausalLM", "SegformerForImageClassification"])
def test_the_file_is_what_the_generator_writes(name):
    from estimator.architecture.generate_shapes import main

    assert main([name, "--check"]) == 0


@pytest.mark.parametrize(
    ("parameter", "formulas"),
    [
        pytest.param("model.embed_tokens.weight", ["vocab_size", "hidden_size"], id="fields"),
        pytest.param(
            "model.layers.1.self_attn.k_proj.weight", ["num_key_value_heads*head_dim", "hidden_size"], id="a product"
        ),
        pytest.param("model.rotary_emb.inv_freq", ["ceil(head_dim/2)"], id="a buffer made by arithmetic"),
    ],
)
def test_a_shape_remembers_how_it_came_about(parameter, formulas):
    from estimator.architecture.learning.trace import Trace
    from estimator.architecture.learning.written import texts
    from estimator.architecture.surveying import tiny

    name = "LlamaForCausalLM"
    config = tiny.make(name, tiny.base_fields(name))
    with Trace(config) as trace:
        model = tiny.build(name, config)
    tensor = dict([*model.named_parameters(), *model.named_buffers()])[parameter]
    assert [next(texts(size.how, Place())) for size in trace.shape(tensor)] == formulas


def test_a_trace_leaves_nothing_behind():
    from transformers import PreTrainedConfig
    from transformers.models.llama import modeling_llama

    from estimator.architecture.learning.trace import Trace
    from estimator.architecture.surveying import tiny

    before = PreTrainedConfig.__getattribute__, PreTrainedConfig.num_labels
    config = tiny.make("LlamaForCausalLM", tiny.base_fields("LlamaForCausalLM"))
    with Trace(config):
        assert "int" in vars(modeling_llama)
    assert "int" not in vars(modeling_llama)
    assert (PreTrainedConfig.__getattribute__, PreTrainedConfig.num_labels) == before


def observed(number, **values):
    from estimator.architecture.learning.truths import Observation

    return Observation(number, values)


@pytest.mark.parametrize(
    ("comparisons", "condition"),
    [
        pytest.param([("==", ("%", ("+", ("index", 0, None), 1), "step"), 0)], "((#+1)%step==0)", id="as was compared"),
        pytest.param([], "(#%2!=0)", id="else what fits"),
    ],
)
def test_layers_are_told_apart_by_what_the_class_compares(comparisons, condition):
    from estimator.architecture.learning.tell import Teller

    long, short = observed(1, step=2, layers=6), observed(2, step=2, layers=4)
    places = [one._replace(place=Place(at, count)) for one, count in ((long, 6), (short, 4)) for at in range(count)]
    assert Teller([long, short], comparisons, []).condition(places[1::2], places[::2]) == condition


def test_what_can_not_be_told_apart_is_not():
    from estimator.architecture.learning.tell import Teller

    configs = [observed(1, a=1), observed(2, a=1)]
    assert Teller(configs, [], []).condition(configs[:1], configs[1:]) is None


def test_a_base_that_can_not_be_built_has_no_company():
    from estimator.architecture.learning.company import company

    assert not list(company("LlamaForCausalLM", {"hidden_size": "wide"}, ("use_cache",), True, ()))


def test_a_switch_that_does_nothing_alone_is_tried_beside_what_a_comparison_decides():
    """transformers 5.23.0, XLMModel: `if config.n_langs > 1 and config.use_lang_emb`, of one language by default."""
    from estimator.architecture.learning.pairs import switched_beside

    before = {"n_langs": 1, "use_lang_emb": True, "causal": True}
    effective = [(("n_langs",), 2, {"n_langs": 2}), (("causal",), False, {"causal": False})]
    tried = {"n_langs": [2], "use_lang_emb": [False], "causal": [False]}
    found = list(switched_beside([(("n_langs",), 2)], before, effective, tried))
    assert found == [{"n_langs": 2, "use_lang_emb": False}]


def test_widths_and_layers_that_are_0_are_tried_with_other_numbers():
    from estimator.architecture.learning.changing import brought_in

    before = {"speaker_embedding_size": 0, "hidden_size": 8, "mlp_layers": 0, "chunk_size_feed_forward": 0, "qkv": None}
    found = list(brought_in(before, before))
    assert found == [((path,), number) for path, number in [("speaker_embedding_size", 16), ("speaker_embedding_size", 24),
                                                            ("mlp_layers", 2), ("mlp_layers", 4)]]  # fmt: skip
