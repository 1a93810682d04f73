"""A base whose headers answer, whatever config.json says beside them."""

from __future__ import annotations

import gzip
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from estimator.architecture.from_config import from_config
from estimator.architecture.module import parameter_shapes
from estimator.errors import LoraSizeError, MalformedConfigError
from estimator.jobs.base import Base, BaseCache
from estimator.jobs.by_config import as_built
from estimator.jobs.estimate import estimate
from estimator.notes import Note
from estimator.report.document import to_document
from estimator.request.load_options import LoadOptions
from estimator.request.request import Request
from tests.hub.models import CONFIG, TINY, header_of, weights_file

FIXTURES = Path(__file__).parents[2] / "fixtures"


def document(folder: Path, **fields: Any) -> dict[str, Any]:
    file = weights_file(header_of(TINY))
    (folder / "model.safetensors").write_bytes(file.part(0, file.size - 1))
    (folder / "config.json").write_text(json.dumps({**CONFIG, **fields}))
    return to_document(estimate(Request(model=str(folder), lora={"target_modules": "all-linear"})))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"intermediate_size": None}, id="nothing"),
        pytest.param({"head_dim": -1}, id="below nought"),
        pytest.param({"attention_bias": "maybe"}, id="a word for yes or no"),
    ],
)
def test_a_config_that_cannot_be_compared_is_a_note(tmp_path: Path, fields: dict[str, Any]) -> None:
    good, odd = document(tmp_path), document(tmp_path, **fields)
    assert odd["adapter"] == good["adapter"]
    assert odd["cross_check"] == good["cross_check"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"intermediate_size": "wide"}, "is 'wide', which is no number", id="a word"),
        pytest.param({"vocab_size": [32000]}, r"is \[32000\], which is no number", id="a list"),
        pytest.param({"num_attention_heads": None}, "num_attention_heads is null, of which", id="null heads"),
        pytest.param({"num_attention_heads": 5}, "num_attention_heads is 5, of which", id="heads of no such width"),
    ],
)
def test_a_config_of_which_transformers_builds_nothing_is_refused_beside_headers(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(MalformedConfigError, match=said):
        document(tmp_path, **fields)
    notes = document(tmp_path, **fields, auto_map={"AutoConfig": "own.OwnConfig"})["notes"]
    assert "config_not_compared" in {note["code"] for note in notes}  # which its own code may take


def test_kinds_of_layers_for_another_number_of_them_are_refused_beside_headers(tmp_path: Path) -> None:
    """transformers 5.23.0, `PreTrainedConfig.validate_layer_type`: such a config does not load."""
    with pytest.raises(MalformedConfigError, match="layer_types has 5 entries, and num_hidden_layers is"):
        document(tmp_path, layer_types=["full_attention"] * 5)


LLAVA = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "text_config": {**CONFIG, "model_type": "llama"},
    "vision_config": {
        "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 16, "patch_size": 8, "projection_dim": 16,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "section", "fields", "refused"),
    [
        pytest.param(CONFIG, "speculator", {"model_type": "eagle", "dtype": "auto"}, False, id="of another's"),
        pytest.param(CONFIG, "text_config", {"dtype": "auto"}, False, id="of a class with a text model alone"),
        pytest.param(LLAVA, "audio_config", {"model_type": "whisper", "dtype": "auto"}, False, id="of no tower"),
        pytest.param(LLAVA, "text_config", {"dtype": "auto"}, True, id="of the text model"),
        pytest.param(LLAVA, "vision_config", {"torch_dtype": "bf16"}, True, id="of a tower, by a short name"),
    ],
)
def test_a_dtype_that_torch_lacks_is_refused_in_the_sections_of_the_class(
    tmp_path: Path, config: dict[str, Any], section: str, fields: dict[str, Any], refused: bool
) -> None:
    """transformers 5.23.0 makes configs of `sub_configs` alone, and getattr(torch, "auto") fails."""
    own = {**config, section: {**config.get(section, {}), **fields}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    with pytest.raises(MalformedConfigError, match=f"{section}.*dtype is") if refused else nullcontext():
        estimate(Request(model=str(tmp_path), lora={"target_modules": ["q_proj"]}))


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        pytest.param("model.safetensors", {}, None, id="found"),
        pytest.param("model.fp16.safetensors", {}, 'variant="fp16" has it read', id="a variant"),
        pytest.param("pytorch_model.safetensors", {}, "pytorch_model.safetensors was read here.", id="an older name"),
        pytest.param("own.safetensors", {"transformers_weights": "own.safetensors"}, None, id="config.json names it"),
        pytest.param(
            "own.safetensors", {"transformers_weights": None}, "finds no weights", id="config.json names none"
        ),
        pytest.param(
            "model.safetensors",
            {"transformers_weights": "own.safetensors"},
            "reads own.safetensors alone",
            id="config.json names another",
        ),
    ],
)
def test_weights_that_from_pretrained_does_not_look_for(
    tmp_path: Path, name: str, fields: dict[str, Any], said: str | None
) -> None:
    """transformers 5.23.0: OSError: Error no file named model.safetensors, or pytorch_model.bin, found."""
    document(tmp_path, **fields)
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    answer = to_document(estimate(Request(model=str(tmp_path), lora={"target_modules": "all-linear"})))
    notes = [note["message"] for note in answer["notes"] if note["code"] == "weights_not_found"]
    assert notes == [] if said is None else said in notes[0]


