"""--num-labels and --task beside the head that a checkpoint holds; from_pretrained refuses a head of another size."""

from __future__ import annotations

import json

import pytest

from estimator.errors import UnsupportedError
from estimator.jobs.estimate import estimate
from estimator.request.request import Request
from tests.hub.models import header_of, weights_file
from tests.real_models import tiny_model

BERT = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 101,
    "max_position_embeddings": 32, "num_labels": 3,
}  # fmt: skip
RERANKER = "BAAI/bge-reranker-large"  # XLMRobertaForSequenceClassification of one label


def head(name: str = "out_proj", **asked) -> tuple[int, ...]:
    answer = estimate(Request(offline=True, **asked))
    return next(m.parameters[0].shape for m in answer.tree.modules if m.name.rpartition(".")[2] == name)


@pytest.mark.parametrize(
    ("asked", "name", "rows"),
    [
        pytest.param({"model": RERANKER, "num_labels": 1}, "out_proj", 1, id="as many as the checkpoint has"),
        pytest.param({"model": RERANKER, "set": {"num_labels": 3}}, "out_proj", 3, id="a model with another head"),
        pytest.param(
            {"model": RERANKER, "num_labels": 9, "lora": {"task_type": "TOKEN_CLS"}}, "classifier", 9, id="a new head"
        ),
        pytest.param(
            {"model": "llama-3.1-8b", "num_labels": 4, "lora": {"task_type": "SEQ_CLS"}}, "score", 4, id="of a task"
        ),
    ],
)
def test_labels_of_a_known_model(asked, name, rows):
    assert head(name, **asked)[0] == rows


def test_a_task_s_class_has_what_only_the_code_asks_for():
    request = Request(model="deberta-v3-base", num_labels=5, lora={"task_type": "SEQ_CLS"}, offline=True)
    assert estimate(request).base.parameters == 184_425_989  # with the LayerNorm that norm_rel_ebd asks for


VIT, BERT_BASE = "google/vit-base-patch16-224-in21k", "google-bert/bert-base-uncased"  # ViTModel, BertForMaskedLM
GEMMA = "gemma-3-4b-it"  # Gemma3ForConditionalGeneration
NOT_BUILT = "noted_class_not_built"


@pytest.mark.parametrize(
    ("model", "noted", "task", "parameters", "told"),
    [
        pytest.param(
            VIT, "ViTForImageClassification", None, 2 * 768 + 768 * 2 + 2, None, id="the class that PEFT noted"
        ),
        pytest.param(BERT_BASE, "BertForMaskedLM", None, 2 * 768, None, id="the checkpoint's own"),
        pytest.param(BERT_BASE, "BertForMaskedLM", "SEQ_CLS", 2 * 768 + 768 * 2 + 2, None, id="a task goes before it"),
        pytest.param(GEMMA, "Gemma3ForCausalLM", None, 2_560 + 2_048, None, id="of the text section"),
        pytest.param(GEMMA, "SiglipVisionModel", None, 2 * 1_152, None, id="of another section"),
        pytest.param(BERT_BASE, "ViTForImageClassification", None, 2 * 768, NOT_BUILT, id="of another model type"),
        pytest.param(BERT_BASE, "MyOwnClassifier", None, 2 * 768, NOT_BUILT, id="of somebody's code"),
    ],
)
def test_the_class_that_an_adapter_was_saved_on(model, noted, task, parameters, told):
    lora = {
        "target_modules": r".*\.0\..*\.(query|q_proj)", "r": 1, "modules_to_save": ["classifier"],
        "auto_mapping": {"base_model_class": noted}, "task_type": task,
    }  # fmt: skip
    answer = estimate(Request(model=model, lora=lora, offline=True))
    assert answer.adaptation.trainable_parameters == parameters
    assert answer.tree.basis == ("exact" if told is None else "inferred")
    assert told is None or told in {note.code for note in answer.notes}


@pytest.mark.parametrize(
    ("module", "basis"),
    [
        pytest.param("transformers.models.bert.modeling_bert", "exact", id="transformers' own"),
        pytest.param("transformers_modules.me.mine.modeling_bert", "inferred", id="a repository's, called the same"),
        pytest.param(None, "exact", id="not said"),
    ],
)
def test_whose_code_an_adapter_was_saved_on(module, basis):
    noted = {"base_model_class": "BertModel", "parent_library": module}
    lora = {"target_modules": ["query"], "auto_mapping": noted}
    answer = estimate(Request(model=BERT_BASE, lora=lora, offline=True))
    assert answer.tree.basis == basis
    assert basis == "exact" or NOT_BUILT in {note.code for note in answer.notes}


@pytest.mark.judges
@pytest.mark.parametrize("noted", ["CLIPVisionModel", "CLIPTextModelWithProjection"])
def test_a_class_of_one_section_is_what_from_pretrained_builds(noted, tmp_path):
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 1, "num_attention_heads": 4}
    sections = {
        "text_config": {**size, "vocab_size": 101},
        "vision_config": {**size, "image_size": 16, "patch_size": 4},
    }
    tiny_model("CLIPModel", sections).save_pretrained(tmp_path)
    real = getattr(transformers, noted).from_pretrained(tmp_path)
    lora = {"target_modules": ["q_proj"], "auto_mapping": {"base_model_class": noted}}
    answer = estimate(Request(model=str(tmp_path), lora=lora))
    assert (answer.tree.architecture, answer.tree.basis) == (noted, "exact")
    assert answer.base.parameters == sum(parameter.numel() for parameter in real.parameters())


