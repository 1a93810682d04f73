"""Trainers' configs as each trainer reads its own: recorded truth, refusals, and files that are none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from estimator.errors import InvalidLoraError, LoraSizeError, NotFoundError, UnsupportedError, UsageError
from estimator.jobs.estimate import estimate, with_config_file
from estimator.request.commands.parse import parse_command
from estimator.request.files import read_config_file, to_request
from estimator.request.request import Request
from estimator.request.trainers.keys import NoLoraError, UnknownTrainerError

FIXTURES = Path(__file__).parents[2] / "fixtures" / "trainers"
ROWS = [json.loads(line) for line in (FIXTURES / "expected.jsonl").read_text().splitlines()]
FIELDS = (
    "trainer", "batch_size", "gradient_accumulation", "sequence_length", "packing", "gradient_checkpointing",
    "optimizer", "prepare_kbit", "quantization",
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_trainer_settings(row: dict) -> None:
    config = read_config_file(str(FIXTURES / row["file"]))
    assert {name: getattr(config, name) for name in FIELDS} == {name: row[name] for name in FIELDS}
    lora = ("r", "lora_alpha", "lora_dropout")
    assert {name: config.lora[name] for name in lora} == {name: row[name] for name in lora}


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        pytest.param(
            "a.yaml",
            "base_model: gpt2\nmicro_batch_size: 2\n",
            NoLoraError,
            id="axolotl without adapter trains in full",
        ),
        pytest.param(
            "a.yaml", "finetuning_type: full\nmodel_name_or_path: gpt2\n", NoLoraError, id="llamafactory full"
        ),
        pytest.param("a.yaml", "model_name_or_path: gpt2\ndataset_name: a\n", NoLoraError, id="trl without use_peft"),
        pytest.param("a.sh", "swift sft --model gpt2 --tuner_type full\n", NoLoraError, id="swift full"),
        pytest.param(
            "a.yaml", "model: {_component_: torchtune.models.gemma.gemma_2b}\n", NoLoraError, id="torchtune full"
        ),
        pytest.param(
            "a.yaml", "task: llm\nbase_model: gpt2\nparams: {batch_size: 1}\n", NoLoraError, id="autotrain full"
        ),
        pytest.param(
            "a.yaml", "base_model: gpt2\nadapter: qlora\n", UsageError, id="axolotl refuses qlora without load_in_4bit"
        ),
        pytest.param("a.yaml", "base_model: gpt2\nadapter: lora\nlora_r: many\n", UsageError, id="r is no number"),
        pytest.param(
            "a.yaml",
            "model: {_target_: nemo_automodel.NeMoAutoModelBiEncoder.from_pretrained}\npeft: {dim: 8}\n",
            UnsupportedError,
            id="an encoder of NeMo's own",
        ),
        pytest.param("a.yaml", "a: [1\n", UsageError, id="broken YAML"),
        pytest.param("a.yaml", "- 1\n", UsageError, id="a list"),
        pytest.param("a.yaml", "a: " + "[" * 5000, UsageError, id="nested without end"),
        pytest.param("a.yaml", "a: &a [1]\nb: [" + "*a, " * 500 + "]\n", UsageError, id="aliases without end"),
        pytest.param("a.yaml", "a: !!python/object/apply:os.getcwd []\n", UsageError, id="a tag that would run code"),
        pytest.param("a.yaml", "on: push\njobs: {}\n", UsageError, id="a workflow"),
        pytest.param("a.py", "print(1)\n", UsageError, id="python is never read"),
        pytest.param("a.sh", "echo hello\n", UsageError, id="no options"),
        pytest.param("a.json", "{", UsageError, id="broken JSON"),
    ],
)
def test_a_file_that_says_no_adapter_is_refused(
    tmp_path: Path, name: str, text: str, error: type[LoraSizeError]
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(error) as caught:
        read_config_file(str(path))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        ("peft_type: LORA\nbase_model_name_or_path: a/b\nrevision: v2\n", "v2"),
        ("peft_type: LORA\nbase_model_name_or_path: a/b\nrevision: main\n", None),
        ("peft_type: LORA\nbase_model_name_or_path: a/b\nrevision: null\n", None),
        ("base_model: a/b\nrevision_of_model: v2\nadapter: lora\nlora_r: 4\nlora_alpha: 8\n", "v2"),
        ("model_name_or_path: a/b\nmodel_revision: v2\nuse_peft: true\n", "v2"),
        ("model_name_or_path: a/b\nmodel_revision: v2\nfinetuning_type: lora\n", "v2"),
        ("model: a/b\nmodel_revision: v2\ntuner_type: lora\n", "v2"),
    ],
)
def test_the_base_is_of_the_revision_that_the_file_names(tmp_path: Path, text: str, revision: str | None) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(text)
    request = with_config_file(Request(config=str(path)))
    assert (request.model, request.revision) == ("a/b", revision)
    assert with_config_file(Request(config=str(path), model="c/d")).revision is None


@pytest.mark.parametrize(
    ("said", "words"),
    [
        pytest.param(b"\x08\0\0\0\0\0\0\0{}      ", "no text", id="safetensors"),
        pytest.param(b"\x89PNG\r\n", "not text in UTF-8", id="a picture"),
        pytest.param(b'{"lora_r": ' + b"9" * 5_000 + b"}", "a number in it has thousands of digits", id="5,000 digits"),
        pytest.param(b'{"lora_r": ' + b"[" * 200_000, "nested too deeply", id="200,000 deep"),
    ],
)
def test_what_can_be_no_config_is_called_what_it_is(tmp_path: Path, said: bytes, words: str) -> None:
    path = tmp_path / "weights"
    path.write_bytes(said)
    with pytest.raises(UsageError, match=words):
        read_config_file(str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "adapter_config.json")
    with pytest.raises(NotFoundError, match="it is no file"):
        read_config_file(str(tmp_path))


def test_a_config_of_nobody_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text("replicas: 3\n")
    with pytest.raises(UnknownTrainerError):
        read_config_file(str(path))


def test_a_script_that_names_a_file_of_options_leads_to_it(tmp_path: Path) -> None:
    path = tmp_path / "train.sh"
    path.write_text("cd work\npython train.py mine.yaml\n")
    with pytest.raises(UnknownTrainerError) as caught:
        read_config_file(str(path))
    assert caught.value.way_out == "name mine.yaml itself, if it holds them"


def test_what_a_config_file_leaves_to_be_known_is_said(tmp_path: Path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text("base_model: gpt2\nadapter: lora\nlora_target_modules: [c_attn]\nload_in_4bit: true\n")
    assert "not_quantised" in {note.code for note in estimate(Request(config=str(path), offline=True)).notes}


def test_options_of_an_estimate(tmp_path: Path) -> None:
    path = tmp_path / "qlora.yaml"
    path.write_text("base_model: gpt2\nadapter: qlora\nload_in_4bit: true\nlora_r: 4\nlora_alpha: 8\nbf16: true\n")
    options = to_request(read_config_file(str(path)))
    assert {name: options[name] for name in ("model", "base_precision", "dtype", "double_quant")} == {
        "model": "gpt2", "base_precision": "nf4", "dtype": "bf16", "double_quant": True,
    }  # fmt: skip
    assert "prepare_kbit" not in options  # Axolotl takes its upcast back
    assert options["lora"]["r"] == 4


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        *((f'"{name}": null', name) for name in ("r", "lora_alpha", "bias", "rank_pattern", "alpha_pattern")),
        ('"peft_type": null', "peft_type"),
        ('"init_lora_weights": "lora-ga"', "init_lora_weights"),
        ('"modules_to_save": null, "loftq_config": null, "use_dora": null, "exclude_modules": null', None),
    ],
)
def test_null_in_an_adapter_config_is_what_it_is_to_peft(tmp_path: Path, fields: str, refused: str | None) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(f'{{"peft_type": "LORA", "base_model_name_or_path": "gpt2", "target_modules": ["c_fc"], {fields}}}')
    request = Request(config=str(path), offline=True)
    if refused is None:
        assert estimate(request).adaptation.trainable_parameters == 12 * 8 * (768 + 3072)
        return
    with pytest.raises(InvalidLoraError) as error:
        estimate(request)
    assert error.value.where.startswith(refused)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("swift sft --model a/b --lora_rank 4", {"model": "a/b", "lora_rank": "4"}, id="one line"),
        pytest.param(
            "swift sft \\\n  --model a/b \\\n  --lora_rank=4\n", {"model": "a/b", "lora_rank": "4"}, id="several"
        ),
        pytest.param("M=a/b\nswift sft --model $M", {"model": "a/b"}, id="a variable"),
        pytest.param('M=a/b\nswift sft --model "${M}-Instruct"', {"model": "a/b-Instruct"}, id="in double quotes"),
        pytest.param("M=a/b\nswift sft --model '$M'", {"model": "$M"}, id="not in single quotes"),
        pytest.param("swift sft --model $M", {"model": "$M"}, id="a variable that nobody set"),
        pytest.param("S='one\ntwo'\nswift sft --model a/b", {"model": "a/b"}, id="quotes over two lines"),
        pytest.param("swift sft --model a/b # it's the base\n", {"model": "a/b"}, id="a quote in a comment"),
        pytest.param(
            "swift sft --model a/b --tuner_type lora && echo done", {"tuner_type": "lora"}, id="a second command"
        ),
        pytest.param(
            "swift sft --model a/b\nswift infer --model c/d --stream true", {"model": "a/b"}, id="then it infers"
        ),
        pytest.param(
            "swift sft --steps $(expr 16 / $n) --model a/b", {"steps": "$(...)", "model": "a/b"}, id="an expression"
        ),
        pytest.param("n=2\nNPROC_PER_NODE=$n swift sft --model a/b", {"_world": 2}, id="processes in a variable"),
        pytest.param("swift sft --model a/b \\", {"model": "a/b"}, id="ends in a backslash"),
        pytest.param("swift sft --model ${M:-a/b}", {"model": "a/b"}, id="a variable's default"),
        pytest.param('M=c/d\nswift sft --model "${M:-a/b}"', {"model": "c/d"}, id="a default that is not needed"),
        pytest.param("M=${M:-a/b}\nswift sft --model $M", {"model": "a/b"}, id="a default that is set"),
        pytest.param("M=a/b\nswift sft --model ${M%/b}", {"model": "${M%/b}"}, id="what else a shell can do is left"),
        pytest.param(
            "accelerate launch --config_file a.json swift/cli/sft.py --model a/b --model_author swift --model_name s",
            {"_program": "swift sft", "model": "a/b"},
            id="a launcher",
        ),
        pytest.param(
            "torchrun --nproc_per_node 2 ms/swift/cli/_megatron/pt.py --model a/b",
            {"_program": "megatron pt"},
            id="torchrun",
        ),
        pytest.param(
            "srun --gpus=4 --label megatron sft --model a/b",
            {"_program": "megatron sft", "model": "a/b"},
            id="srun's options come first",
        ),
        pytest.param(
            "torchrun --nproc_per_node 2 $(which swift) sft --model a/b",
            {"_program": "swift sft", "model": "a/b"},
            id="torchrun of what lies on the path",
        ),
        pytest.param("swift sft --model a/b --no_freeze_vit", {"freeze_vit": False}, id="a switch that is turned off"),
        pytest.param(
            "megatron sft --model a/b --no_save_optim true",
            {"no_save_optim": True, "save_optim": None},
            id="one that says no by itself",
        ),
        pytest.param("python -m swift.cli.rlhf --model a/b", {"_program": "swift rlhf"}, id="a module"),
        pytest.param(
            "python my/sft.py --model_name_or_path a/b --hub_name trl --plugin other.py",
            {"_program": "sft.py"},
            id="a script of one's own",
        ),
    ],
)
def test_a_command_line_as_a_shell_reads_it(text: str, said: dict) -> None:
    options = parse_command(text, "train.sh")
    assert {name: options.get(name) for name in said} == said


@pytest.mark.parametrize(
    "text", ["swift infer --adapters a", "swift export --merge_lora true --adapters a", "swift deploy --model a/b"]
)
def test_commands_that_train_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.sh"
    path.write_text(text)
    with pytest.raises(NoLoraError):
        read_config_file(str(path))


def test_llamafactory_says_how_four_bits_are_packed(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("model_name_or_path: gpt2\nfinetuning_type: lora\nquantization_bit: 4\nquantization_type: fp4\n")
    assert to_request(read_config_file(str(path)))["base_precision"] == "fp4"
