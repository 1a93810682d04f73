"""Scripts as bash splits them; what a script hides, or cuts off, is not passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from estimator.errors import UsageError
from estimator.request.command_line import parse_command
from estimator.request.files import read_config_file
from estimator.request.shell_words import commands


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("a --x 1 > log 2>&1 &", ["a", "--x", "1"], id="redirections"),
        pytest.param("a --x 1 &> log", ["a", "--x", "1"], id="both outputs"),
        pytest.param("a --x 1 2>&1 | tee log", ["a", "--x", "1"], id="a pipe"),
        pytest.param("A='--x 1 --y 2'\na $A", ["a", "--x", "1", "--y", "2"], id="a variable is split"),
        pytest.param("A='x 1'\na \"$A\"", ["a", "x 1"], id="in quotes it is not"),
        pytest.param('A=(--x 1 # one\n --y 2)\na "${A[@]}" z', ["a", "--x", "1", "--y", "2", "z"], id="an array"),
        pytest.param('A=(x)\nA+=(y)\na ${A[@]}', ["a", "x", "y"], id="an array grows"),
        pytest.param('A=(x)\nA=("${A[@]}" y)\na ${A[@]}', ["a", "x", "y"], id="an array of itself"),
        pytest.param("cat <<EOF\ndon't --x\nEOF\na --y", ["a", "--y"], id="a here-document"),
        pytest.param("cat <<-'E'\n\"\n\tE\na --y", ["a", "--y"], id="an indented one"),
        pytest.param("R=8\nfor R in 4 8; do\na --x $R\ndone", ["a", "--x", "$R"], id="a loop's variable is open"),
        pytest.param("if b; then\nR=4\nelse\nR=8\nfi\na --x $R", ["a", "--x", "$R"], id="branches that differ"),
        pytest.param("R=4\nif b; then\nR=$1\nfi\na --x $R", ["a", "--x", "4"], id="a default"),
        pytest.param("(cd b; a --x 1)", ["a", "--x", "1"], id="a subshell"),
        pytest.param("R=${R:-'4'}\na --x \"${S:-5}\" $R", ["a", "--x", "5", "4"], id="defaults in quotes"),
        pytest.param("local R=4\na --x $R", ["a", "--x", "4"], id="a local variable"),
        pytest.param("a --x <your model>", ["a", "--x", "<your model>"], id="a placeholder"),
        pytest.param("A=xx\n" + 'A="$A$A"\n' * 60 + "a --y", ["a", "--y"], id="a variable that doubles"),
        pytest.param("A=(x x)\n" + 'A=("${A[@]}" "${A[@]}")\n' * 60 + "a --y", ["a", "--y"], id="an array that doubles"),
    ],
)  # fmt: skip
def test_words(text: str, words: list[str]) -> None:
    found = [one for one in commands(text, "a.sh") if one and one[0] == "a"]
    assert found[-1][: len(words)] == words


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("swift sft --model a \\ \n  --lora_rank 8", id="a blank behind the backslash"),
        pytest.param("swift sft --model a \\\n  # --x 1 \\\n  --lora_rank 8", id="a comment between"),
        pytest.param("swift sft --model a \\ # why\n  --lora_rank 8 \\\n  --y 1", id="a comment behind the backslash"),
        pytest.param("swift sft --model a\n--lora_rank 8", id="no backslash"),
    ],
)
def test_options_that_the_command_never_gets(text: str) -> None:
    with pytest.raises(UsageError, match="--lora_rank stands on its own"):
        parse_command(text, "a.sh")


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ('swift sft --model a "$@"', True),
        ("swift sft --model a ${MORE[@]}", True),
        ("swift sft $MORE --model a", True),
        ("torchrun $LAUNCH train.py --tuner_type lora --model a", False),
        ("M=b\nswift sft --model $M", False),
    ],
)
def test_what_may_hold_further_options_is_named(tmp_path: Path, text: str, hidden: bool) -> None:
    path = tmp_path / "a.sh"
    path.write_text(text)
    assert ("hidden_options" in {note.code for note in read_config_file(str(path)).notes}) == hidden


@pytest.mark.parametrize(
    ("text", "several"),
    [
        ("swift sft --model a\nswift sft --model b", True),
        ("swift sft --model a\nswift infer --model b", False),
    ],
)
def test_several_trainings_of_one_script_are_named(tmp_path: Path, text: str, several: bool) -> None:
    path = tmp_path / "a.sh"
    path.write_text(text)
    assert ("several_commands" in {note.code for note in read_config_file(str(path)).notes}) == several


AUTOTRAIN = "autotrain llm --train --model a/b --peft --lora-r 4"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (AUTOTRAIN, ("a/b", 4, 2, 4, 4)),
        (AUTOTRAIN + " --train-batch-size 3 --quantization int8", ("a/b", 4, 3, 4, 8)),
        (AUTOTRAIN.replace("llm", "seq2seq"), ("a/b", 4, 2, 1, 8)),
        (AUTOTRAIN + " --quantization none", ("a/b", 4, 2, 4, None)),
    ],
)
def test_autotrain_on_the_command_line(tmp_path: Path, text: str, values: tuple) -> None:
    path = tmp_path / "a.sh"
    path.write_text(text)
    config = read_config_file(str(path))
    bits = config.quantization and config.quantization["bits"]
    assert (config.base, config.lora["r"], config.batch_size, config.gradient_accumulation, bits) == values
