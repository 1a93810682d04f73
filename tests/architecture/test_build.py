"""The module tree against what transformers 5.23.0 had after loading the same file."""

from __future__ import annotations

import gzip
import json
import math
import re
from pathlib import Path

import pytest

from estimator.architecture.build import build
from estimator.architecture.class_lookup import lookup_for
from estimator.architecture.facts import class_facts
from estimator.checkpoint.checkpoint import CheckedFile, Checkpoint, Tensor
from estimator.checkpoint.header import parse_header

FIXTURES = Path(__file__).parents[2] / "fixtures" / "architecture"
CASES = sorted(path.name.removesuffix(".json.gz") for path in FIXTURES.glob("*.json.gz"))


def read(case):
    return json.loads(gzip.decompress((FIXTURES / f"{case}.json.gz").read_bytes()))


def checkpoint_of(truth):
    headers = [parse_header(file["header"], file=path) for path, file in truth["files"].items()]
    return Checkpoint(
        tensors={tensor.name: tensor for header in headers for tensor in header.tensors.values()}, files=(), bytes=0
    )


def stored(**shapes):
    tensors = {name: Tensor(name, "BF16", shape, "model.safetensors") for name, shape in shapes.items()}
    return Checkpoint(tensors=tensors, files=(), bytes=0)


def full_names(tree):
    return {f"{m.name}.{p.name}".lstrip("."): p.shape for m in tree.modules for p in m.parameters}


@pytest.mark.parametrize("case", CASES)
def test_tree_is_what_transformers_built(case):
    truth = read(case)
    tree = build(truth["config"], checkpoint_of(truth))
    ours = [
        [m.name, m.cls, m.kind, {p.name: list(p.shape) for p in m.parameters}] for m in tree.modules if m.parameters
    ]
    assert ours == [row[:4] for row in truth["runtime_modules"]]
    groups = {m.name: m.groups for m in tree.modules if m.groups != 1}
    assert groups == {
        row[0]: row[4]["groups"] for row in truth["runtime_modules"] if len(row) > 4 and row[4]["groups"] != 1
    }


@pytest.mark.parametrize("case", CASES)
def test_modules_without_parameters_stand_in_order(case):
    truth = read(case)
    if "runtime_paramless" not in truth:
        pytest.skip("was not recorded")
    tree = build(truth["config"], checkpoint_of(truth))
    ours = [[m.name, m.cls] for m in tree.modules if not m.parameters and m.name]
    assert ours == [row for row in truth["runtime_paramless"] if row[0]]


@pytest.mark.parametrize("case", CASES)
def test_ties_and_total(case):
    truth = read(case)
    tree = build(truth["config"], checkpoint_of(truth))
    assert dict(tree.tied) == truth["tied"]
    assert (
        sum(math.prod(s) for name, s in full_names(tree).items() if name not in tree.tied)
        == truth["runtime_total_params"]
    )


@pytest.mark.parametrize("case", CASES)
def test_embedding_and_head(case):
    truth = read(case)
    tree = build(truth["config"], checkpoint_of(truth))
    assert (tree.input_embedding, tree.output_embedding) == (truth["facts"]["embedding"], truth["facts"]["head"])


LLAMA = read("llama--LlamaForCausalLM")


def test_a_classifier_on_a_causal_checkpoint_gets_a_fresh_head():
    tree = build(LLAMA["config"], checkpoint_of(LLAMA), task="SEQ_CLS", num_labels=5)
    assert tree.architecture == "LlamaForSequenceClassification"
    assert full_names(tree)["score.weight"] == (5, 48)
    assert "lm_head.weight" not in full_names(tree)
    assert [note.code for note in tree.notes] == ["unused_tensors"]


