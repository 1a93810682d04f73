"""verl's and OpenRLHF's command lines: what of LoRA they ask for, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from estimator.errors import NoTargetModulesError, UnsupportedError, UsageError
from estimator.jobs.estimate import estimate
from estimator.request.commands.overrides import nested
from estimator.request.files import read_config_file
from estimator.request.request import Request

# Llama 3.1 8B, 32 layers of 4,096: the query, the value of 1,024, and all seven Linears.
QUERY, VALUE = 32 * (4096 + 4096), 32 * (4096 + 1024)
ALL = 2 * (QUERY + VALUE) + 32 * 3 * (4096 + 14336)
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
ACTOR = f"actor_rollout_ref.model.path={LLAMA}"
PPO = f"python3 -m verl.trainer.main_ppo {ACTOR} actor_rollout_ref.model.lora_rank=4"
TUNES = f"torchrun --nproc_per_node=2 -m verl.trainer.fsdp_sft_trainer model.partial_pretrain={LLAMA}"
SEES = "actor_rollout_ref.model.path=Qwen/Qwen2.5-VL-7B-Instruct actor_rollout_ref.model.lora_rank=64"
SFT = f"deepspeed --module openrlhf.cli.train_sft --model.model_name_or_path {LLAMA} --ds.lora.rank 4"
RAY = SFT.replace("deepspeed --module", "python -m").replace("train_sft", "train_ppo_ray")
HERE = """read -r -d '' training_commands <<EOF
openrlhf.cli.train_sft \\
    --pretrain $BASE \\
    --bf16 \\
    --lora_rank 4 \\
    --target_modules q_proj v_proj
