"""Whose config a file is: keys of trainers beside keys of people's own scripts that look like theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from estimator.errors import LoraSizeError, UnsupportedError, UsageError
from estimator.jobs.estimate import estimate
from estimator.request.files import read_config_file
from estimator.request.recognise import recognise
from estimator.request.request import Request
from estimator.request.trainers.keys import NoLoraError, UnknownTrainerError


@pytest.mark.parametrize(
    ("text", "trainer"),
    [
        ("model: a/b\ntraining: {load_in_4bit: true}\nlora: {lora_r: 8}", "unsloth"),
        ("model: a/b\ntraining: {training_type: full}", "unsloth"),
        ("model: a/b\ntraining: {batch_size: 1}\nlora: {r: 8, alpha: 16}", None),
        ("model: {name: a/b}\ntraining: {strategy: eagle3}", None),
        ("training: true\nlora: {lora_r: 8}", None),
        ("base_model: a/b\nadapter: lora", "axolotl"),
        ("base_model: a/b\ndatasets: []\nsequence_len: 512", "axolotl"),
        ("base_model: a/b\nmerge_method: slerp\nmodels: []", None),
        ("base_model: a/b\nlora_r: 8\ntarget_modules: [q_proj]", None),
        ("base_model: a/b\ndatasets: []\nlora: {r: 8}", None),
        ("base_model: a/b\nadapter: {lora: {r: 8}}", None),
        ("model_name_or_path: a/b\nuse_peft: true\nlora_r: 4", "trl"),
        ("model_name_or_path: a/b\nuse_peft: true\nlora_rank: 4", None),
        ("model_name_or_path: a/b\nuse_peft: true\ntarget_modules: all", None),
        ("model_name_or_path: a/b\nuse_peft: true\nuse_adalora: true\nlora_alpha: 8", None),
        ("model_name_or_path: a/b\nlearning_rate: 1.0e-4", None),
        ("model_name_or_path: a/b\ndataset_name: c", "trl"),
        ("_program: run_qa.py\nmodel_name_or_path: a/b\ndataset_name: c", None),
        ("_program: trl sft\nmodel_name_or_path: a/b", "trl"),
        ("model_name_or_path: a/b\ntemperature: 0.1", None),
        ("model_name_or_path: a/b\ntemplate: qwen\ncutoff_len: 512", "llamafactory"),
        ("model_name_or_path: a/b\nlora_target: all", "llamafactory"),
        ("base_model: a/b\ncutoff_len: 512\nlora_r: 8\nlora_target_modules: [q_proj]", None),
        ("model: a/b\npeft_config: {name: lora}", "llamafactory"),
        ("data_config: {}\npeft_config: {peft_type: LORA, r: 8}", None),
        ("model: a/b\ntrain_type: lora", "swift"),
        ("train_type: slow\nstation: b", None),
        ("model_type: llm\nbase_model: a/b\nadapter: {type: lora}", "ludwig"),
        ("model_type: ecd\nbase_model: a/b\ninput_features: []", None),
        ("model: {model_name: a/b}\ntraining: {trainer_type: TRL_SFT}", "oumi"),
        ("model: {model_name: a/b}\ntraining: {use_peft: true}\npeft: {lora_r: 8}", "oumi"),
        ("model: {model_name: a/b}\ntraining: {use_peft: true}\npeft: {r: 8}", None),
        ("model: {model_name: a/b}\ntraining: {batch_size: 8}\npeft: {lora_r: 8}", None),
        ("model_name_or_path: a/b\nuse_peft_lora: true\nsplits: train", "peft_sft"),
        ("_program: train.py\nmodel_path: a/b\nuse_peft_lora: true\nlora_r: 16", None),
        ("model: a/b\nrlhf_type: grpo\ntrain: {gpus: 4, tuner_type: lora}", "swift"),
        ("model: a/b\ntrain: {gpus: 4}", None),
        ("checkpoint_dir: checkpoints/a/b\ntrain: {epochs: 1}", "litgpt"),
        ("checkpoint_dir: out\nsteps: 1", None),
        ("task: llm\nbase_model: a/b\nparams: {peft: true}", "autotrain"),
        ("task: build\nparams: {a: 1}", None),
    ],
)
def test_keys_tell_the_trainer(text: str, trainer: str | None) -> None:
    assert recognise(yaml.safe_load(text)) == trainer


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        pytest.param("a.yaml", b"caf\xe9: 1\n", UnknownTrainerError, id="not UTF-8 and nobody's"),
        pytest.param("a.yaml", b"base_model: gpt2\n# caf\xe9\n", UsageError, id="not UTF-8, a config"),
        pytest.param("a.yaml", "base_model: gpt2\n".encode("utf-16"), UsageError, id="UTF-16, a config"),
        pytest.param("a.yaml", b"#" * 2_000_001, UnknownTrainerError, id="huge and nobody's"),
        pytest.param("a.yaml", b"adapter: lora\n" + b"#" * 2_000_001, UsageError, id="huge, a config"),
        pytest.param("a.yaml", b"kind: x\n{{- if .lora }}\n", UnknownTrainerError, id="a chart's template"),
        pytest.param("a.yaml", b"model: [\n  _component_: torchtune.x\n", UsageError, id="broken, torchtune's"),
        pytest.param("a.json", b'{"lora_rank": 8,\n', UsageError, id="broken JSON, a config"),
        pytest.param("a.json", b'\xef\xbb\xbf{"peft_type": "LORA"}', UsageError, id="a mark before JSON, a config"),
        pytest.param("a.json", b'{"a": {"lora": 8},\n', UnknownTrainerError, id="broken JSON of somebody"),
        pytest.param("a.sh", b"echo \"don't\nlora\n", UnknownTrainerError, id="an open quote in a script"),
        pytest.param("a.sh", b"swift sft --model 'a\n", UsageError, id="an open quote in a training"),
        pytest.param("a.toml", b"lora_r = 8\n", UnknownTrainerError, id="TOML"),
        pytest.param("a.ipynb", b'{"cells": []}', UnknownTrainerError, id="a notebook"),
        pytest.param("a.sh", b"swift package resolve --verbose\n", UnknownTrainerError, id="Swift, the language"),
        pytest.param("a.sh", b"swift sft --config sft.yaml\n", UnsupportedError, id="options in another file"),
        pytest.param("a.sh", b"trl sft --config $FILE\n", UnsupportedError, id="in a file that a variable names"),
        pytest.param("a.sh", b"axolotl train a.yml --lora-r 8\n", UnsupportedError, id="in an unnamed file"),
        pytest.param("a.sh", b"accelerate launch -m axolotl.cli.train a.yml\n", UnsupportedError, id="of a module"),
        pytest.param("a.sh", b"llamafactory-cli train a.yaml\n", UnsupportedError, id="in an unnamed file alone"),
        pytest.param("a.sh", b"srun --gpus 4 llamafactory-cli train a.yaml\n", UnsupportedError, id="behind srun's"),
        pytest.param("a.sh", b"accelerate launch --num_processes 2 a.py b.yaml\n", UnknownTrainerError, id="nobody's"),
        pytest.param("a.sh", b"axolotl train $1\n", UnsupportedError, id="in one that only the run knows"),
        pytest.param("a.sh", b"tune run a --config llama3/8B_lora b.c=1\n", UnsupportedError, id="in torchtune's own"),
        pytest.param("a.sh", b"tune download a/b --token c\n", UnknownTrainerError, id="torchtune downloads"),
        pytest.param("a.sh", b"modal run a.py --use-peft\n", UnknownTrainerError, id="Modal calls a function"),
        pytest.param("a.sh", b"bash -c ''\n", UnknownTrainerError, id="a shell without a text"),
        pytest.param("a.sh", b"axolotl fetch examples --dest a\n", UnknownTrainerError, id="Axolotl fetches"),
        pytest.param("a.sh", b"litgpt download a/b --token c\n", UnknownTrainerError, id="litgpt downloads"),
        pytest.param(
            "a.yaml",
            b"model_name_or_path: a\nuse_peft: true\nload_in_4bit: true\nload_in_8bit: true\n",
            UsageError,
            id="TRL in 4 and in 8 bits",
        ),
        pytest.param(
            "a.yaml",
            b"checkpoint_dir: a/b\nlora_query: false\nlora_value: false\n",
            UsageError,
            id="litgpt adapts nothing",
        ),
        pytest.param("a.sh", b"litgpt finetune_full a/b\n", NoLoraError, id="litgpt trains all"),
        pytest.param("a.sh", b"litgpt finetune full a/b --epochs 1\n", NoLoraError, id="an older litgpt trains all"),
    ],
)
def test_what_cannot_be_read_is_a_fault_of_configs_alone(
    tmp_path: Path, name: str, content: bytes, error: type[LoraSizeError]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LoraSizeError) as caught:
        read_config_file(str(path))
    assert type(caught.value) is error


FACTORY = "model_name_or_path: gpt2\nfinetuning_type: lora\n"


@pytest.mark.parametrize(
    "text",
    [
        FACTORY + "adapter_name_or_path: saves/a\ntemplate: qwen\n",
        FACTORY + "do_train: false\n",
        FACTORY + "do_predict: true\n",
        FACTORY + "export_dir: out\n",
        "model: gpt2\npeft_config: {name: lora, adapter_name_or_path: saves/a, export_dir: out}\n",
    ],
)
def test_what_only_infers_or_merges_trains_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(NoLoraError):
        read_config_file(str(path))


@pytest.mark.parametrize(
    ("text", "continues"),
    [
        (FACTORY + "do_train: true\nadapter_name_or_path: saves/a\n", True),
        (FACTORY + "do_train: true\nadapter_name_or_path: saves/a\ncreate_new_adapter: true\n", False),
        ("model: gpt2\npeft_config: {name: lora, adapter_name_or_path: saves/a}\n", True),
        ("base_model: gpt2\nadapter: lora\nlora_model_dir: out\n", True),
        ("base_model: gpt2\nadapter: lora\nlora_model_dir:\n", False),
        ("model: gpt2\ntuner_type: lora\nadapters: [out]\n", True),
    ],
)
def test_an_adapter_that_is_trained_on_is_named(tmp_path: Path, text: str, continues: bool) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert ("continues_adapter" in {note.code for note in read_config_file(str(path)).notes}) == continues


@pytest.mark.parametrize(
    "text",
    [
        FACTORY + "lora_rank: ${RANK}\n",
        FACTORY + "lora_target: $TARGETS\n",
        FACTORY + "quantization_bit: ${BITS}\n",
        FACTORY + "lora_rank: '{{ rank }}'\n",
        "base_model: gpt2\nadapter: ${ADAPTER}\n",
        "base_model: gpt2\nadapter: lora\nllama4_linearized_experts: true\n",
        FACTORY + "use_megatron_bridge: true\n",
        FACTORY + "tensor_model_parallel_size: 1\n",
        FACTORY + "_program: train_bash.py\ndo_train: true\n",
        "model_id_or_path: a/b\nsft_type: lora\nlora_target_modules: ALL\n",
        "model: {_component_: torchtune.models.a.lora_a, lora_rank: '${oc.env:RANK}'}\n",
    ],
)
def test_what_only_the_run_knows_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UnsupportedError):
        read_config_file(str(path))


def test_the_torchrun_entry_of_llamafactory_has_its_default_targets(tmp_path: Path) -> None:
    path = tmp_path / "a.sh"
    options = "--finetuning_type lora --model_name_or_path a/b --do_train"
    path.write_text(f"torchrun --nproc_per_node 2 src/llamafactory/launcher.py {options}\n")
    assert read_config_file(str(path)).lora["target_modules"] == "all-linear"


@pytest.mark.parametrize("line", ["output_dir: $OUT", "lora_output_dir: $OUT", "model_name_or_path: $MODEL"])
def test_places_may_be_variables(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"{FACTORY}{line}\n")
    assert read_config_file(str(path)).lora["r"] == 8


def test_interpolations_within_the_file_are_put_in(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "rank: {small: '${rank.smallest}', smallest: 4, loop: '${rank.loop}'}\nbatch_size: 3\n"
        "model: {_component_: torchtune.models.llama3.lora_llama3_8b, lora_attn_modules: [q_proj], "
        "lora_rank: '${rank.small}'}\n"
    )
    assert read_config_file(str(path)).lora["r"] == 4


@pytest.mark.parametrize(
    "text",
    [
        "base_model: [a]\nadapter: lora\n",
        "model_name_or_path: {a: b}\nuse_peft: true\n",
        "base_model: a\nadapter: lora\noptimizer: [a]\n",
        "base_model: a\nadapter: lora\npeft: {loftq_config: x}\n",
        "base_model: a\nadapter: lora\nlora_alpha: 1" + "0" * 400,
    ],
)
def test_a_value_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UsageError):
        read_config_file(str(path))


AXOLOTL = "base_model: gpt2\nadapter: lora\nlora_r: 4\n"
UNSLOTH = "model: gpt2\ntraining: {load_in_4bit: true}\nlora:\n  lora_r: 4\n"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (AXOLOTL + "tokens: [a]\nlora_modules_to_save: [lm_head]\n", "vocabulary_may_grow", True),
        (AXOLOTL + "special_tokens: {pad_token: a}\nlora_modules_to_save: [lm_head]\n", "vocabulary_may_grow", True),
        (
            AXOLOTL + "special_tokens: {pad_token: null}\nlora_modules_to_save: [lm_head]\n",
            "vocabulary_may_grow",
            False,
        ),
        (FACTORY + "resize_vocab: true\n", "vocabulary_may_grow", True),
        ("model: a/b\ntuner_type: lora\nnew_special_tokens: [a]\n", "vocabulary_may_grow", True),
        (AXOLOTL + "lora_target_module: [q_proj]\n", "not_read", True),
        (AXOLOTL + "lora_exclude_modules: [q_proj]\n", "not_read", True),
        (AXOLOTL + "lora_mlp_kernel: true\nlora_model_dir:\nloraplus_lr_ratio: 16\n", "not_read", False),
        (FACTORY + "lora_r: 8\n", "not_read", True),
        ("peft_type: LORA\nlora_alpha: 8\nlora_dropout: 0.1\nlora_bias: true\n", "not_read", False),
        (UNSLOTH + "  modules_to_save: [lm_head]\n", "not_read", True),
        (UNSLOTH + "  lora_alpha: 8\n  use_rslora: true\n  vision_all_linear: true\n", "not_read", False),
        (FACTORY + "use_kt: true\n", "own_experts", True),
        (FACTORY + "quantization_bit: 4\nquantization_method: hqq\n", "quantised_otherwise", True),
        (FACTORY + "quantization_bit: 4\n", "quantised_otherwise", False),
        ("base_model: gpt2\nadapter: lora\n", "no_rank", True),
        (AXOLOTL, "no_rank", False),
    ],
)
def test_what_a_key_leaves_open_is_a_note(tmp_path: Path, text: str, code: str, said: bool) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert (code in {note.code for note in read_config_file(str(path)).notes}) == said


def test_unsloths_application_saves_no_modules(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(UNSLOTH + "  modules_to_save: [lm_head]\n")
    assert read_config_file(str(path)).lora["modules_to_save"] is None


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("model_name_or_path: a/b\nuse_peft: true\n", 1024),
        ("model_name_or_path: a/b\nuse_peft: true\nnum_generations: 4\n", None),
        ("model_name_or_path: a/b\nuse_peft: true\nnum_generations: 4\nmax_length: 64\n", 64),
    ],
)
def test_online_methods_of_trl_cut_nothing(tmp_path: Path, text: str, length: int | None) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert read_config_file(str(path)).sequence_length == length


def test_nemo_freezes_keys_that_other_layers_lend(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(NEMO.replace("q_proj", "k_proj"))
    lent = Request(config=str(path), offline=True, set={"text_config.num_kv_shared_layers": 4})
    with pytest.raises(UnsupportedError):
        estimate(lent)
    path.write_text(NEMO)
    assert estimate(lent).adaptation.trainable_parameters == TEXT + VISION


NEMO = (
    "model: {_target_: nemo_automodel.a, pretrained_model_name_or_path: google/gemma-3-4b-it}\n"
    "peft: {_target_: nemo_automodel.b, target_modules: ['*q_proj'], dim: 8}\n"
)
TEXT, VISION = 34 * 8 * (2560 + 2048), 27 * 8 * (1152 + 1152)  # Gemma 3 4B's layers; its tower's


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        (NEMO, TEXT + VISION),
        (NEMO + "freeze_config: {freeze_audio_tower: true}\n", TEXT),
        (NEMO + "freeze_config: {freeze_vision_tower: false, freeze_language_model: true}\n", VISION),
        (NEMO + "freeze_config: {freeze_vision_tower: false}\n", TEXT + VISION),
        ("base_model: google/gemma-3-4b-it\nadapter: lora\nlora_r: 8\nlora_target_modules: [q_proj]\n"
         "freeze_mm_modules: true\n", TEXT),
    ],
)  # fmt: skip
def test_lora_on_what_is_frozen_afterwards_does_not_train(tmp_path: Path, text: str, parameters: int) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    adaptation = estimate(Request(config=str(path), offline=True)).adaptation
    assert adaptation.trainable_parameters == parameters