@pytest.mark.parametrize(
    ("case", "lost", "expected"),
    [
        pytest.param("llama--LlamaForCausalLM", r"layers\.1\.self_attn\.q_proj", ["model.layers.1.self_attn.q_proj.weight"], id="one of a layer's"),
        pytest.param("llama--LlamaForCausalLM", r"^model\.norm|lm_head", ["model.norm.weight and 1 more"], id="the last norm and the head"),
        pytest.param("gpt2--GPT2LMHeadModel", r"wpe", ["transformer.wpe.weight"], id="positions; the tied head is no loss"),
        pytest.param("gpt2--GPT2LMHeadModel", r"nothing", [], id="nothing"),
    ],
)  # fmt: skip
def test_what_the_file_lacks_is_made_anew(case, lost, expected):
    """The names are `missing_keys` of from_pretrained(output_loading_info=True)."""
    truth = read(case)
    kept = {name: tensor for name, tensor in checkpoint_of(truth).tensors.items() if not re.search(lost, name)}
    tree = build(truth["config"], Checkpoint(tensors=kept, files=(), bytes=0))
    found = [note.message.removeprefix("The checkpoint lacks ") for note in tree.notes if note.code == "made_anew"]
    assert [message.partition(":")[0] for message in found] == expected


UDOP = {"model_type": "udop", "architectures": ["UdopModel"], "tie_word_embeddings": False, "d_model": 48, "d_kv": 8,
        "num_layers": 1, "num_heads": 6}  # fmt: skip


def test_what_is_not_stored_of_a_list_below_its_last_is_made_anew():
    """transformers 5.23.0, UdopStack: biases for one and two dimensions; another class's file ties the first."""
    held = {f"{stack}.relative_bias.biases.{at}.relative_attention_bias.weight": (32, 6)
            for stack in ("encoder", "decoder") for at in (1, 2)}  # fmt: skip
    shapes = full_names(build(UDOP, stored(**held)))
    assert {name.replace(".1.", ".0.") for name in held} <= shapes.keys()


@pytest.mark.parametrize(
    ("fields", "cls"),
    [
        pytest.param({}, "Linear", id="the class's own"),
        pytest.param({"summary_use_proj": False}, "Identity", id="config.json's"),
    ],
)
def test_a_head_of_which_nothing_is_stored_is_as_config_json_has_it(fields, cls):
    """transformers 5.23.0, ElectraSequenceSummary: a Linear where config.summary_use_proj, else an Identity."""
    config = {"model_type": "electra", "architectures": ["ElectraForMultipleChoice"], "num_hidden_layers": 1, **fields}
    tree = build(config, stored(**{"embeddings.word_embeddings.weight": (101, 128)}))
    assert {m.name: m.cls for m in tree.modules}["sequence_summary.summary"] == cls


@pytest.mark.parametrize(
    ("architectures", "task", "lost", "more", "head", "basis"),
    [
        pytest.param(["LlamaForPairs"], None, "lm_head", {"pair.weight": (3, 96)}, ["pair"], "inferred", id="its own head"),
        pytest.param(["LlamaForPairs"], None, "lm_head", {}, [], "inferred", id="no head at all"),
        pytest.param(["LlamaForPairs"], None, None, {}, ["lm_head"], "exact", id="the model type's class to the letter"),
        pytest.param(["LlamaForPairs"], "SEQ_CLS", "lm_head", {}, ["score"], "exact", id="a task's Auto class"),
        pytest.param(["LlamaForCausalLM"], None, "lm_head", {"pair.weight": (3, 96)}, ["lm_head"], "exact", id="known"),
        pytest.param(None, None, "lm_head", {"pair.weight": (3, 96)}, ["lm_head"], "exact", id="none is named"),
    ],
)  # fmt: skip
def test_a_named_class_that_nobody_knows_has_what_its_file_holds(architectures, task, lost, more, head, basis):
    """Who names a class of its own loads that one: its model type's would make fresh what the file lacks."""
    config = {**LLAMA["config"], "architectures": architectures, "tie_word_embeddings": False}
    kept = {name: tensor for name, tensor in checkpoint_of(LLAMA).tensors.items() if not (lost and lost in name)}
    tensors = {**kept, **stored(**more).tensors}
    tree = build(config, Checkpoint(tensors=tensors, files=(), bytes=0), task=task)
    found = [m.name for m in tree.modules if m.kind == "Linear" and not m.name.startswith("model.")]
    assert (found, tree.basis) == (head, basis)


