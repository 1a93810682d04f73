"""Letters are roles, as each model names them."""

from __future__ import annotations

import pytest

from estimator.architecture.module import Module, ModuleTree, Parameter
from estimator.errors import NoTargetModulesError
from estimator.lora.target_roles import resolve_targets


def tree(*names: str, model_type: str = "x", kind: str = "Linear") -> ModuleTree:
    weight = (Parameter("weight", (4, 4), "F32"),)
    modules = tuple(Module(name, kind, kind, weight) for name in names)
    return ModuleTree(architecture="X", config={"model_type": model_type}, modules=modules, tied={})


GPT2 = tree("h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.mlp.c_proj", kind="Conv1D")
BERT = tree("l.0.attention.self.query", "l.0.attention.self.key", "l.0.attention.output.dense", "l.0.output.dense")
SCAN = tree("l.0.mixer.in_proj", "l.0.mixer.out_proj")._replace(
    modules=(*tree("l.0.mixer.in_proj", "l.0.mixer.out_proj").modules, Module("l.0.mixer.conv1d", "Conv1d", "Conv1d"))
)
BRIDGED = tree("text.l.0.q_proj", "qformer.l.0.query", "video_model.l.0.q_proj")
VISION = tree("data2vec_vision.l.0.attention.query", "classifier")
MOE = tree("l.0.self_attn.q_proj", "l.0.self_attn.o_proj", model_type="qwen3_moe")


@pytest.mark.parametrize(
    ("model", "text", "targets"),
    [
        pytest.param(GPT2, "qkv", ["c_attn"], id="a fused module counts once"),
        pytest.param(GPT2, "o", ["attn.c_proj"], id="attention's c_proj, not the MLP's"),
        pytest.param(BERT, "q,k", ["query", "key"], id="with commas"),
        pytest.param(BERT, "o", ["attention.output.dense"], id="by a longer name where a short one catches more"),
        pytest.param(MOE, "qg", ["q_proj", "gate_proj"], id="experts by the names that PEFT converts"),
        pytest.param(MOE, "q_proj,o_proj", ["q_proj", "o_proj"], id="names"),
        pytest.param(MOE, "all-linear", "all-linear", id="all-linear"),
        pytest.param(MOE, "default", None, id="default"),
        pytest.param(MOE, "re:.*q_proj", ".*q_proj", id="an expression"),
        pytest.param(BRIDGED, "q", ["text.l.0.q_proj"], id="of several towers the text model"),
        pytest.param(VISION, "q", ["query"], id="a tower that is all there is"),
        pytest.param(
            tree("l.0.attention.key", "l.0.feed_forward.key"), "k", ["l.0.attention.key"], id="attention's key"
        ),
        pytest.param(
            tree("l.0.kv_a_proj_with_mqa", "l.0.kv_b_proj", "l.0.indexer.wk"),
            "k",
            ["kv_a_proj_with_mqa", "kv_b_proj"],
            id="no key of an indexer",
        ),
        pytest.param(
            tree("l.0.attn.Wo", "l.0.mlp.Wo", "l.0.mlp.Wi"),
            "oud",
            ["attn.Wo", "mlp.Wi", "mlp.Wo"],
            id="two outputs of one name",
        ),
        pytest.param(tree("q", "v"), "q,v", ["q", "v"], id="modules of those very names"),
    ],
)
def test_what_targets_become(model, text, targets):
    assert resolve_targets(text, model)[0] == targets


def test_a_letter_that_the_model_lacks():
    with pytest.raises(NoTargetModulesError) as refusal:
        resolve_targets("g", BERT)
    assert "qko" in refusal.value.way_out


@pytest.mark.parametrize("letter", "qkvo")
def test_a_mixer_of_scans_is_no_attention(letter):
    with pytest.raises(NoTargetModulesError, match="has nothing for"):
        resolve_targets(letter, SCAN)


@pytest.mark.parametrize("text", ["qkx", "q,k,x"])
def test_what_is_no_letter_at_all(text):
    with pytest.raises(NoTargetModulesError, match="x is no letter") as refusal:
        resolve_targets(text, BERT)
    assert "qko" in refusal.value.way_out


def test_a_word_is_no_letters():
    assert resolve_targets("query_key_value", MOE)[0] == ["query_key_value"]
