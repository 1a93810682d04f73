"""Switches of trainers' configs: words that are true or false, values that only the run knows, and what is neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from estimator.errors import UnsupportedError, UsageError
from estimator.request.files import read_config_file
from estimator.request.trainers.keys import Keys

FACTORY = "model_name_or_path: gpt2\nfinetuning_type: lora\n"
AXOLOTL = "base_model: gpt2\nadapter: lora\nlora_r: 8\nlora_alpha: 8\n"
V1 = "model: gpt2\nmodel_class: llm\npeft_config: {name: lora, use_dora: VALUE}\n"
NEMO = "model: {_target_: nemo_a, pretrained_model_name_or_path: gpt2}\npeft: {_target_: nemo_b, dim: 8}\n"
TORCHTUNE = "model: {_component_: torchtune.models.gemma.lora_gemma_2b, lora_attn_modules: [q_proj], use_dora: VALUE}\n"
AUTOTRAIN = "task: llm\nbase_model: gpt2\nparams: {peft: true, unsloth: VALUE}\n"

SWITCHES = {
    "LLaMA-Factory": FACTORY + "use_dora: VALUE\n",
    "its V1": V1,
    "its bf16": FACTORY + "bf16: VALUE\n",
    "Axolotl's towers": AXOLOTL + "freeze_mm_modules: VALUE\n",
    "Axolotl's rewards": AXOLOTL + "reward_model: VALUE\n",
    "Axolotl's bf16": AXOLOTL + "bf16: VALUE\n",
    "Axolotl's autocast": AXOLOTL + "peft_autocast_adapter_dtype: VALUE\n",
    "TRL": "model_name_or_path: gpt2\nuse_peft: true\nuse_dora: VALUE\n",
    "ms-swift": "model: gpt2\ntuner_type: lora\nuse_dora: VALUE\n",
    "torchtune": TORCHTUNE,
    "NeMo": NEMO + "freeze_config: {freeze_vision_tower: VALUE}\n",
    "NeMo's checkpointing": NEMO + "distributed: {activation_checkpointing: VALUE}\n",
    "AutoTrain": AUTOTRAIN,
    "Unsloth": "model: gpt2\ntraining: {training_type: lora}\nlora: {lora_r: 8, use_dora: VALUE}\n",
    "litgpt": "checkpoint_dir: a/gpt2\nlora_r: 8\nlora_key: VALUE\n",
}


@pytest.mark.parametrize("text", SWITCHES.values(), ids=SWITCHES)
@pytest.mark.parametrize(
    ("value", "error"),
    [
        ('"{{ x }}"', UnsupportedError),
        ('"${X}"', UnsupportedError),
        ('"$X"', UnsupportedError),
        ('"<yes or no>"', UnsupportedError),
        ('"yes please"', UsageError),
        ("[true]", UsageError),
        ("true", None),
        ('"False"', None),
        ("null", None),
    ],
)
def test_a_switch_is_true_or_false_or_refused(tmp_path: Path, text: str, value: str, error: type | None) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text.replace("VALUE", value))
    if error is None:
        read_config_file(str(path))
        return
    with pytest.raises(error):
        read_config_file(str(path))


@pytest.mark.parametrize(
    ("value", "on"),
    [
        *((word, True) for word in (True, 1, "true", "True", " yes ", "on", "1", "t", "Y")),
        *((word, False) for word in (False, 0, None, "false", "No", "off", "0", "f", "n", "", "none", "null")),
    ],
)
def test_words_of_a_switch(value: object, on: bool) -> None:
    assert Keys({"use_dora": value}, "a.yaml", {}).flag("use_dora") is on


@pytest.mark.parametrize(
    "text",
    [
        AXOLOTL.replace("lora_r: 8", "lora_r: {{ rank }}"),
        AXOLOTL.replace("lora_r: 8", 'lora_r: "{{ rank }}"'),
        AXOLOTL + "{% if towers %}\nfreeze_mm_modules: true\n{% endif %}\n",
        AXOLOTL + "lora_target_modules:\n  - {{ first }}\n",
        '{"base_model": "gpt2", "adapter": "lora", "lora_r": {{ rank }}}',
    ],
)
def test_a_template_is_known_once_it_is_rendered(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UnsupportedError, match="known only when"):
        read_config_file(str(path))


@pytest.mark.parametrize("text", [AXOLOTL + "lora_target_modules: [q_proj\n", AXOLOTL + "a: b: c  # {{ rank }}\n"])
def test_other_broken_files_stay_broken(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="broken YAML"):
        read_config_file(str(path))


@pytest.mark.parametrize(("option", "unread"), [("--lora-r 8", False), ("--lora_alpha 8", False), ("--lora_x 8", True)])
def test_options_of_autotrain_that_were_read_are_not_called_unread(tmp_path: Path, option: str, unread: bool) -> None:
    path = tmp_path / "run.sh"
    path.write_text(f"autotrain llm --train --model gpt2 --peft {option}\n")
    assert ("not_read" in {note.code for note in read_config_file(str(path)).notes}) == unread


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ("--task_type seq_cls --num_labels '<num-labels>'", "num_labels is '<num-labels>', which is known only when"),
        ("--use_swift_lora true", "layers of ms-swift's own"),
    ],
)
def test_what_is_not_counted_of_ms_swift(tmp_path: Path, options: str, what: str) -> None:
    path = tmp_path / "run.sh"
    path.write_text(f"swift sft --model gpt2 {options}\n")
    with pytest.raises(UnsupportedError, match=what):
        read_config_file(str(path))


@pytest.mark.parametrize(("options", "task"), [("--num_labels 3", "SEQ_CLS"), ("", "CAUSAL_LM")])
def test_labels_alone_make_a_classifier_of_ms_swift(tmp_path: Path, options: str, task: str) -> None:
    path = tmp_path / "run.sh"
    path.write_text(f"swift sft --model gpt2 {options}\n")
    assert read_config_file(str(path)).lora["task_type"] == task