EXPERTS = {"d_model": 48, "encoder_layers": 1, "encoder_ffn_dim": 64, "num_experts": 12, "encoder_sparse_step": 1}
NLLB = {"model_type": "nllb-moe", "architectures": ["NllbMoeForConditionalGeneration"], **EXPERTS}
SWITCH = {"model_type": "switch_transformers", "architectures": ["SwitchTransformersForConditionalGeneration"]}
CLIP = {"model_type": "clip_text_model", "architectures": ["CLIPTextModelWithProjection"], "num_hidden_layers": 1}


@pytest.mark.parametrize(
    ("config", "router", "expert", "parts"),
    [
        pytest.param(NLLB, "model.encoder.layers.0.ffn.router.classifier", "model.encoder.layers.0.ffn.experts.expert_{}",
                     ("fc1", "fc2"), id="NLLB's"),
        pytest.param(SWITCH, "encoder.block.1.layer.1.mlp.router.classifier",
                     "encoder.block.1.layer.1.mlp.experts.expert_{}", ("wi", "wo"), id="Switch's"),
    ],
)  # fmt: skip
def test_experts_called_by_number_are_as_many_as_are_stored(config, router, expert, parts):
    """Names and kinds are `named_modules()` of the class; a tiny one that the facts are found with has four experts."""
    names = [f"{expert.format(index)}.{part}" for index in range(12) for part in parts]
    tree = build(config, stored(**{f"{name}.weight": (48, 48) for name in (router, *names)}))
    assert [m.name for m in tree.modules if m.kind == "Linear" and ".experts." in m.name and m.parameters] == names


def test_modules_that_config_names_are_those_that_are_stored():
    """X-MOD has an adapter for each of config.json's languages; the facts know one by name."""
    before = "roberta.encoder.layer.0.output.adapter_modules"
    config = {"model_type": "xmod", "architectures": ["XmodForMaskedLM"], "languages": ["de_DE", "fr_XX"]}
    names = [f"{before}.{language}.dense1" for language in config["languages"]]
    tree = build(config, stored(**{f"{name}.weight": (48, 48) for name in names}))
    assert [m.name for m in tree.modules if m.name.startswith(before) and m.name.endswith("dense1")] == names


def test_a_width_that_is_none_by_default_is_known():
    """VitsModel of several speakers (`speaker_embedding_size`): a condition for each of its parts."""
    tree = build(
        {"model_type": "vits", "architectures": ["VitsModel"]}, stored(**{"decoder.cond.weight": (512, 24, 1)})
    )
    (module,) = (module for module in tree.modules if module.name == "decoder.cond")
    assert (module.kind, module.parameters[0].shape) == ("Conv1d", (512, 24, 1))


@pytest.mark.parametrize(
    ("architecture", "stored_names"),
    [
        pytest.param("BeitModel", ("cls_token", "mask_token"), id="off by default"),
        pytest.param("Dinov2Model", ("cls_token",), id="on by default"),
    ],
)
def test_a_mask_s_token_is_there_where_it_is_stored(architecture, stored_names):
    names = [f"embeddings.{name}" for name in stored_names]
    tree = build({"architectures": [architecture]}, stored(**dict.fromkeys(names, (1, 1, 768))))
    assert [name for name in full_names(tree) if name.endswith("_token")] == names


def test_a_projection_that_no_auto_class_builds_is_known():
    tree = build(CLIP, stored(**{"text_projection.weight": (20, 48)}))
    module = next(module for module in tree.modules if module.name == "text_projection")
    assert (tree.basis, module.kind, module.parameters[0].shape) == ("exact", "Linear", (20, 48))