EOF
[[ $1 != slurm ]] && deepspeed --module $training_commands
"""


def _written(folder: Path, text: str) -> str:
    path = folder / ("run.sh" if "=" in text or "--" in text else "run.yaml")
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        pytest.param(PPO, 4 * ALL, id="verl takes all Linears"),
        pytest.param(PPO + " actor_rollout_ref.model.target_modules='[q_proj,v_proj]'", 4 * (QUERY + VALUE),
                     id="a list of Hydra's"),
        pytest.param(PPO + " actor_rollout_ref.model.target_modules='.*q_proj'", 4 * QUERY, id="a regular expression"),
        pytest.param(PPO.replace("verl.trainer.main_ppo", "recipe.own.main"), 4 * ALL, id="a program built on verl's"),
        pytest.param(f"ray job submit -- {PPO.replace('=4', '=8')} +trainer.x=[a", 8 * ALL, id="behind Ray's own options"),
        pytest.param(f"MODEL=({ACTOR})\npython -m verl.trainer.main_ppo ${{MODEL[@]}} actor_rollout_ref.model.lora_rank=2",
                     2 * ALL, id="overrides in an array"),
        pytest.param(TUNES + " $@ model.lora_rank=4 model.target_modules=[q_proj]", 4 * QUERY, id="verl's supervised tuning"),
        pytest.param(f"python -m verl.trainer.main_ppo {SEES} actor_rollout_ref.model.exclude_modules='.*visual.*'",
                     28 * 64 * (2 * 7168 + 2 * 4096 + 3 * 22528), id="verl leaves a tower out"),
        pytest.param(f"actor_rollout_ref: {{model: {{path: {LLAMA}, lora_rank: 4}}}}", 4 * ALL, id="verl's YAML"),
        pytest.param(SFT, 4 * ALL, id="OpenRLHF takes all Linears"),
        pytest.param(SFT + " --ds.lora.target_modules q_proj", 4 * QUERY, id="one name is a list"),
        pytest.param(f"BASE={LLAMA}\n{HERE}", 4 * (QUERY + VALUE), id="in a here-document, by older names"),
        pytest.param(f"ray job submit --address=x -- python3 -m openrlhf.cli.train_ppo_ray --pretrain {LLAMA} --lora_rank 2",
                     2 * ALL, id="OpenRLHF's actor"),
    ],
)  # fmt: skip
def test_what_trains(tmp_path: Path, text: str, parameters: int) -> None:
    path = _written(tmp_path, text)
    assert estimate(Request(config=path, offline=True)).adaptation.trainable_parameters == parameters


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (PPO.replace("rank=4", "rank=0"), UsageError, "trains no LoRA"),
        (PPO.replace("_rank", ".rank"), UnsupportedError, "Megatron"),
        (PPO + " actor_rollout_ref.actor.strategy=megatron", UnsupportedError, "Megatron"),
        (
            f"defaults: [mine, _self_]\nactor_rollout_ref: {{model: {{path: {LLAMA}, lora_rank: 4}}}}",
            UnsupportedError,
            "from mine",
        ),
        (PPO + " --config-name=mine", UnsupportedError, "takes its options from mine"),
        (PPO.replace("=4", "=$RANK"), UnsupportedError, "known only when the command runs"),
        (PPO.replace("=4", "=many"), UsageError, "lora_rank is 'many'"),
        (PPO.replace("lora_rank=4", "lora_adapter_path=/x/y"), UnsupportedError, "goes on from /x/y"),
        ("actor_rollout_ref: {model: {lora_rank: 4}, actor: 1}", UsageError, "actor is 1"),
        (SFT.replace("rank 4", "rank 0"), UsageError, "trains none"),
        (SFT.replace("train_sft", "train_rm"), UnsupportedError, "head of its own"),
        (SFT + " --ds.lora.target_modules all-linear", NoTargetModulesError, "makes a list of all-linear"),
        (f"cat <<'EOF'\n{SFT}\nEOF", UsageError, "no command with options"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        estimate(Request(config=_written(tmp_path, text), offline=True))


FIELDS = ("base_precision", "adapter_dtype", "strategy", "gpus", "batch_size", "sequence_length")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (PPO + " trainer.n_gpus_per_node=2 data.max_prompt_length=5 data.max_response_length=6",
         ("float32", "float32", "fsdp", 2, None, 11)),
        (PPO + " actor_rollout_ref.actor.fsdp_config.model_dtype=bf16", ("bfloat16", "float32", "fsdp", 8, None, 1024)),
        (TUNES + " model.lora_rank=4 model.fsdp_config.model_dtype=bf16", ("bfloat16", "bfloat16", "fsdp", 2, 4, 1024)),
        (SFT, ("bfloat16", "bfloat16", "zero2", None, 8, 2048)),
        (SFT.replace("train_sft", "train_dpo"), ("bfloat16", "bfloat16", "zero2", None, 8, 512)),
        (RAY, ("bfloat16", "bfloat16", "zero2", 8, 1, 2048)),
        (RAY + " --prompt_max_len 4096 --generate_max_len 8192", ("bfloat16", "bfloat16", "zero2", 8, 4, 12288)),
        (RAY + " --generate_max_len 8192", ("bfloat16", "bfloat16", "zero2", 8, 4, 9216)),
        (RAY + " --generate_max_len 8192 --max_len 512", ("bfloat16", "bfloat16", "zero2", 8, 4, 512)),
        (RAY + " --actor_num_gpus_per_node 4 --actor_num_nodes 3", ("bfloat16", "bfloat16", "zero2", 12, 1, 2048)),
        (RAY + " --actor.num_gpus_per_node 2", ("bfloat16", "bfloat16", "zero2", 2, 1, 2048)),
        (RAY + " --train.dynamic_batch_enable", ("bfloat16", "bfloat16", "zero2", 8, 8, 2048)),
        (RAY + " --use_dynamic_batch --train_batch_size 32 --max_len 512", ("bfloat16", "bfloat16", "zero2", 8, 4, 512)),
        (SFT.replace("--module", "--num_gpus 4 --module"), ("bfloat16", "bfloat16", "zero2", 4, 8, 2048)),
        (SFT + " --ds.zero_stage 3 --train.micro_batch_size 2", ("bfloat16", "bfloat16", "zero3", None, 2, 2048)),
    ],
)  # fmt: skip
def test_how_it_runs(tmp_path: Path, text: str, values: tuple) -> None:
    config = read_config_file(_written(tmp_path, text))
    assert tuple(getattr(config, field) for field in FIELDS) == values


DYNAMIC = PPO + " actor_rollout_ref.actor.use_dynamic_bsz=True"
SHARDS = "actor_rollout_ref.actor.fsdp_config"
ENGINE = f"torchrun --nproc_per_node=2 -m verl.trainer.sft_trainer model.path={LLAMA} model.lora_rank=4"


@pytest.mark.parametrize(
    ("text", "values", "notes"),
    [
        pytest.param(PPO + " actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2 trainer.nnodes=3", (2, 1024, 24), [],
                     id="GPUs of all machines"),
        pytest.param(DYNAMIC, (16, 1024, 8), ["filled_by_tokens"], id="16,384 tokens"),
        pytest.param(DYNAMIC + " actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4000", (4, 1024, 8), ["filled_by_tokens"],
                     id="a part of an example more"),
        pytest.param(DYNAMIC + " actor_rollout_ref.actor.ppo_max_token_len_per_gpu=131072", (32, 1024, 8),
                     ["filled_by_tokens"], id="all of a step, 256 on 8 GPUs"),
        pytest.param(DYNAMIC + " actor_rollout_ref.actor.ppo_max_token_len_per_gpu=131072 actor_rollout_ref.rollout.n=8",
                     (128, 1024, 8), ["filled_by_tokens"], id="eight answers to each"),
        pytest.param(DYNAMIC + " actor_rollout_ref.model.use_remove_padding=False", (16, 1024, 8),
                     ["filled_by_tokens", "padded"], id="padded examples"),
        pytest.param(DYNAMIC.replace("True", "$DYNAMIC"), (None, 1024, 8), ["not_known"], id="a switch that a run knows"),
        pytest.param(PPO + " actor_rollout_ref.actor.ppo_micro_batch_size=16", (2, 1024, 8), [], id="of all GPUs"),
        pytest.param(PPO + f" {SHARDS}.param_offload=True {SHARDS}.optimizer_offload=True", (None, 1024, 8), ["offloaded"],
                     id="moved between steps"),
        pytest.param(PPO + f" {SHARDS}.offload_policy=True", (None, 1024, 8), ["offloaded"], id="always on the CPU"),
        pytest.param(PPO + f" {SHARDS}.fsdp_size=4", (None, 1024, 4), ["fsdp_size"], id="cut over four GPUs"),
        pytest.param(PPO + " actor_rollout_ref.actor.ulysses_sequence_parallel_size=2", (None, 1024, 8),
                     ["sequence_parallel"], id="examples are cut"),
        pytest.param(ENGINE, (8, 1024, 2), ["filled_by_tokens"], id="the engine fills 8,192 tokens"),
        pytest.param(ENGINE + " data.train_batch_size=8", (4, 1024, 2), ["filled_by_tokens"], id="or half of a step"),
        pytest.param(ENGINE + " data.use_dynamic_bsz=False", (4, 1024, 2), [], id="or takes four examples"),
        pytest.param(TUNES + " model.lora_rank=4 trainer.n_gpus_per_node=8", (4, 1024, 2), [], id="torchrun decides"),
    ],
)  # fmt: skip
def test_what_a_step_of_verl_holds(tmp_path: Path, text: str, values: tuple, notes: list[str]) -> None:
    config = read_config_file(_written(tmp_path, text))
    assert (config.batch_size, config.sequence_length, config.gpus) == values
    assert [note.code for note in config.notes if note.code != "own_file"] == notes


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["a.b=1", "~a.b", "a.c=2"], {"a": {"c": 2}}),
        (["a.b=1", "~a"], {}),
        (["a.b=1", "~a.b=1"], {"a": {}}),
        (["a.b=1", "~a.c", "~d", "~/e"], {"a": {"b": 1}}),
        (["~a.b", "a.b=1"], {"a": {"b": 1}}),
        (["a.b=1", "+a.c=[x,'y']", "++d=null", "e"], {"a": {"b": 1, "c": ["x", "y"]}, "d": None}),
        (["a=1", "a.b=2"], {"a": {"b": 2}}),
        (["a=" + "[" * 1100, "b=.*x", "c="], {"a": "[" * 1100, "b": ".*x", "c": ""}),
    ],
)
def test_overrides_are_sections(words: list[str], values: dict) -> None:
    assert nested(words) == values


def test_a_deletion_of_another_value_is_refused() -> None:
    with pytest.raises(UsageError, match="to be deleted as '2'"):
        nested(["a.b=1", "~a.b=2"])
