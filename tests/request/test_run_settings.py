"""Autocast, attention, loss and sharding of a training config, in the names of a plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from estimator.errors import UnsupportedError
from estimator.jobs.planning.training import training_from
from estimator.request.files import read_config_file
from estimator.request.trainers.run_settings import attention_of, autocast_of, strategy_of


@pytest.mark.parametrize(
    ("deepspeed", "fsdp", "strategy"),
    [
        (None, None, None),
        ("deepspeed_configs/zero2.json", None, "zero2"),
        ("examples/deepspeed/ds_z3_config.json", None, "zero3"),
        ("zero3_offload", None, "zero3"),
        ({"zero_optimization": {"stage": 1}}, None, "zero1"),
        ("my_config.json", None, None),
        (None, ["full_shard"], "fsdp"),
        (None, False, None),
    ],
)
def test_deepspeed_and_fsdp_settings_name_the_strategy(deepspeed: object, fsdp: object, strategy: str | None) -> None:
    assert strategy_of(deepspeed, fsdp) == strategy


@pytest.mark.parametrize(
    ("value", "attention"),
    [
        (None, None),
        ("auto", None),
        ("fa2", "flash_attention_2"),
        ("disabled", "eager"),
        ("sdpa", "sdpa"),
        ("odd", None),
    ],
)
def test_every_spelling_of_attention_is_one_of_three(value: object, attention: str | None) -> None:
    assert attention_of(value) == attention


@pytest.mark.parametrize(
    ("bf16", "fp16", "autocast"),
    [(True, False, "bf16"), ("auto", None, "bf16"), (False, True, "fp16"), (None, None, "no")],
)
def test_bf16_and_fp16_switches_name_the_autocast(bf16: object, fp16: object, autocast: str) -> None:
    assert autocast_of(bf16, fp16) == autocast


FIELDS = ("mixed_precision", "attention", "loss", "gpus", "strategy")
AXOLOTL = "base_model: gpt2\nadapter: lora\nlora_r: 4\nlora_alpha: 8\n"
FACTORY = "model_name_or_path: gpt2\nfinetuning_type: lora\n"
TUNE = "model: {_component_: torchtune.models.llama3.lora_llama3_8b, lora_attn_modules: [q_proj]}\n"


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        pytest.param("a.yaml", AXOLOTL + "bf16: auto\nflash_attention: true\ncut_cross_entropy: true\ndeepspeed: a/zero3.json\n",
                     ("bf16", "flash_attention_2", "fused", None, "zero3"), id="axolotl"),
        pytest.param("a.yaml", AXOLOTL, ("no", None, None, None, None), id="axolotl says nothing"),
        pytest.param("a.yaml", AXOLOTL + "liger_cross_entropy: true\n", ("no", None, "in_place", None, None),
                     id="axolotl, logits that are written over"),
        pytest.param("a.yaml", FACTORY + "bf16: true\nflash_attn: fa2\nenable_liger_kernel: true\n",
                     ("bf16", "flash_attention_2", "fused", None, None), id="llama-factory"),
        pytest.param("a.yaml", FACTORY + "pure_bf16: true\n", ("no", None, None, None, None), id="pure bf16 has no autocast"),
        pytest.param("a.sh", "trl sft --model_name_or_path gpt2 --use_peft --attn_implementation sdpa",
                     ("bf16", "sdpa", "in_rows", None, None), id="trl's bf16 is on, its logits are made in rows"),
        pytest.param("a.sh", "accelerate launch --config_file configs/deepspeed_zero3.yaml scripts/sft.py "
                     "--model_name_or_path gpt2 --use_peft --bf16 false", ("no", None, "in_rows", None, "zero3"), id="accelerate"),
        pytest.param("a.sh", "trl sft --model_name_or_path gpt2 --use_peft --loss_type nll",
                     ("bf16", None, None, None, None), id="trl, logits that are asked for whole"),
        pytest.param("a.sh", "trl sft --model_name_or_path gpt2 --use_peft --use_liger_kernel",
                     ("bf16", None, "fused", None, None), id="trl with Liger"),
        pytest.param("a.sh", "trl dpo --model_name_or_path gpt2 --use_peft", ("bf16", None, None, None, None),
                     id="trl's other methods have them whole"),
        pytest.param("a.sh", "trl sft --model_name_or_path gpt2 --use_peft --accelerate_config zero3",
                     ("bf16", None, "in_rows", 8, "zero3"), id="trl's own launcher"),
        pytest.param("a.yaml", "model_name_or_path: gpt2\nuse_peft: true\ndataset_name: a/b\naccelerate_config: fsdp2\n"
                     "num_processes: 4\n", ("bf16", None, "in_rows", 4, "fsdp"), id="in trl's YAML"),
        pytest.param("a.sh", "NPROC_PER_NODE=4 swift sft --model gpt2 --deepspeed zero2 --attn_impl flash_attn",
                     ("bf16", "flash_attention_2", None, 4, "zero2"), id="ms-swift"),
        pytest.param("a.yaml", TUNE + "loss: {_component_: torchtune.modules.loss.LinearCrossEntropyLoss}\n",
                     ("no", None, "chunked", None, None), id="torchtune"),
        pytest.param("a.yaml", "checkpoint_dir: checkpoints/a/b\nlora_r: 4\nprecision: bf16-mixed\ndevices: 2\n",
                     ("bf16", None, "chunked", 2, None), id="litgpt"),
    ],
)  # fmt: skip
def test_of_each_trainer(tmp_path: Path, name: str, text: str, values: tuple) -> None:
    path = tmp_path / name
    path.write_text(text)
    config = read_config_file(str(path))
    assert tuple(getattr(config, field) for field in FIELDS) == values


ZERO = FACTORY + "deepspeed: {zero_optimization: {stage: 3, %s: {device: %s}}}\n"
ALL = {"weights", "optimizer"}


@pytest.mark.parametrize(
    ("text", "said", "moved"),
    [
        (FACTORY + "deepspeed: examples/ds_z3_offload_config.json\n", ["examples/ds_z3_offload_config.json"], ALL),
        (FACTORY + "deepspeed: examples/ds_z2_offload_config.json\n", ["examples/ds_z2_offload_config.json"],
         {"optimizer"}),
        (ZERO % ("offload_optimizer", "cpu"), ["offload_optimizer"], {"optimizer"}),
        (ZERO % ("offload_param", "nvme"), ["offload_param"], {"weights"}),
        (ZERO % ("offload_optimizer", "none"), [], set()),
        (FACTORY + "deepspeed: examples/ds_z3_config.json\n", [], set()),
        (AXOLOTL + "fsdp_config: {fsdp_offload_params: true}\n", ["fsdp_offload_params"], ALL),
        (AXOLOTL + "fsdp_config: {offload_params: false}\n", [], set()),
        (FACTORY + "fsdp: full_shard offload\n", ["fsdp"], ALL),
        (FACTORY + "fsdp: [full_shard, auto_wrap]\n", [], set()),
        (TUNE + "fsdp_cpu_offload: true\n", ["fsdp_cpu_offload"], ALL),
    ],
)  # fmt: skip
def test_what_lies_on_the_cpu_is_said(tmp_path: Path, text: str, said: list[str], moved: set[str]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    read = read_config_file(str(path))
    assert [note.message.partition(" ")[0] for note in read.notes if note.code == "offloaded"] == said
    assert read.offloads == moved


def test_a_run_whose_memory_is_not_modelled(tmp_path: Path) -> None:
    path = tmp_path / "a.sh"
    path.write_text("megatron sft --model a/b --tuner_type lora")
    with pytest.raises(UnsupportedError):
        training_from(str(path), {})