@pytest.mark.parametrize(
    ("case", "lost", "known"),
    [
        pytest.param("llama--LlamaForCausalLM", "model.layers.1.mlp.up_proj.weight", True, id="all layers alike"),
        pytest.param("bit--BitForImageClassification", "bit.encoder.stages.1.layers.0.conv1.weight", False, id="widths of their own"),
    ],
)  # fmt: skip
def test_a_layer_s_neighbours_tell_a_shape_where_all_are_alike(case, lost, known):
    truth = read(case)
    whole = checkpoint_of(truth).tensors
    left = {name: tensor for name, tensor in whole.items() if name != lost}
    tree = build(truth["config"], Checkpoint(tensors=left, files=(), bytes=0))
    assert full_names(tree).get(lost) == (whole[lost].shape if known else None)
    assert any(note.code == "missing_tensors" for note in tree.notes) != known


def test_the_base_model_prefix_may_be_missing_in_the_file():
    checkpoint = checkpoint_of(LLAMA)
    bare = {name.removeprefix("model."): tensor for name, tensor in checkpoint.tensors.items()}
    tree = build(LLAMA["config"], Checkpoint(tensors=bare, files=(), bytes=0))
    assert full_names(tree) == full_names(build(LLAMA["config"], checkpoint))


def test_layers_beyond_the_config_are_left():
    checkpoint = checkpoint_of(LLAMA)
    stored = checkpoint.tensors.items()
    extra = {(new := name.replace("s.2", "s.3")): t._replace(name=new) for name, t in stored if "layers.2" in name}
    tree = build(LLAMA["config"], Checkpoint(tensors={**checkpoint.tensors, **extra}, files=(), bytes=0))
    assert not any("layers.3" in module.name for module in tree.modules)
    assert [note.code for note in tree.notes] == ["unused_tensors"]


@pytest.fixture
def two_heads(tmp_path):
    """A tied GPT-2 whose file holds the head too, after the embedding: the bytes are the test's to write."""
    truth = read("gpt2--GPT2LMHeadModel")
    checkpoint = checkpoint_of(truth)
    size = 101 * 48 * 2
    tensors = dict(checkpoint.tensors)
    for at, name in enumerate(("transformer.wte.weight", "lm_head.weight")):
        tensors[name] = Tensor(name, "BF16", (101, 48), "model.safetensors", (at * size, (at + 1) * size))

    def tree_for(content):
        path = tmp_path / "model.safetensors"
        if content is not None:
            path.write_bytes(content)
        local = str(path) if content is not None else None
        file = CheckedFile("model.safetensors", None, None, {}, {}, data_start=0, local_path=local)
        return build(truth["config"], Checkpoint(tensors=tensors, files=(file,), bytes=0))

    return tree_for, size


@pytest.mark.parametrize(
    ("content", "tied", "codes"),
    [
        pytest.param(lambda size: bytes(2 * size), True, [], id="equal values are tied"),
        pytest.param(lambda size: bytes(2 * size - 1) + b"\1", False, [], id="one byte differs: two weights"),
        pytest.param(lambda size: None, True, ["ties_assumed"], id="not at hand: assumed, and said"),
    ],
)
def test_a_head_that_is_stored_beside_its_embedding(two_heads, content, tied, codes):
    tree_for, size = two_heads
    tree = tree_for(content(size))
    assert ("lm_head.weight" in tree.tied) is tied
    assert [note.code for note in tree.notes] == codes


def test_without_facts_the_tree_is_inferred_and_says_so():
    tree = build(LLAMA["config"], checkpoint_of(LLAMA), use_facts=False)
    assert tree.basis == "inferred"
    assert [note.code for note in tree.notes] == ["inferred"]
    assert {m.name: m.kind for m in tree.modules if m.parameters} == {
        row[0]: row[2] for row in LLAMA["runtime_modules"]
    }


