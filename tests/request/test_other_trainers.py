"""Trainers of one script, and those that only reinforce: what trains, counted by hand; and what is told and not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from estimator.errors import UnsupportedError, UsageError
from estimator.jobs.estimate import estimate
from estimator.request.files import read_config_file, to_request
from estimator.request.request import Request
from estimator.request.trainers.keys import NoLoraError, UnknownTrainerError

LLAMA, GPT2 = "meta-llama/Llama-3.1-8B-Instruct", "openai-community/gpt2"
# Llama 3.1 8B, 32 layers of 4,096: the query, the value of 1,024, and all seven Linears.
QUERY, VALUE = 32 * (4096 + 4096), 32 * (4096 + 1024)
ALL = 2 * (QUERY + VALUE) + 32 * 3 * (4096 + 14336)
# GPT-2, 12 layers of 768: c_attn, attention's c_proj, c_fc, the MLP's c_proj, all Conv1D.
GPT2_ALL = 12 * ((768 + 2304) + (768 + 768) + 2 * (768 + 3072))
# Qwen2.5-VL 7B: 28 layers of text.
SEES_TEXT = 28 * (2 * 7168 + 2 * 4096 + 3 * 22528)
QLORA = f"python qlora.py --model_name_or_path {LLAMA} --lora_r 4 --bits "
ALPACA = f"python finetune.py --base_model={LLAMA} --data_path a --cutoff_len 512"
FASTCHAT = f"deepspeed --num_gpus 2 fastchat/train/train_lora.py --model_name_or_path {LLAMA} --lora_r 4"
LMFLOW = f"accelerate launch examples/finetune.py --model_name_or_path {LLAMA} --dataset_path a --lora_r 4"
FIREFLY = (
    '{"model_name_or_path": "%s", "train_file": "a", "max_seq_length": 64, "lora_rank": 4, "train_mode": "lora"}'
    % LLAMA
)
EASY = "worker: {actor: {model: {model_path: %s, lora: {rank: 4, %s}}}}\n"
AREAL = "actor: {path: %s, mb_spec: {max_tokens_per_mb: 8}, use_lora: true, lora_rank: 4, %s}\n"
H2O = "llm_backbone: %s\nproblem_type: text_causal_language_modeling\ntraining: {lora_r: 4, %s}\n"
BF16 = "architecture: {backbone_dtype: bfloat16}\n"


def _written(folder: Path, text: str) -> str:
    ending = "json" if text.startswith("{") else "sh" if "--" in text or text.startswith("python") else "yaml"
    path = folder / f"run.{ending}"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        pytest.param(QLORA + "4", 4 * ALL, id="qlora.py takes all Linears"),
        pytest.param(QLORA.replace(LLAMA, GPT2) + "4", 4 * GPT2_ALL, id="as bitsandbytes makes of GPT-2's Conv1D"),
        pytest.param(ALPACA, 8 * (QUERY + VALUE), id="alpaca-lora"),
        pytest.param(ALPACA + " --lora_target_modules '[q_proj,k_proj]' --lora_r 2", 2 * (QUERY + VALUE), id="a list of Fire's"),
        pytest.param(ALPACA + """ --lora_target_modules "['q_proj']" """, 8 * QUERY, id="a list of Python's"),
        pytest.param(FASTCHAT, 4 * (QUERY + VALUE), id="FastChat"),
        pytest.param(FASTCHAT + " --lora_target_modules q_proj", 4 * QUERY, id="FastChat with one name"),
        pytest.param(LMFLOW + " --use_lora 1", 4 * (QUERY + VALUE), id="LMFlow leaves the targets to PEFT"),
        pytest.param(LMFLOW + " --use_dora 1 --lora_target_modules q_proj", 4 * QUERY + 32 * 4096, id="LMFlow's DoRA"),
        pytest.param(FIREFLY, 4 * ALL, id="Firefly takes all Linears"),
        pytest.param(FIREFLY.replace('"lora"}', '"qlora", "use_unsloth": true}'), 4 * ALL, id="and hands them to Unsloth"),
        pytest.param(EASY % (LLAMA, "alpha: 8"), 4 * ALL, id="EasyR1 takes all Linears"),
        pytest.param(EASY % (LLAMA, "target_modules: 'q_proj, v_proj'"), 4 * (QUERY + VALUE), id="names with commas"),
        pytest.param(EASY % ("Qwen/Qwen2.5-VL-7B-Instruct", "exclude_modules: .*visual.*"), 4 * SEES_TEXT,
                     id="EasyR1 leaves a tower out"),
        pytest.param(f"python3 -m verl.trainer.main worker.actor.model.model_path={LLAMA} worker.actor.model.lora.rank=4",
                     4 * ALL, id="EasyR1's command line"),
        pytest.param(AREAL % (LLAMA, "lora_alpha: 8"), 4 * ALL, id="AReaL takes all Linears"),
        pytest.param(AREAL % (LLAMA, "target_modules: [q_proj]"), 4 * QUERY, id="AReaL with one name"),
        pytest.param(AREAL.replace("actor", "model") % (LLAMA, "lora_alpha: 8"), 4 * ALL, id="AReaL tunes"),
        pytest.param(H2O % (LLAMA, "lora_target_modules: ''"), 4 * ALL, id="H2O LLM Studio takes all Linears"),
        pytest.param(H2O % (LLAMA, "lora_target_modules: 'q_proj, v_proj'"), 4 * (QUERY + VALUE), id="or what is named"),
        pytest.param(H2O % (GPT2, "lora_dropout: 0") + BF16, 4 * GPT2_ALL, id="and Conv1D"),
    ],
)  # fmt: skip
def test_what_trains(tmp_path: Path, text: str, parameters: int) -> None:
    found = estimate(Request(config=_written(tmp_path, text), offline=True))
    assert found.adaptation.trainable_parameters == parameters


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (QLORA + "4", {"base_precision": "nf4", "dtype": "fp32", "compute_dtype": "float32", "prepare_kbit": True}),
        (QLORA + "4 --bf16", {"dtype": "bf16", "adapter_dtype": "bfloat16", "prepare_kbit": None}),
        (QLORA + "8", {"base_precision": "int8"}),
        (QLORA + "16", {"base_precision": None, "prepare_kbit": True}),
        (ALPACA, {"base_precision": "int8", "dtype": "fp16", "prepare_kbit": True}),
        (FASTCHAT + " --q_lora True --bf16 True", {"base_precision": "nf4", "double_quant": True, "compute_dtype": "bfloat16"}),
        (FASTCHAT, {"base_precision": None, "dtype": None, "prepare_kbit": None}),
        (LMFLOW + " --use_qlora 1", {"base_precision": "nf4", "quant_storage": "bfloat16", "prepare_kbit": None}),
        (FIREFLY.replace('"lora"}', '"qlora", "fp16": true}'),
         {"base_precision": "nf4", "compute_dtype": "float16", "double_quant": True, "prepare_kbit": True}),
        (EASY % (LLAMA, "alpha: 8"), {"dtype": "bf16", "adapter_dtype": None, "save_embedding_layers": "no"}),
        (AREAL % (LLAMA, "lora_alpha: 8"), {"dtype": "bf16", "adapter_dtype": "bfloat16"}),
        (H2O % (LLAMA, "lora: true"), {"base_precision": "nf4", "double_quant": False, "prepare_kbit": True}),
        (H2O % (LLAMA, "lora: true") + BF16, {"base_precision": None, "dtype": "bf16", "prepare_kbit": None}),
    ],
)  # fmt: skip
def test_how_the_base_is_loaded(tmp_path: Path, text: str, options: dict) -> None:
    found = to_request(read_config_file(_written(tmp_path, text)))
    assert {name: found.get(name) for name in options} == options


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (QLORA + "16 --full_finetune", NoLoraError, "full_finetune"),
        (LMFLOW + " --use_lora 0", NoLoraError, "use_lora"),
        (FIREFLY.replace('"lora"}', '"full"}'), NoLoraError, "train_mode is 'full'"),
        (EASY.replace("rank: 4", "rank: 0") % (LLAMA, "alpha: 8"), NoLoraError, "rank is 0"),
        ("worker: {actor: {model: {model_path: a, lora: 4}}}", UsageError, "lora is 4"),
        (f"python3 -m verl.trainer.main config=a.yaml worker.actor.model.model_path={LLAMA}", UnsupportedError, "from a.yaml"),
        (AREAL % (LLAMA, "backend: 'megatron:d4'"), UnsupportedError, "FSDP"),
        (AREAL.replace("use_lora: true", "use_lora: false") % (LLAMA, "lr: 1"), NoLoraError, "use_lora"),
        (H2O % (LLAMA, "lora: false"), NoLoraError, "lora is off"),
        (H2O % (LLAMA, "lora_unfreeze_layers: [embed]"), UnsupportedError, "lora_unfreeze_layers"),
        (H2O.replace("language", "classification") % (LLAMA, "lora: true"), UnsupportedError, "text_causal_classification"),
        ("python -m mlx_lm.lora --model a --train", UnknownTrainerError, "mlx-lm puts layers of its own"),
        ("model: a\nlora_parameters: {rank: 8}\niters: 4", UnknownTrainerError, "mlx-lm puts layers of its own"),
        ("accelerate launch train_network.py --network_module=networks.lora", UnknownTrainerError, "images or videos"),
        ("python train_dreambooth_lora.py --pretrained_model_name_or_path a", UnknownTrainerError, "images or videos"),
        ("deepspeed llava/train/train_mem.py --lora_enable True --lora_r 8", UnknownTrainerError, "a projector"),
        ("lora: true\nlora_rank: 8\ntensor_parallel_degree: 1", UnknownTrainerError, "PaddleNLP"),
        ("python train_sft.py --pretrain a --plugin zero2 --lora_rank 8", UnknownTrainerError, "ColossalAI"),
    ],
)  # fmt: skip
def test_what_is_not_counted(tmp_path: Path, text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        read_config_file(_written(tmp_path, text))
