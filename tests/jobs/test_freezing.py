"""Adapters of which a trainer freezes a part by name: what trains, what is saved, what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from estimator.errors import InvalidLoraError, MalformedConfigError, UnsupportedError
from estimator.jobs.checking.check import check
from estimator.jobs.estimate import estimate
from estimator.jobs.planning.plan import plan
from estimator.report.document import to_document
from estimator.request.request import Request
from estimator.sizes.memory.training import Training

PARTS = {"lora", "dora", "bias", "saved_modules", "trainable_tokens", "embeddings"}
NEMO = (
    "model: {_target_: nemo_a, pretrained_model_name_or_path: google/gemma-3-4b-it}\n"
    "peft: {_target_: nemo_b, target_modules: ['*q_proj'], dim: 8}\n"
)
TEXT, VISION = 34 * 8 * (2560 + 2048), 27 * 8 * (1152 + 1152)  # Gemma 3 4B's layers; its tower's
AUTOTRAIN = (
    "task: vlm:captioning\nbase_model: google/gemma-3-4b-it\n"
    "params: {peft: true, lora_r: 8, quantization: null, target_modules: q_proj}\n"
)
WTE = 50_257 * 768
GPT2 = "base_model: gpt2\nadapter: lora\nlora_r: 8\nlora_alpha: 8\nlora_target_modules: [c_attn]\n"


def written(folder: Path, text: str) -> str:
    path = folder / "a.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "trained", "saved", "notes"),
    [
        (AUTOTRAIN, TEXT, TEXT + VISION, {"frozen_saved": f"{VISION:,} parameters"}),
        (NEMO + "freeze_config: {freeze_vision_tower: true}\n", TEXT, TEXT + VISION, {"frozen_saved": f"{VISION:,} parameters"}),
        (NEMO + "freeze_config: {freeze_vision_tower: false}\n", TEXT + VISION, TEXT + VISION, {}),
        (NEMO.replace("'*q", "'*vision*q") + "freeze_config: {freeze_vision_tower: true}\n", 0, VISION,
         {"nothing_trains": "The trainer freezes"}),
        (GPT2 + "unfrozen_parameters: [lora_]\n", 0, 294_912, {"nothing_trains": "unfrozen_parameters"}),
        (GPT2 + "unfrozen_parameters: ['.+lora_A']\n", 73_728, 294_912, {"frozen_saved": "221,184 parameters"}),
        (GPT2 + "unfrozen_parameters: ['.+wte']\n", 50_257 * 768, 294_912,
         {"base_trains": "38,597,376", "frozen_saved": "294,912 parameters"}),
    ],
)  # fmt: skip
def test_what_trains_beside_what_is_saved(tmp_path: Path, text: str, trained: int, saved: int, notes: dict) -> None:
    document = to_document(estimate(Request(config=written(tmp_path, text), offline=True)))
    adapter = document["adapter"]
    assert adapter["parameters"] == trained
    assert sum(dtype["elements"] for dtype in adapter["file"]["dtypes"].values()) == saved
    assert {part["part"] for part in adapter["parts"]} <= PARTS
    said = {n["code"]: n["message"] for n in document["notes"]}
    assert said.keys() & {"nothing_trains", "base_trains", "frozen_saved"} == notes.keys()
    assert all(words in said[code] for code, words in notes.items())


@pytest.mark.parametrize(
    ("text", "added", "gradients", "moments"),
    [
        (AUTOTRAIN, 4 * (TEXT + VISION), 4 * TEXT, 8 * TEXT + 68 * 4),
        (NEMO + "freeze_config: {freeze_vision_tower: true}\n", 2 * (TEXT + VISION), 2 * TEXT, 4 * TEXT + 68 * 4),
        (GPT2 + "unfrozen_parameters: ['.+lora_A']\n", 4 * 294_912, 4 * 73_728, 8 * 73_728 + 12 * 4),
        (GPT2 + "unfrozen_parameters: ['.+wte']\n", 4 * 294_912, 2 * WTE, 4 * WTE + 4),
        (GPT2 + "unfrozen_parameters: ['.+wte', '.+lora_']\n", 4 * 294_912, 2 * WTE + 4 * 294_912,
         4 * WTE + 8 * 294_912 + 25 * 4),
        (GPT2 + "unfrozen_parameters: ['.+lora_']\n", 4 * 294_912, 4 * 294_912, 8 * 294_912 + 24 * 4),
    ],
)  # fmt: skip
def test_the_memory_of_what_is_frozen_in_part(
    tmp_path: Path, text: str, added: int, gradients: int, moments: int
) -> None:
    """Frozen parts stay in memory without gradient and moments; what trains of the base has both, in its own dtype."""
    request = Request(config=written(tmp_path, text), offline=True, dtype="bf16")
    parts = {part.name: part for part in plan(request, Training()).memory.components}
    exact = (parts[name] for name in ("adapter weights", "gradients", "optimizer state"))
    assert [(part.lower_bytes, part.basis) for part in exact] == [(n, "exact") for n in (added, gradients, moments)]


@pytest.mark.parametrize("text", [NEMO, AUTOTRAIN])
def test_a_tower_whose_lora_is_frozen_sees_no_pieces(tmp_path: Path, text: str) -> None:
    """Nothing is kept of it: how many pieces it sees does not matter."""
    notes = {note.code for note in plan(Request(config=written(tmp_path, text), offline=True), Training()).notes}
    assert bool(notes & {"pieces_counted", "inputs_not_tokens"}) == (text is NEMO)


@pytest.mark.parametrize(
    ("rows", "counted"),
    [
        ("[:8]", True),
        ("[8]", False),
        ("[7]", True),
        ("[:9]", False),
        ("[4:]", True),
        ("[8:]", False),
        ("[]", True),
        ("[0:8]", True),
        ("[4:4]", False),
    ],
)
def test_rows_that_axolotl_leaves_unfrozen_are_there(tmp_path: Path, rows: str, counted: bool) -> None:
    """lora_A of rank 8 has 8 rows; axolotl 0.18.0, utils/freeze.py, _merge_ranges."""
    request = Request(config=written(tmp_path, f"{GPT2}unfrozen_parameters: ['.+lora_A.+{rows}']\n"), offline=True)
    if counted:
        assert estimate(request).adaptation.trainable_parameters == 73_728
        return
    with pytest.raises(InvalidLoraError):
        estimate(request)


@pytest.mark.parametrize(
    ("targets", "fields", "error"),
    [
        ("*vision*k_proj", {"text_config.num_kv_shared_layers": 4}, None),  # of 34; the tower has 27
        ("*vision*k_proj", {"text_config.num_kv_shared_layers": 10}, UnsupportedError),  # 24 to 33, the tower's too
        ("*vision*layers.1?.self_attn.k_proj",
         {"text_config.num_kv_shared_layers": 2, "text_config.num_hidden_layers": 10}, None),
        ("*language*k_proj", {"text_config.num_kv_shared_layers": 4}, UnsupportedError),
        ("*k_proj", {"text_config.num_kv_shared_layers": "10"}, MalformedConfigError),
        ("*k_proj", {"text_config.num_kv_shared_layers": [1]}, MalformedConfigError),
        ("*k_proj", {"text_config.num_kv_shared_layers": None}, None),
    ],
)  # fmt: skip
def test_layers_whose_keys_nemo_freezes(tmp_path: Path, targets: str, fields: dict, error: type | None) -> None:
    """components/utils/model_utils.py, freeze_unused_kv_sharing_params: by a layer's number, anywhere in a name."""
    request = Request(config=written(tmp_path, NEMO.replace("*q_proj", targets)), offline=True, set=fields)
    if error is None:
        assert estimate(request).adaptation.trainable_parameters
        return
    with pytest.raises(error):
        estimate(request)


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        (GPT2 + 'peft_use_dora: "{{ dora }}"\n', "skipped", "unsupported"),
        (GPT2.replace("lora_r: 8", "lora_r: {{ rank }}"), "skipped", "unsupported"),
        (GPT2.replace("lora_r: 8", 'lora_r: "{{ rank }}"'), "skipped", "unsupported"),
        (GPT2.replace("gpt2", "nobody/has-such-a-model"), "skipped", "base_unknown"),
        (GPT2.replace("gpt2", "$BASE"), "skipped", "base_unknown"),
        (GPT2 + 'peft_use_dora: "yes please"\n', "failed", "usage"),
        (NEMO + "freeze_config: {freeze_modules: ['*visual*']}\n", "skipped", "unsupported"),
        (GPT2 + "unfrozen_parameters: [lora_]\n", "failed", "nothing_trains"),
    ],
)
def test_what_a_check_calls_it(tmp_path: Path, text: str, status: str, code: str) -> None:
    (row,) = check([written(tmp_path, text)])
    assert (row.status, [problem.code for problem in row.problems]) == (status, [code])