def test_code_of_a_repository_keeps_its_experts_apart():
    config = {
        "architectures": ["NewForCausalLM"],
        "model_type": "new",
        "auto_map": {"AutoModel": "m.N"},
        "tie_word_embeddings": False,
    }
    tree = build(
        config,
        stored(
            **{"layers.0.mlp.experts.0.gate_proj.weight": (8, 4), "layers.0.mlp.experts.1.gate_proj.weight": (8, 4)}
        ),
    )
    assert [m.name for m in tree.modules if m.kind == "Linear"] == [
        f"layers.0.mlp.experts.{index}.gate_proj" for index in (0, 1)
    ]


_EXPERT = {"model.layers.0.mlp.experts.0.up_proj.weight": (8, 16)}
_QKV = {"bert.encoder.layer.0.attention.self.Wqkv.weight": (48, 16)}
_NORMS = {f"bert.encoder.layer.{at}.output.LayerNorm.{of}": (16,) for at in range(2) for of in ("weight", "bias")}


@pytest.mark.parametrize(
    ("said", "shapes", "basis", "linear"),
    [
        pytest.param(
            {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2"},
            _EXPERT, "inferred", "model.layers.0.mlp.experts.0.up_proj", id="a type of its own: its code builds it",
        ),
        pytest.param(
            {"architectures": ["BertForMaskedLM"], "model_type": "bert"},
            _NORMS | _QKV, "inferred", "bert.encoder.layer.0.attention.self.Wqkv", id="other layers than the class",
        ),
        pytest.param(
            {"architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta"},
            {f"encoder.layers.{at}.mixer.Wqkv.weight": (48, 16) for at in range(2)},
            "inferred", "encoder.layers.0.mixer.Wqkv", id="little that the class loads",
        ),
    ],
)  # fmt: skip
def test_code_of_a_repository_is_seen_from_what_it_stores(said, shapes, basis, linear):
    """transformers 5.23.0: trust_remote_code takes `auto_map`'s class, be there one of transformers by its name."""
    config = {**said, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
    tree = build({**config, "auto_map": {"AutoModel": "modeling.Own"}}, stored(**shapes))
    assert tree.basis == basis
    assert linear in [module.name for module in tree.modules if module.kind == "Linear"]


@pytest.mark.parametrize("named", [None, {}, {"AutoTokenizer": ["tokenization.Own", None]}])
def test_a_tokenizer_of_a_repository_s_own_is_no_code_of_the_model(named):
    tree = build({**LLAMA["config"], "model_type": "own", "auto_map": named}, checkpoint_of(LLAMA))
    assert (tree.basis, tree.notes) == ("exact", ())


def test_a_repository_s_code_that_builds_what_the_class_builds_needs_no_guess():
    config = {**LLAMA["config"], "auto_map": {"AutoModelForCausalLM": "modeling.LlamaForCausalLM"}}
    tree = build(config, checkpoint_of(LLAMA))
    assert (tree.basis, tree.notes) == ("exact", ())


@pytest.mark.parametrize(
    ("cls", "stated", "head_dim"),
    [
        pytest.param("LlamaForCausalLM", {}, 16, id="worked out from width and heads"),
        pytest.param("MistralForCausalLM", {"head_dim": None}, 16, id="null is as good as nothing"),
        pytest.param("LlamaForCausalLM", {"head_dim": 8}, 8, id="stated"),
        pytest.param("Qwen3ForCausalLM", {}, 128, id="a default of its own"),
        pytest.param("GemmaForCausalLM", {}, 256, id="another"),
        pytest.param("AXK1ForCausalLM", {"head_dim": None}, None, id="null, which is no default"),
        pytest.param("Glm4MoeLiteForCausalLM", {"qk_rope_head_dim": 4}, 4, id="another name of a field that is stated"),
    ],
)
def test_a_default_that_the_class_works_out_follows_the_config(
    cls: str, stated: dict[str, int | None], head_dim: int | None
) -> None:
    config = {"hidden_size": 64, "num_attention_heads": 4, **stated}
    assert lookup_for(config, class_facts(cls))("head_dim") == head_dim
