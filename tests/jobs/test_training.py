"""How a run trains: what a trainer's file says of it, and what the options beside it do."""

from __future__ import annotations

import pytest

from estimator.jobs.estimate import estimate, with_config_file
from estimator.jobs.planning.training import _optimizer, training_from
from estimator.request.request import Request
from estimator.sizes.memory.training import TODAY, Training

AXOLOTL = """base_model: NousResearch/Llama-3.2-1B
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_linear: true
sequence_len: 2048
micro_batch_size: 3
gradient_accumulation_steps: 2
gradient_checkpointing: true
optimizer: adamw_bnb_8bit
datasets: []
"""


def test_a_trainers_file_says_how_it_trains(tmp_path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text(AXOLOTL)
    training, notes = training_from(str(path), {"batch_size": 5})
    assert training.batch_size == 5  # what is given beside it wins
    assert (training.sequence_length, training.optimizer) == (2048, "adamw_bnb_8bit")
    assert training.gradient_checkpointing
    assert [note.code for note in notes] == ["training_from_config"]


def test_a_trainers_file_is_read_once(tmp_path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text(AXOLOTL)
    filled = with_config_file(Request(model="llama-3.2-1b", config=str(path), offline=True))
    path.unlink()
    assert estimate(filled).adaptation.trainable_parameters == 11_272_192  # 16 x (in + out), summed over 112 matrices


@pytest.mark.parametrize(
    ("config", "drops"),
    [
        pytest.param(AXOLOTL, True, id="axolotl, on transformers' Trainer"),
        pytest.param(
            "model:\n  model_name: a/b\ntraining:\n  use_peft: true\n", False, id="oumi, which has loops of its own"
        ),
    ],
)
def test_a_loop_that_hands_back_the_loss_alone_holds_no_logits(tmp_path, config: str, drops: bool) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(config)
    assert training_from(str(path), {})[0].drops_outputs is drops


FACTORY = "model_name_or_path: gpt2\nfinetuning_type: lora\nlora_target: c_attn\nenable_liger_kernel: true\nstage: "


OUMI = "model:\n  model_name: a/b\ntraining:\n  use_peft: true\n  trainer_type: "
TUNE = """model: {_component_: torchtune.models.llama3_1.lora_llama3_1_8b, lora_rank: 8, lora_attn_modules: [q_proj]}
loss: {_component_: torchtune.rlhf.loss.DPOLoss}
"""
AUTOTRAIN = "task: llm\nbase_model: gpt2\nparams: {peft: true, quantization: none, block_size: 512, trainer: METHOD}\n"
H2O = "problem_type: text_dpo_modeling\nllm_backbone: gpt2\narchitecture: {backbone_dtype: bfloat16}\ntraining: {lora: true"
OPENRLHF = "python -m openrlhf.cli.train_dpo --pretrain gpt2 --lora_rank 8"


@pytest.mark.parametrize(
    ("name", "config", "compares", "beside", "loss"),
    [
        pytest.param("a.yaml", AXOLOTL + "rl: dpo\n", 2, "reference", "standard", id="axolotl, DPO"),
        pytest.param("a.yaml", AXOLOTL + "rl: kto\n", 1, "reference", "standard", id="axolotl, KTO: one answer each"),
        pytest.param("a.yaml", AXOLOTL + "rl: simpo\n", 2, "chosen", "standard", id="axolotl, SimPO"),
        pytest.param("a.yaml", AXOLOTL + "reward_model: true\n", 2, None, "standard", id="axolotl, a reward model"),
        pytest.param("a.yaml", AXOLOTL + "rl: grpo\n", 0, None, "standard", id="axolotl, GRPO"),
        pytest.param("f.yaml", FACTORY + "sft\n", 0, None, "fused", id="LLaMA-Factory"),
        pytest.param("f.yaml", FACTORY + "dpo\n", 2, "reference", "standard", id="LLaMA-Factory's DPO: whole logits"),
        pytest.param("f.yaml", FACTORY + "dpo\npref_loss: orpo\n", 2, None, "standard", id="LLaMA-Factory, ORPO"),
        pytest.param("f.yaml", FACTORY + "rm\n", 2, None, "standard", id="LLaMA-Factory, a reward model"),
        pytest.param("f.yaml", FACTORY + "kto\n", 1, "reference", "standard", id="LLaMA-Factory, KTO"),
        pytest.param("t.sh", "trl dpo --model_name_or_path gpt2 --use_peft", 2, "reference", "standard", id="trl dpo"),
        pytest.param("t.sh", "trl reward --model_name_or_path gpt2 --use_peft", 2, None, "standard", id="trl reward"),
        pytest.param("t.sh", "trl sft --model_name_or_path gpt2 --use_peft", 0, None, "in_rows", id="trl sft"),
        pytest.param("s.sh", "swift rlhf --rlhf_type orpo --model a/b", 2, "chosen", "standard", id="swift, ORPO"),
        pytest.param("s.sh", "swift sft --model Qwen/Qwen2.5-7B", 0, None, "standard", id="swift sft"),
        pytest.param("o.yaml", OUMI + "TRL_DPO\n", 2, "reference", "standard", id="Oumi, DPO"),
        pytest.param("o.yaml", OUMI + "TRL_KTO\n", 1, "reference", "standard", id="Oumi, KTO"),
        pytest.param("o.yaml", OUMI + "TRL_SFT\n", 0, None, "in_rows", id="Oumi, SFT"),
        pytest.param("t.yaml", TUNE, 2, "reference", "standard", id="torchtune, DPO"),
        pytest.param("a.yaml", AUTOTRAIN.replace("METHOD", "dpo"), 2, "reference", "standard", id="AutoTrain, DPO"),
        pytest.param("a.yaml", AUTOTRAIN.replace("METHOD", "sft"), 0, None, "standard", id="AutoTrain, SFT"),
        pytest.param("a.yaml", AUTOTRAIN.replace("llm", "llm-orpo"), 2, "chosen", "standard", id="AutoTrain, by task"),
        pytest.param("h.yaml", H2O + "}\n", 2, "reference", "standard", id="H2O, DPO"),
        pytest.param("h.yaml", H2O + ", loss_function: SimPOLoss}\n", 2, None, "standard", id="H2O, SimPO"),
        pytest.param("o.sh", OPENRLHF, 2, "reference", "standard", id="OpenRLHF, DPO"),
    ],
)
def test_a_preference_stage_has_two_sequences_an_example(
    tmp_path, name: str, config: str, compares: int, beside: str | None, loss: str
) -> None:
    path = tmp_path / name
    path.write_text(config)
    training, notes = training_from(str(path), {})
    assert (training.compares, training.beside, training.loss) == (compares, beside, loss)
    said = [note.message for note in notes if note.code == "compares"]
    assert (len(said), "logits of a reference" in "".join(said)) == (compares > 0, beside == "reference")


UNSLOTH = "model: gpt2\ntraining: {gradient_checkpointing: VALUE}\nlora: {lora_r: 4}\n"
TORCHTUNE = """model: {_component_: torchtune.models.llama3_1.lora_llama3_1_8b, lora_rank: 8, lora_attn_modules: [q_proj]}
enable_activation_checkpointing: true
enable_activation_offloading: VALUE
"""
LLAMA_FACTORY = (
    "model_name_or_path: gpt2\nstage: sft\nfinetuning_type: lora\nlora_target: c_attn\nuse_unsloth_gc: VALUE\n"
)
TRL = "model_name_or_path: gpt2\nuse_peft: true\nlora_r: 8\ndataset_name: a/b\nactivation_offloading: VALUE\n"


@pytest.mark.parametrize(
    ("config", "value", "away"),
    [
        pytest.param(AXOLOTL.replace("checkpointing: true", "checkpointing: VALUE"), "offload", True, id="axolotl's old key"),
        pytest.param(AXOLOTL.replace("checkpointing: true", "checkpointing: VALUE"), "true", False, id="axolotl without it"),
        pytest.param(AXOLOTL + "activation_offloading: VALUE\n", "legacy", True, id="axolotl's new key"),
        pytest.param(AXOLOTL + "activation_offloading: VALUE\n", "false", False, id="axolotl's new key off"),
        pytest.param(UNSLOTH, "unsloth", True, id="Unsloth's own checkpointing"),
        pytest.param(UNSLOTH, "true", False, id="Unsloth with transformers' checkpointing"),
        pytest.param(TORCHTUNE, "true", True, id="torchtune"),
        pytest.param(TORCHTUNE, "false", False, id="torchtune without it"),
        pytest.param(LLAMA_FACTORY, "true", True, id="LLaMA-Factory"),
        pytest.param(LLAMA_FACTORY, "false", False, id="LLaMA-Factory without it"),
        pytest.param(TRL, "true", True, id="TRL"),
        pytest.param(TRL, "false", False, id="TRL without it"),
    ],
)  # fmt: skip
def test_inputs_of_checkpointed_layers_that_lie_on_the_host(tmp_path, config: str, value: str, away: bool) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(config.replace("VALUE", value))
    training, notes = training_from(str(path), {})
    assert training.gradient_checkpointing
    assert (training.software or TODAY).offloads_inputs is away
    assert ("activations_offloaded" in [note.code for note in notes]) is away


def test_torchtune_without_checkpointing_is_not_taken_for_litgpt(tmp_path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(TORCHTUNE.replace("checkpointing: true", "checkpointing: false").replace("VALUE", "false"))
    assert training_from(str(path), {})[0].software == TODAY


def test_a_file_that_limits_no_sequence_says_what_is_taken(tmp_path) -> None:
    path = tmp_path / "torchtune.yaml"
    path.write_text("model:\n  _component_: torchtune.models.llama3_1.lora_llama3_1_8b\n  lora_rank: 8\n"
                    "  lora_attn_modules: [q_proj]\ntokenizer:\n  max_seq_len: null\nbatch_size: 2\n")  # fmt: skip
    codes = [[note.code for note in training_from(str(path), given)[1]] for given in ({}, {"sequence_length": 512})]
    assert codes == [["training_from_config", "length_assumed"], ["training_from_config"]]


@pytest.mark.parametrize(
    ("start", "given", "codes"),
    [
        pytest.param("accelerate launch --config_file zero3.yaml", {}, ["gpus_assumed"], id="accelerate's own file"),
        pytest.param("accelerate launch --config_file zero3.yaml", {"gpus": 4}, [], id="the option says it"),
        pytest.param("accelerate launch --config_file zero3.yaml --num_processes 8", {}, [], id="the launcher says it"),
        pytest.param("accelerate launch", {}, [], id="nothing is cut"),
    ],
)
def test_a_run_that_cuts_the_model_says_over_how_many_gpus(tmp_path, start: str, given: dict, codes: list) -> None:
    path = tmp_path / "a.sh"
    path.write_text(f"{start} scripts/sft.py --model_name_or_path gpt2 --use_peft --max_length 64")
    assert [note.code for note in training_from(str(path), given)[1]][1:] == codes


@pytest.mark.parametrize(
    ("name", "optim"),
    [
        pytest.param("torch.optim.AdamW", "adamw_torch", id="torchtune"),
        pytest.param("bitsandbytes.optim.PagedAdamW8bit", "paged_adamw_8bit", id="bitsandbytes"),
        pytest.param("adamw_bnb_8bit", "adamw_bnb_8bit", id="transformers' own name"),
    ],
)
def test_optimizers_that_are_named_by_their_class(name: str, optim: str) -> None:
    assert _optimizer(name) == optim


def test_without_a_file_the_librarys_defaults_hold() -> None:
    assert training_from(None, {"batch_size": None}) == (Training(), ())
