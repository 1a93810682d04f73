"""What trainers save otherwise than PEFT: no embeddings beside an adapted output head, value heads in their own file."""

from __future__ import annotations

from pathlib import Path

import pytest

from estimator.jobs.estimate import estimate
from estimator.report.document import to_document
from estimator.request.request import Request

BASE = "meta-llama/Llama-2-7b-hf"
TORCHTUNE = """
model: {_component_: torchtune.models.llama2.lora_llama2_7b, lora_attn_modules: [q_proj], apply_lora_to_output: true}
"""
NEMO = """
model: {_target_: nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained, pretrained_model_name_or_path: a/b}
peft: {_target_: nemo_automodel.components._peft.lora.PeftConfig, dim: 8, match_all_linear: true}
"""
LITGPT = "checkpoint_dir: checkpoints/a/b\nlora_r: 8\nlora_head: true\n"
AXOLOTL = """
base_model: a/b
adapter: lora
lora_r: 8
lora_alpha: 8
lora_target_modules: [q_proj, lm_head]
micro_batch_size: 1
gradient_accumulation_steps: 1
"""


@pytest.mark.parametrize(
    ("text", "saved"),
    [
        pytest.param(TORCHTUNE, False, id="torchtune"),
        pytest.param(NEMO, False, id="NeMo"),
        pytest.param(LITGPT, False, id="litgpt"),
        pytest.param(AXOLOTL, True, id="Axolotl, through PEFT"),
    ],
)
def test_embeddings_beside_an_adapted_head(tmp_path: Path, text: str, saved: bool) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert ("embeddings" in _parts(Request(config=str(path), model=BASE, offline=True))) == saved


def test_what_the_user_says_wins(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(TORCHTUNE)
    said = Request(config=str(path), model=BASE, offline=True, save_embedding_layers="yes")
    assert "embeddings" in _parts(said)


@pytest.mark.parametrize("stage", ["rm", "ppo"])
def test_a_value_head_trains_and_is_not_in_the_file(tmp_path: Path, stage: str) -> None:
    path = tmp_path / "a.yaml"
    answers = []
    for name in ("sft", stage):
        path.write_text(f"model_name_or_path: a/b\nfinetuning_type: lora\ndo_train: true\nstage: {name}\n")
        answers.append(to_document(estimate(Request(config=str(path), model=BASE, offline=True))))
    plain, valued = (answer["adapter"] for answer in answers)
    assert valued["parameters"] - plain["parameters"] == 4096 + 1
    assert valued["file"] == plain["file"]
    assert [note["code"] for note in answers[1]["notes"]].count("value_head") == 1


def _parts(request: Request) -> set[str]:
    return {part["part"] for part in to_document(estimate(request))["adapter"]["parts"]}
