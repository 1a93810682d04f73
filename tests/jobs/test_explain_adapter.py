"""Published adapters explained from their config and the size in their Git LFS pointer."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import pytest
from safetensors import TensorSpec, serialize

from estimator.errors import InvalidLoraError, NotFoundError
from estimator.jobs.base import BaseCache
from estimator.jobs.explain_adapter import explain_adapter
from estimator.report.explanation import explanation_document, explanation_text
from estimator.request.request import Request

FIXTURE = Path(__file__).parents[2] / "fixtures" / "adapters" / "published.jsonl"
ROWS = [json.loads(line) for line in FIXTURE.read_text().splitlines()]
BASES = BaseCache()


@pytest.mark.parametrize("row", [pytest.param(row, id=row["why"]) for row in ROWS])
def test_published_adapter(row, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(row["config"]))
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize {row['bytes']}\n"
    (tmp_path / "adapter_model.safetensors").write_text(pointer)
    explained = explain_adapter(str(tmp_path), Request(offline=True), bases=BASES)
    assert (explained.status, [cause.code for cause in explained.causes]) == (row["status"], row["causes"])
    assert explained.actual_bytes == row["bytes"]


def test_no_file_is_unknown(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(ROWS[0]["config"]))
    explained = explain_adapter(str(tmp_path), Request(offline=True), bases=BASES)
    assert (explained.status, explained.causes) == ("unknown", ())


def test_a_file_too_short_for_any_tensor(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(ROWS[0]["config"]))
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 48\n"
    (tmp_path / "adapter_model.safetensors").write_text(pointer)
    explained = explain_adapter(str(tmp_path), Request(offline=True), bases=BASES)
    assert (explained.status, [cause.code for cause in explained.causes]) == ("damaged", ["no_tensors"])


def test_a_stray_dtype_is_no_models(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({**ROWS[0]["config"], "torch_dtype": "auto"}))
    assert explain_adapter(str(tmp_path), Request(offline=True), bases=BASES).status == "unknown"  # PEFT ignores it


@pytest.mark.parametrize("revision", ["main", "", None])
def test_the_default_revision_is_none(revision, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({**ROWS[0]["config"], "revision": revision}))
    assert explain_adapter(str(tmp_path), Request(offline=True), bases=BASES).status == "unknown"


@pytest.mark.parametrize("revision", [-1, 1.5, True, [], {}])
def test_a_revision_that_is_no_text_is_refused(revision, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({**ROWS[0]["config"], "revision": revision}))
    with pytest.raises(InvalidLoraError, match="revision is"):
        explain_adapter(str(tmp_path), Request(offline=True), bases=BASES)


def test_a_subfolder_is_the_adapters_where_no_base_is_named(tmp_path):
    (tmp_path / "checkpoint-9").mkdir()
    (tmp_path / "checkpoint-9" / "adapter_config.json").write_text(json.dumps(ROWS[0]["config"]))
    explained = explain_adapter(str(tmp_path), Request(offline=True, subfolder="checkpoint-9"), bases=BASES)
    assert explained.adapter.id.endswith("checkpoint-9")
    assert explained.answer is not None
    with pytest.raises(NotFoundError, match="checkpoint-8"):
        explain_adapter(str(tmp_path), Request(offline=True, subfolder="checkpoint-8"), bases=BASES)


XLORA = {"peft_type": "XLORA", "hidden_size": 64, "adapters": {"0": "a", "1": "b", "2": "c", "3": "d"}}
TINY = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128}  # fmt: skip
UNKNOWN = "float32 is assumed"


@pytest.mark.parametrize(
    ("adapter", "base", "said", "unsaid"),
    [
        pytest.param({"peft_version": "0.21.2"}, {"dtype": "bfloat16"}, "a LoRA: layer 0 of the", UNKNOWN, id="a layer"),
        pytest.param(
            {"peft_version": "0.21.2", "xlora_depth": 3}, {}, "a LoRA: layers 0, 3 of the classifier", "", id="two layers"
        ),
        pytest.param({"peft_version": "0.19.1"}, {"dtype": "bfloat16"}, "260 elements in 2 tensors", UNKNOWN, id="none"),
        pytest.param({"peft_version": "0.19.1"}, {}, UNKNOWN, "leave out", id="a dtype that nothing says"),
        pytest.param(
            {"peft_type": "HRA", "target_modules": ["q_proj"], "r": 4}, {}, "256 elements in 1 tensor of", UNKNOWN,
            id="a dtype of its own, and one tensor",
        ),
    ],
)  # fmt: skip
def test_what_is_said_of_other_methods(adapter, base, said, unsaid, tmp_path):
    """What PEFT 0.21.2 saves of an X-LoRA with four LoRAs, and 0.19.1 did."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({**TINY, **base}))
    config = {**XLORA, **adapter, "base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    explained = explain_adapter(str(tmp_path), Request(offline=True))
    (named,) = explained.causes
    assert said in named.message
    assert not unsaid or unsaid not in named.message


KNOWN = "differs from what adapter_config.json implies, and it is known why"


@pytest.mark.parametrize(
    ("method", "dtype", "metadata", "headline"),
    [
        pytest.param("HRA", "float32", {"format": "pt"}, "is what adapter_config.json implies, to the byte",
                     id="as implied"),
        pytest.param("HRA", "float32", None, KNOWN, id="the same tensors under another header"),
        pytest.param("HRA", "bfloat16", {"format": "pt"}, KNOWN, id="narrower"),
        pytest.param("NOVEL", "float32", None, "adapter_config.json does not tell to the byte", id="an unknown method"),
    ],
)  # fmt: skip
def test_the_headline_of_other_methods(method, dtype, metadata, headline, tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({**TINY, "dtype": "bfloat16"}))
    config = {"peft_type": method, "target_modules": ["q_proj"], "r": 4}
    config["base_model_name_or_path"] = str(tmp_path / "base")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    name = "base_model.model.model.layers.0.self_attn.q_proj.hra_u"
    zeros = ctypes.create_string_buffer(64 * 4 * (4 if dtype == "float32" else 2))
    spec = TensorSpec(dtype=dtype, shape=[64, 4], data_ptr=ctypes.addressof(zeros), data_len=len(zeros))
    (tmp_path / "adapter_model.safetensors").write_bytes(serialize({name: spec}, metadata))
    document = explanation_document(explain_adapter(str(tmp_path), Request(offline=True)))
    assert headline in explanation_text(document).splitlines()[0]
