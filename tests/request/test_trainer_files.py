"""Files of trainers that no fixture holds: how each is told, and what its LoRA counts by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from estimator.jobs.estimate import estimate
from estimator.request.request import Request

QWEN = "Qwen/Qwen2.5-7B-Instruct"
# r · (in + out) of 28 layers: q, k and v, gate and up are one Linear each of Megatron's, which PEFT finds apart.
FUSED = 28 * 8 * ((3584 + 4608) + 2 * 3584 + (3584 + 2 * 18944) + (18944 + 3584))
APART = FUSED + 28 * 8 * 3 * 3584


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        pytest.param("tuner_type: lora\nper_device_train_batch_size: 1\n", APART, id="swift sft"),
        pytest.param("tuner_type: lora\nmicro_batch_size: 1\n", FUSED, id="megatron sft"),
        pytest.param(
            "rlhf_type: gkd\nlora_rank: 4\ntrain: {gpus: 4, tuner_type: lora, lora_rank: 8}\n", FUSED, id="Ray"
        ),
    ],
)
def test_whose_layers_a_yaml_of_ms_swift_adapts(tmp_path: Path, text: str, parameters: int) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"model: {QWEN}\n{text}")
    assert estimate(Request(config=str(path), offline=True)).adaptation.trainable_parameters == parameters