def test_another_number_than_the_checkpoint_s_is_refused():
    with pytest.raises(UnsupportedError, match=r"classifier.out_proj.bias is \[1\], .* has it as \[3\]"):
        head(model=RERANKER, num_labels=3)


def test_a_number_that_changes_nothing_is_noted():
    answer = estimate(Request(model="llama-3.1-8b", num_labels=4, offline=True))
    assert "labels_without_effect" in {note.code for note in answer.notes}


@pytest.mark.judges
@pytest.mark.parametrize("labels", [3, 5])
@pytest.mark.parametrize("task", [None, "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"])
@pytest.mark.parametrize(
    "cls",
    [
        "BertForSequenceClassification", "BertForTokenClassification", "BertForQuestionAnswering",
        "BertForMultipleChoice", "BertForMaskedLM",
    ],
)  # fmt: skip
def test_what_from_pretrained_refuses_is_refused(cls, task, labels, tmp_path):
    transformers = pytest.importorskip("transformers")
    from estimator.jobs.verifying.model import AUTO_CLASSES

    tiny_model(cls, BERT).save_pretrained(tmp_path)
    auto = getattr(transformers, AUTO_CLASSES[task] if task else cls)
    try:
        real = auto.from_pretrained(tmp_path, num_labels=labels)
    except RuntimeError:
        with pytest.raises(UnsupportedError):
            estimate(Request(model=str(tmp_path), num_labels=labels, lora={"task_type": task}))
        return
    answer = estimate(Request(model=str(tmp_path), num_labels=labels, lora={"task_type": task}))
    assert answer.tree.basis == "exact"
    assert answer.base.parameters == sum(parameter.numel() for parameter in real.parameters())


OF_ITS_OWN = {"auto_map": {"AutoModelForTokenClassification": "modeling.Tokens"}}


@pytest.mark.parametrize(
    ("model", "asked", "said"),
    [  # of AutoModelFor...'s _model_mapping
        pytest.param("bart-base", {"task": "TOKEN_CLS"}, "--task SEQ_CLS or QUESTION_ANS or", id="BART's tokens"),
        pytest.param("bart-base", {"task": "SEQ_CLS"}, None, id="BART has a classifier"),
        pytest.param("Qwen/Qwen2.5-VL-7B-Instruct", {"task": "seq_cls"}, "leave --task out", id="a model that sees"),
        pytest.param("bart-base", {"lora": {"task_type": "TOKEN_CLS"}}, None, id="an adapter's, on a class of its own"),
        pytest.param("bart-base", {"task": "TOKEN_CLS", "set": OF_ITS_OWN}, None, id="code of its own has a class"),
        pytest.param(
            "google/vit-base-patch16-224-in21k",
            {"task": "SEQ_CLS", "targets": "q_proj", "set": {"architectures": ["ViTForImageClassification"]}},
            None,
            id="a classifier of images",
        ),
    ],
)
def test_a_task_that_the_model_type_has_no_class_for(model, asked, said):
    request = Request(model=model, offline=True, **asked)
    if said is None:
        estimate(request)
        return
    with pytest.raises(UnsupportedError, match="transformers has no class for") as refused:
        estimate(request)
    assert refused.value.way_out.startswith(said)


@pytest.mark.parametrize("changed", [{}, {"num_hidden_layers": 4}], ids=["as it is", "with fewer layers"])
def test_labels_that_change_nothing_are_said(changed):
    notes = estimate(Request(offline=True, model="llama-3.1-8b", num_labels=7, set=changed)).notes
    assert "labels_without_effect" in [note.code for note in notes]


@pytest.mark.parametrize(
    ("cls", "asked", "codes"),
    [
        pytest.param("OwnForCausalLM", {"lora": {"task_type": "SEQ_CLS"}}, ["head_not_counted"], id="a fresh head"),
        pytest.param("OwnForCausalLM", {"lora": {"task_type": "CAUSAL_LM"}}, [], id="the head that is stored"),
        pytest.param("OwnForSequenceClassification", {"lora": {"task_type": "SEQ_CLS"}}, [], id="a classifier's own"),
        pytest.param("OwnForCausalLM", {"num_labels": 5}, ["labels_without_effect"], id="labels of nothing"),
    ],
)
def test_a_head_that_code_of_its_own_makes_is_not_counted_in_silence(tmp_path, cls, asked, codes):
    config = {"architectures": [cls], "model_type": "own", "auto_map": {"AutoModelForCausalLM": f"modeling.{cls}"}}
    shapes = {"model.embed_tokens.weight": (20, 8), "model.layers.0.q_proj.weight": (8, 8), "lm_head.weight": (20, 8)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    file = weights_file(header_of({name: ("BF16", shape) for name, shape in shapes.items()}))
    (tmp_path / "model.safetensors").write_bytes(file.part(0, file.size - 1))
    asked = {**asked, "lora": {"target_modules": ["q_proj"], **asked.get("lora", {})}}
    told = [note.code for note in estimate(Request(model=str(tmp_path), **asked)).notes]
    assert [code for code in told if code in ("head_not_counted", "labels_without_effect")] == codes
