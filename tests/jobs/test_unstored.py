"""Weights that no file holds, in 4 and 8 bits: bitsandbytes quantises what is read, and leaves what is made anew.

transformers 5.23.0, bitsandbytes 0.50.2, peft 0.21.2, each model really saved in bfloat16 and loaded with 5 labels.
"""

from __future__ import annotations

import json

import pytest

from estimator.architecture.from_config import from_config
from estimator.architecture.module import named_parameters
from estimator.errors import UnsupportedModuleError
from estimator.jobs.estimate import estimate
from estimator.request.request import Request
from tests.hub.models import safetensors

SIZES = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 101,
    "max_position_embeddings": 32, "dtype": "bfloat16",
}  # fmt: skip
BERT = {**SIZES, "model_type": "bert", "architectures": ["BertForMaskedLM"]}
BARE_LLAMA = {**SIZES, "model_type": "llama", "architectures": ["LlamaModel"], "num_key_value_heads": 2}
BARE_BERT = {**SIZES, "model_type": "bert", "architectures": ["BertModel"]}
ROBERTA = {**SIZES, "model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}
LLAMA = {**SIZES, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_key_value_heads": 2}
T5 = {
    "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 48, "d_kv": 12, "d_ff": 80,
    "num_layers": 1, "num_decoder_layers": 1, "num_heads": 4, "vocab_size": 101, "dtype": "bfloat16",
}  # fmt: skip


def answer(config, folder, *, headers=True, targets, task="SEQ_CLS", num_labels=5, **asked):
    (folder / "config.json").write_text(json.dumps(config))
    if headers:
        tree = from_config(config, task=None, num_labels=None)
        shapes = {name: p.shape for name, p in named_parameters(tree.modules) if name not in tree.tied}
        stored = safetensors({name: ("BF16", shape) for name, shape in shapes.items()})
        (folder / "model.safetensors").write_bytes(stored)
    lora = {"task_type": task, "target_modules": targets}
    return estimate(Request(model=str(folder), num_labels=num_labels, lora=lora, offline=True, **asked))


@pytest.mark.parametrize("headers", [True, False], ids=["headers", "config.json alone"])
@pytest.mark.parametrize(
    ("config", "targets", "asked", "expected"),
    [  # footprint, tensors beside the weights, trainable, all, the adapter's file
        pytest.param(
            LLAMA, ["q_proj"], {"base_precision": "nf4"}, (19_728, 1_600, 1_008, 24_672, 3_928), id="spared by default"
        ),
        pytest.param(
            LLAMA,
            ["q_proj"],
            {"base_precision": "nf4", "skip_modules": ()},
            (19_728, 1_600, 1_008, 24_672, 3_928),
            id="spared by nobody",
        ),
        pytest.param(
            LLAMA,
            ["q_proj"],
            {"base_precision": "int8", "skip_modules": ()},
            (28_944, 1_408, 1_008, 24_672, 3_928),
            id="in 8 bits",
        ),
        pytest.param(
            ROBERTA, ["query"], {"base_precision": "nf4"}, (28_330, 1_440, 3_365, 29_946, 8_986), id="a head of two"
        ),
        pytest.param(
            T5, ["q"], {"base_precision": "int8"}, (66_762, 2_944, 2_304, 53_349, 10_120), id="around the model"
        ),
        pytest.param(
            BARE_BERT,
            ["query"],
            {"base_precision": "nf4", "task": "QUESTION_ANS", "num_labels": None},
            (23_332, 1_440, 866, 24_948, 3_764),
            id="of a model without a head",
        ),
        pytest.param(
            BARE_LLAMA,
            ["q_proj"],
            {"base_precision": "nf4", "dtype": "fp16", "task": "QUESTION_ANS", "num_labels": None},
            (19_444, 1_600, 866, 24_388, 3_748),
            id="under a prefix of its own",
        ),
        pytest.param(
            {**T5, "architectures": ["T5EncoderModel"]},
            ["q"],
            {"base_precision": "fp16", "task": "QUESTION_ANS", "num_labels": None},
            (104_772, 0, 2_402, 50_948, 10_428),
            id="a decoder's wo is not kept in float32",
        ),
    ],
)
def test_a_fresh_head_stays_plain(config, targets, asked, expected, headers, tmp_path):
    found = answer(config, tmp_path, headers=headers, targets=targets, **asked)
    loaded, adaptation = found.base.loaded, found.adaptation
    assert (loaded.footprint_bytes, loaded.state_bytes) == expected[:2]
    everything = found.base.all_parameters + adaptation.added_parameters
    assert (adaptation.trainable_parameters, everything, found.file_bytes) == expected[2:]


@pytest.mark.parametrize("named", [None, ["OurRoberta"]], ids=["no class is named", "a class that nobody knows"])
def test_a_config_of_no_known_class_is_taken_for_its_model_types(named, tmp_path):
    found = answer(
        {**ROBERTA, "architectures": named}, tmp_path, headers=False, targets=["query"], base_precision="nf4"
    )
    assert (found.base.loaded.footprint_bytes, found.adaptation.trainable_parameters) == (28_330, 3_365)


def test_a_pooler_that_the_file_lacks_is_fresh_as_well(tmp_path):
    found = answer(BERT, tmp_path, targets=["query", "dense"], base_precision="int8")
    assert (found.base.loaded.footprint_bytes, found.adaptation.trainable_parameters) == (36_778, 4_597)
    with pytest.raises(UnsupportedModuleError, match=r"bert\.pooler\.dense"):
        answer(BERT, tmp_path, targets=["query", "dense"], base_precision="nf4")


def test_a_pooler_that_a_file_may_have_is_said(tmp_path):
    found = answer(BERT, tmp_path, headers=False, targets=["query"], base_precision="nf4")
    note = next(note for note in found.notes if note.code == "stored_assumed")
    assert "bert.pooler.dense.bias and 1 more" in note.message