def test_older_weights_that_from_pretrained_loads_instead(tmp_path: Path) -> None:
    document(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model.fp16.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    notes = to_document(estimate(Request(model=str(tmp_path), lora={"target_modules": "all-linear"})))["notes"]
    assert any("loads pytorch_model.bin in this folder" in note["message"] for note in notes)


@pytest.mark.parametrize("headers", [True, False])
def test_code_of_its_own_beside_a_class_of_transformers_is_named(tmp_path: Path, headers: bool) -> None:
    code = {"auto_map": {"AutoModelForCausalLM": "modeling_own.LlamaForCausalLM"}}
    document(tmp_path, **code)
    if not headers:
        (tmp_path / "model.safetensors").unlink()
    base = BaseCache().base(Request(model=str(tmp_path)), None)
    assert base.tree.basis == "exact"
    assert [note.message for note in base.notes if note.code == "custom_code"] == [
        f"config.json names code of its own (auto_map); it was not run: {base.tree.architecture} is taken."
    ]


@pytest.mark.parametrize(
    ("kind", "named", "task", "built", "basis"),
    [
        pytest.param("llama", "LlamaForRewards", None, "LlamaForCausalLM", "inferred", id="no task: the model type's"),
        pytest.param("llama", "LlamaForRewards", "SEQ_CLS", "LlamaForSequenceClassification", "exact", id="the task's"),
        pytest.param("bloom", "BloomOfOurs", "SEQ_2_SEQ_LM", "BloomForCausalLM", "inferred", id="none for the task"),
        pytest.param("bloom", "BloomForCausalLM", "SEQ_2_SEQ_LM", "BloomForCausalLM", "exact", id="a known class"),
        pytest.param(
            "exaone", "ExaoneForCausalLM", "CAUSAL_LM", "LlamaForCausalLM", "exact", id="another type's class"
        ),
        pytest.param("exaone", "ExaoneForCausalLM", "SEQ_CLS", "LlamaForCausalLM", "inferred", id="not for the task"),
        pytest.param("exaone", "XForConditionalGeneration", None, "LlamaForCausalLM", "inferred", id="not of its kind"),
    ],
)
def test_a_class_that_nobody_knows_is_inferred_unless_a_task_chooses_its_own(
    tmp_path: Path, kind: str, named: str, task: str | None, built: str, basis: str
) -> None:
    fields = {"n_layer": 1, "num_hidden_layers": 1, "vocab_size": 101, "architectures": [named], "model_type": kind}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    tree = BaseCache().base(Request(model=str(tmp_path)), task).tree
    assert (tree.architecture, tree.basis) == (built, basis)
    assert any(note.code == "class_assumed" for note in tree.notes) == (basis == "inferred")


def test_a_head_of_code_of_its_own_is_inferred_where_transformers_has_no_class_with_it(tmp_path: Path) -> None:
    code = {"auto_map": {"AutoModelForTokenClassification": "modeling.LlamaTokens"}}
    document(tmp_path, **code, architectures=["CohereForCausalLM"], model_type="cohere")
    (tmp_path / "model.safetensors").unlink()
    tasks = (None, "CAUSAL_LM", "TOKEN_CLS")
    found = [BaseCache().base(Request(model=str(tmp_path)), task).tree.basis for task in tasks]
    assert found == ["exact", "exact", "inferred"]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        pytest.param({"architectures": ["NoSuchClass"], "model_type": "none"}, list(TINY), id="a class nobody knows"),
        pytest.param(
            {"architectures": ["BertForMaskedLM"], "model_type": "bert"},
            ["bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight"],
            id="positions without rows",
        ),
    ],
)
def test_weights_that_are_all_scalars_are_no_layers(tmp_path: Path, fields: dict[str, Any], names: list[str]) -> None:
    file = weights_file(header_of(dict.fromkeys(names, ("F32", ()))))
    (tmp_path / "model.safetensors").write_bytes(file.part(0, file.size - 1))
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **fields}))
    with pytest.raises(LoraSizeError) as refused:
        estimate(Request(model=str(tmp_path), lora={"target_modules": "all-linear"}))
    assert refused.value.code in ("no_target_modules", "malformed_header")


