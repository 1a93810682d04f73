"""Axolotl's own fields: what is left unfrozen, and which of PEFT's fields have other names."""

from __future__ import annotations

from pathlib import Path

import pytest

from estimator.errors import LoraSizeError
from estimator.jobs.estimate import estimate
from estimator.request.request import Request


# Axolotl's freeze_layers_except on gpt2 under PEFT, whose parameters are base_model.model.transformer.h.0. ...
# LoRA of rank 8 on c_attn: 12 x 8 x (768 + 2,304) = 294,912; the embedding, which the head shares: 50,257 x 768.
@pytest.mark.parametrize(
    ("patterns", "base", "lora"),
    [
        ("[^transformer.wte.*, '^lm_head.*']", 0, 0),
        ("['^transformer.wte.weight$[:32000]']", 0, 0),
        ("[lora_, 'h.1[0-9]']", 0, 0),
        ("transformer.wte", 0, 0),
        ("[lm_head, ^base_model.model.lm_head]", 0, 0),  # named_parameters() has the embedding's name alone
        ("['base_model\\.model']", 0, 0),  # a backslash of one's own asks for a backslash in the name
        ("['base_model.model.transformer.wte.weight$[:32000]']", 38_597_376, 0),
        ("['base_model.model.transformer.h.[0-9]+.attn']", 12 * (768 * 2304 + 2304 + 768 * 768 + 768), 294_912),
        ("['.+lora_']", 0, 294_912),
        ("['.+lora_A', 'x']", 0, 12 * 8 * 768),
        ("['transformer|base_model']", 124_439_808, 294_912),
        ("['x?base_model']", 124_439_808, 294_912),
    ],
)
def test_what_axolotl_leaves_unfrozen(tmp_path: Path, patterns: str, base: int, lora: int):
    path = tmp_path / "axolotl.yaml"
    path.write_text(
        f"base_model: gpt2\nadapter: lora\nlora_target_modules: [c_attn]\nunfrozen_parameters: {patterns}\n"
    )
    answer = estimate(Request(config=str(path), offline=True))
    counted = answer.adaptation
    assert (counted.trainable_parameters, sum(m.parameters for m in counted.modules)) == (base + lora, lora)
    assert len(counted.tensors) == 24  # what is saved does not ask what trains
    said = {note.code for note in answer.notes}
    assert ("nothing_trains" in said, "base_trains" in said) == (base + lora == 0, base > 0)


@pytest.mark.parametrize("patterns", ["['a(']", "['base_model.model.lm_head[4:2]']"])
def test_patterns_that_axolotl_fails_on(tmp_path: Path, patterns: str) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text(
        f"base_model: gpt2\nadapter: lora\nlora_target_modules: [c_attn]\nunfrozen_parameters: {patterns}\n"
    )
    with pytest.raises(LoraSizeError) as caught:
        estimate(Request(config=str(path), offline=True))
    assert caught.value.code == "invalid_lora"


AXOLOTL = "base_model: Qwen/Qwen3-30B-A3B\nadapter: lora\nlora_r: 4\nlora_alpha: 8\n"


@pytest.mark.parametrize(
    ("fields", "parameters"),
    [
        # 48 layers: q 2048 -> 4096 and v 2048 -> 512 alone; then beside them what each field adds
        ("lora_target_modules: [q_proj, v_proj]", 48 * 4 * (2048 + 4096 + 2048 + 512)),
        ("lora_target_modules: [q_proj]\npeft_trainable_token_indices: [0, 1]", 48 * 4 * (2048 + 4096) + 2 * 2048),
        ("lora_target_modules: [q_proj]\npeft_layers_to_transform: [0, 1]", 2 * 4 * (2048 + 4096)),
        ("lora_target_modules: [q_proj]\npeft_layer_replication: [[0, 48], [0, 4]]", 52 * 4 * (2048 + 4096)),
        # 128 experts, gate and up fused at twice the rank: 8 x (2048 + 1536); down 4 x (768 + 2048); dropout as it may be
        ("lora_target_modules: [gate_proj, up_proj, down_proj]\nlora_dropout: 0.1",
         48 * 128 * (8 * (2048 + 1536) + 4 * (768 + 2048))),
        ("lora_target_modules: [q_proj]\nfreeze_mm_modules: true", 48 * 4 * (2048 + 4096)),
    ],
)  # fmt: skip
def test_fields_of_axolotl(tmp_path: Path, fields: str, parameters: int) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text(AXOLOTL + fields)
    assert estimate(Request(config=str(path), offline=True)).adaptation.trainable_parameters == parameters


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ("rl: cpo", "rl"),
        ("load_in_8bit: true\nlora_o_kernel: true", "lora_o_kernel"),
        ("load_in_4bit: true\nmodel_quantization_config: Mxfp4Config", "model_quantization_config"),
        ("unfrozen_parameters: [lora_]\npeft_layers_to_transform: [0]", "unfrozen_parameters"),
        ("lora_target_parameters: [mlp.experts.down_proj]\nlora_dropout: 0.1", "lora_dropout"),
    ],
)
def test_what_axolotl_refuses(tmp_path: Path, fields: str, where: str) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text(AXOLOTL + fields)
    with pytest.raises(LoraSizeError) as caught:
        estimate(Request(config=str(path), offline=True))
    assert caught.value.where.startswith(f"{where} in ")
