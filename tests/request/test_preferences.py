"""Which preference method a script is named for: by whole words, the first of a method; a reward serves others."""

from __future__ import annotations

import pytest

from estimator.request.files import read_config_file
from estimator.request.trainers.preferences import method_of

COMMAND = " --model_name_or_path gpt2 --use_peft --lora_r 8 --lora_target_modules c_attn"


@pytest.mark.parametrize(
    ("script", "method"),
    [
        ("trl dpo", "dpo"),
        ("dpo_vlm.py", "dpo"),
        ("run-dpo2.py", "dpo"),
        ("sft_for_dpo.py", "sft"),
        ("sdpo.py", None),
        ("reward_modeling.py", "reward"),
        ("train_lora_reward_grpo.py", "grpo"),
        ("rewarding.py", None),
        ("train.py", None),
    ],
)
def test_method(script: str, method: str | None) -> None:
    assert method_of(script) == method


@pytest.mark.parametrize(
    ("script", "task", "labels", "compares", "length"),
    [
        pytest.param("reward_modeling.py", "SEQ_CLS", 1, 2, 1024, id="a reward model"),
        pytest.param("train_lora_reward_grpo.py", "CAUSAL_LM", None, 0, None, id="GRPO by a reward"),
        pytest.param("sft_for_dpo.py", "CAUSAL_LM", None, 0, 1024, id="what comes before DPO"),
        pytest.param("dpo_online.py", "CAUSAL_LM", None, 2, None, id="online DPO generates its pairs"),
    ],
)
def test_a_script_of_trl(tmp_path, script: str, task: str, labels: int | None, compares: int, length) -> None:
    path = tmp_path / "run.sh"
    path.write_text(f"python {script}{COMMAND}\n")
    read = read_config_file(str(path))
    found = read.lora["task_type"], read.num_labels, read.compares, read.sequence_length
    assert found == (task, labels, compares, length)