@pytest.mark.parametrize(
    ("tensors", "fields", "code", "said"),
    [
        pytest.param({}, {}, "malformed_header", "declares no tensor", id="no tensor at all"),
        pytest.param(
            {"model.layers.0.foo.weight": ("F32", (1,))},
            {"num_hidden_layers": 2, "intermediate_size": None},
            "no_target_modules",
            "is not whole",
            id="another model's, and no formula tells what is built",
        ),
    ],
)
def test_weights_without_the_layers_are_told_from_wrong_names(
    tmp_path: Path, tensors: dict[str, Any], fields: dict[str, Any], code: str, said: str
) -> None:
    file = weights_file(header_of(tensors))
    (tmp_path / "model.safetensors").write_bytes(file.part(0, file.size - 1))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | fields))
    with pytest.raises(LoraSizeError) as refused:
        estimate(Request(model=str(tmp_path), lora={"target_modules": ["q_proj"]}))
    assert refused.value.code == code
    assert said in str(refused.value)


def test_another_models_weights_are_a_model_made_anew_and_a_mismatch(tmp_path: Path) -> None:
    """transformers 5.23.0 loads nothing, warns, and PEFT adapts what the class is built of."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    request = Request(model=str(tmp_path), lora={"target_modules": ["q_proj"]})
    alone = to_document(estimate(request))
    file = weights_file(header_of({"foo.weight": ("F32", (1,))}))
    (tmp_path / "model.safetensors").write_bytes(file.part(0, file.size - 1))
    beside = to_document(estimate(request))
    assert beside["adapter"]["parameters"] == alone["adapter"]["parameters"]
    assert beside["cross_check"]["status"] == "mismatch"
    assert "made_anew" in {note["code"] for note in beside["notes"]}


@pytest.mark.parametrize(
    ("fields", "dtype"),
    [
        pytest.param({"torch_dtype": "float16"}, "F16", id="a dtype"),
        pytest.param({}, None, id="none"),
    ],
)
def test_without_headers_a_base_has_the_dtype_that_config_json_names(
    tmp_path: Path, fields: dict[str, Any], dtype: str | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "torch_dtype": None, **fields}))
    document = to_document(estimate(Request(model=str(tmp_path), lora={"target_modules": ["q_proj"]})))
    assert document["base"]["loaded"]["dtype"] == dtype
    assert (document["base"]["loaded"]["footprint_bytes"] is None) == (dtype is None)
    assert any(note["code"] == "stored_dtype_unknown" for note in document["notes"]) == (dtype is None)


@pytest.mark.parametrize(("part", "code"), [("buffers", "unsized_buffers"), ("parameters", "missing_tensors")])
def test_what_no_header_holds_and_no_rule_sizes_is_as_the_class_computes_it(part: str, code: str) -> None:
    (file,) = (FIXTURES / "architecture").glob("seamless_m4t_v2--*.json.gz")
    config = json.loads(gzip.decompress(file.read_bytes()))["config"]
    whole = from_config(config)
    bare = tuple(module._replace(**{part: ()}) for module in whole.modules)
    unsized = whole._replace(modules=bare, notes=(Note(code, "1 is missing"),))
    sized = as_built(unsized, config, None, None, parameter_shapes(whole.modules))
    assert sized.modules == whole.modules
    assert sized.notes == ()
    assert as_built(unsized._replace(notes=()), config, None, None).modules == whole.modules


def test_a_tasks_class_has_its_parts_whether_they_are_stored_or_not() -> None:
    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    fields = {
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "vocab_size": 10,
        "max_position_embeddings": 6,
    }
    config = {"architectures": ["MBartForCausalLM"], "model_type": "mbart", **sizes, **fields}
    whole = from_config(config, task="FEATURE_EXTRACTION")
    decoder = whole._replace(modules=tuple(m for m in whole.modules if not m.name.startswith("encoder")))
    assert whole.architecture == "MBartModel"
    assert as_built(decoder, config, "FEATURE_EXTRACTION", None).modules == whole.modules
    assert as_built(decoder, config, "FEATURE_EXTRACTION", None).lacking == ()
    own = as_built(decoder, {**config, "architectures": ["MBartModel"]}, "FEATURE_EXTRACTION", None)
    assert own.modules == whole.modules
    assert own.lacking[0] == "encoder.embed_positions.weight"  # of its own class the file is not whole


def test_a_batch_of_many_bases_keeps_the_last_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("estimator.jobs.base.MAX_KEPT", 3)
    bases = BaseCache()
    request = Request(model="openai-community/gpt2", offline=True)

    def kept(rows: int) -> Base:
        base = bases.base(request._replace(set={"vocab_size": rows}), None)
        bases.sizes(base, LoadOptions())
        bases.cross_check(base)
        bases.shape(base.tree)
        return base

    first, second = kept(101), kept(102)
    assert kept(101) is first
    for rows in (103, 104):
        kept(rows)
    assert kept(101) is first
    assert kept(102) is not second
    assert {len(store) for store in vars(bases).values()} == {3}
