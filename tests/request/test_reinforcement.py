"""verl's and OpenRLHF's command lines: what of LoRA they ask for, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from estimator.errors import NoTargetModulesError, UnsupportedError, UsageError
from estimator.jobs.estimate import estimate
from estimator.request.files import read_config_file
from estimator.request.overrides import nested
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
        (PPO + " --config-name=mine", UnsupportedError, "takes its options from mine"),
        (PPO.replace("=4", "=$RANK"), UnsupportedError, "known only when the command runs"),
        (PPO.replace("=4", "=many"), UsageError, "lora_rank is 'many'"),
        (PPO.replace("lora_rank=4", "lora_adapter_path=/x/y"), UnsupportedError, "goes on from /x/y"),
        ("actor_rollout_ref: {model: {lora_rank: 4}, actor: 1}", UsageError, "actor is 1"),
        (SFT.replace("rank 4", "rank 0"), UsageError, "trains none"),
        (SFT.replace("train_sft", "train_rm"), UnsupportedError, "head of its own"),
        (SFT + " --ds.lora.target_modules all-linear", NoTargetModulesError, "all-linear"),
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
        (PPO + " actor_rollout_ref.actor.fsdp_config.model_dtype=bf16", ("bfloat16", "float32", "fsdp", None, None, None)),
        (TUNES + " model.lora_rank=4 model.fsdp_config.model_dtype=bf16", ("bfloat16", "bfloat16", "fsdp", 2, 4, 1024)),
        (SFT, ("bfloat16", "bfloat16", "zero2", None, 8, 2048)),
        (SFT.replace("train_sft", "train_ppo_ray"), ("bfloat16", "bfloat16", "zero2", None, 1, 2048)),
        (SFT + " --ds.zero_stage 3 --train.micro_batch_size 2", ("bfloat16", "bfloat16", "zero3", None, 2, 2048)),
    ],
)  # fmt: skip
def test_how_it_runs(tmp_path: Path, text: str, values: tuple) -> None:
    config = read_config_file(_written(tmp_path, text))
    assert tuple(getattr(config, field) for field in FIELDS) == values


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["a.b=1", "+a.c=[x,'y']", "++d=null", "e"], {"a": {"b": 1, "c": ["x", "y"]}, "d": None}),
        (["a=1", "a.b=2"], {"a": {"b": 2}}),
        (["a=[" * 1 + "[" * 3000, "b=.*x", "c="], {"a": "[" * 3001, "b": ".*x", "c": ""}),
    ],
)
def test_overrides_are_sections(words: list[str], values: dict) -> None:
    assert nested(words) == values
