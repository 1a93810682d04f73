"""Heads made fresh: which follow the number of labels, and which have two outputs whatever the config says."""

from __future__ import annotations

import re

import pytest

from estimator.architecture.facts import class_facts
from estimator.architecture.from_config import from_config
from estimator.errors import UnsupportedError

CONFIG = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 101,
    "num_key_value_heads": 2, "n_embd": 48, "n_layer": 1, "n_head": 4, "dim": 48, "n_layers": 1, "n_heads": 4,
    "hidden_dim": 80, "tie_word_embeddings": False,
}  # fmt: skip
HEADS = [
    pytest.param("LlamaForQuestionAnswering", "llama", "qa_outputs", 2, id="Llama answers with two"),
    pytest.param("BertForQuestionAnswering", "bert", "qa_outputs", 5, id="BERT with as many as it has labels"),
    pytest.param("LlamaForTokenClassification", "llama", "score", 5, id="Llama tells tokens apart"),
    pytest.param("DistilBertForTokenClassification", "distilbert", "classifier", 5, id="DistilBERT as well"),
]


@pytest.mark.parametrize(("name", "model_type", "head", "outputs"), HEADS)
def test_outputs_of_a_fresh_head(name, model_type, head, outputs):
    said = class_facts(name).fresh[f"{head}.weight"][0]
    assert said == (2 if outputs == 2 else "num_labels")
    tree = from_config({**CONFIG, "model_type": model_type, "architectures": [name]}, num_labels=5)
    (module,) = (module for module in tree.modules if module.name == head)
    assert module.parameters[0].shape[0] == outputs


def test_a_class_that_takes_no_other_number_of_labels():
    config = {**CONFIG, "model_type": "distilbert", "architectures": ["DistilBertForQuestionAnswering"]}
    assert from_config(config, num_labels=2).architecture == "DistilBertForQuestionAnswering"
    with pytest.raises(UnsupportedError, match="refuses to build it with 3"):
        from_config(config, num_labels=3)


@pytest.mark.judges
def test_every_head_is_sized_as_transformers_sizes_it():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from estimator.architecture.surveying import tiny

    wanted = re.compile(r".*For(QuestionAnswering|SequenceClassification|TokenClassification)(Simple)?")
    wrong = [name for name in tiny.classes() if wanted.fullmatch(name) and not _agrees(name)]
    assert wrong == []


def _agrees(name: str) -> bool:
    """Whether what the facts make fresh has the real size for 2, 3 and 5 labels; true where it can't be built."""
    from estimator.architecture.surveying import tiny

    facts = class_facts(name)
    for labels in (2, 3, 5) if facts is not None else ():
        try:
            model = tiny.build(name, tiny.make(name, {**tiny.base_fields(name), "num_labels": labels}))
        except (ImportError, ValueError):  # another package's part; another number than the class takes
            continue
        real = {key: tuple(parameter.shape) for key, parameter in model.named_parameters(remove_duplicate=False)}
        for key, shape in facts.fresh.items():
            said = tuple(labels if size == "num_labels" else size for size in shape)
            if any(type(size) is int and size != there for size, there in zip(said, real.get(key, said), strict=True)):
                return False
    return True
