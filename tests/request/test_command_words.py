"""Scripts as bash splits them; what a script hides, or cuts off, is not passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from estimator.errors import UsageError
from estimator.request.commands.parse import parse_command
from estimator.request.commands.words import commands
from estimator.request.files import read_config_file


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
        pytest.param("R=8\nfor R in 4 8; do\na --x $R\ndone", ["a", "--x", "${R}"], id="a loop's variable is open"),
        pytest.param("if b; then\nR=4\nelse\nR=8\nfi\na --x $R", ["a", "--x", "${R}"], id="branches that differ"),
        pytest.param("R=4\nif b; then\nR=$1\nfi\na --x $R", ["a", "--x", "${R}"], id="a branch"),
        pytest.param("(cd b; a --x 1)", ["a", "--x", "1"], id="a subshell"),
        pytest.param("R=${R:-'4'}\na --x \"${S:-5}\" $R", ["a", "--x", "5", "4"], id="defaults in quotes"),
        pytest.param("local R=4\na --x $R", ["a", "--x", "4"], id="a local variable"),
        pytest.param("f(){ local R=4; a --x $R; }", ["a", "--x", "4"], id="in a function"),
        pytest.param("f () {\nlocal -r R=4\na --x $R\n}", ["a", "--x", "4"], id="in one written out"),
        pytest.param("if b; then R=4; a --x $R; fi", ["a", "--x", "4"], id="within its branch"),
        pytest.param("export R=4 && a --x $R", ["a", "--x", "4"], id="behind what cannot fail"),
        pytest.param("B=\na --x ${B:-4} ${R:-5}", ["a", "--x", "4", "5"], id="a default of what is empty"),
        pytest.param("B=\na --x $B --y", ["a", "--x", "--y"], id="nothing is no word"),
        pytest.param("B=' --y 1 '\na$B-z", ["a", "--y", "1", "-z"], id="blanks around a value"),
        pytest.param('A="--x 1"\nA+=" --y"\na $A', ["a", "--x", "1", "--y"], id="a value grows"),
        pytest.param('A="--x 1"\nif b; then A+=" --y"; fi\na $A', ["a", "--x", "1", "${A}"], id="it may have grown"),
        pytest.param('A="--x 1"\nb && A="$A --y"\na $A', ["a", "--x", "1", "${A}"], id="so where it names itself"),
        pytest.param('A+=" --y"\na $A', ["a", "${A}", "--y"], id="it grows from what a run knows"),
        pytest.param('A="--x $1 --y"\na $A', ["a", "--x", "$1", "--y"], id="a part is open"),
        pytest.param('A=(--x)\nif b; then A+=(y); fi\na "${A[@]}"', ["a", "--x", "${A[@]}"], id="an array may have"),
        pytest.param('A=(--x)\nb && A=(y)\na "${A[@]}"', ["a", "${A[@]}"], id="another array"),
        pytest.param('A=(--x)\nA[0]=y\na "${A[@]}"', ["a", "${A[@]}"], id="an element of it"),
        pytest.param('A=(--x)\nmapfile -t A < f\na "${A[@]}"', ["a", "${A[@]}"], id="an array that is read"),
        pytest.param('A=(--x)\na ${A[@]+"${A[@]}"}', ["a", "--x"], id="an array, if there is one"),
        pytest.param("(( b << 2 ))\na --x 1", ["a", "--x", "1"], id="a shift is no here-document"),
        pytest.param("cat<<'E-1'\na --x 9\nE-1\na --x 1", ["a", "--x", "1"], id="a here-document's odd name"),
        pytest.param("B=$(echo ')')\na --x $B", ["a", "--x", "$(...)"], id="a bracket in quotes"),
        pytest.param('a --x "$(b ")" "c d")e"', ["a", "--x", "$(...)e"], id="quotes in quotes"),
        pytest.param("a --x <(b | c) --y", ["a", "--x", "<(...)", "--y"], id="a process for a file"),
        pytest.param("a --x > >(tee b) --y", ["a", "--x", "--y"], id="a redirection to a process"),
        pytest.param("a --x `b --c`", ["a", "--x", "$(...)"], id="backticks"),
        pytest.param("a $(which b-c) d --x $(command -v e)", ["a", "b-c", "d", "--x", "e"], id="where a program lies"),
        pytest.param("a --x $(which b | c)", ["a", "--x", "$(...)"], id="or what is made of that"),
        pytest.param("a --x\ncase $1 in\n--y|--z) b;;\nesac", ["a", "--x"], id="a pattern is no command"),
        pytest.param("a --x <your model>", ["a", "--x", "<your model>"], id="a placeholder"),
        pytest.param("A=xx\n" + 'A="$A$A"\n' * 60 + "a --y", ["a", "--y"], id="a variable that doubles"),
        pytest.param("A=(x x)\n" + 'A=("${A[@]}" "${A[@]}")\n' * 60 + "a --y", ["a", "--y"], id="an array that doubles"),
    ],
)  # fmt: skip
def test_words_are_split_as_the_shell_splits_them(text: str, words: list[str]) -> None:
    found = [one for one in commands(text, "a.sh") if one and one[0] == "a"]
    assert found[-1][: len(words)] == words


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("R=$1", id="an argument"),
        pytest.param("R=$((R*2))", id="arithmetic"),
        pytest.param("R=$(cat f)", id="a command's output"),
        pytest.param("R=`cat f`", id="in backticks"),
        pytest.param("R+=$1", id="something behind it"),
        pytest.param("R=" + 10_001 * "1", id="too long to keep"),
        pytest.param("if [ $1 ]; then R=$1; fi", id="a branch"),
        pytest.param("if b; then :; else R=4; fi", id="the other branch"),
        pytest.param("while [ $1 ]; do case $1 in\n--rank|-r) R=$2; shift;;\n*) exit;;\nesac; done", id="options"),
        pytest.param("case $1 in big) R=64;; esac", id="a case"),
        pytest.param("read -r R", id="read"),
        pytest.param("b | while read R; do :; done", id="read in a loop"),
        pytest.param("getopts r: R", id="getopts"),
        pytest.param("let R*=2", id="let"),
        pytest.param("((R*=2))", id="arithmetic alone"),
        pytest.param("for ((R=1; R<4; R++)); do :; done", id="a counting loop"),
        pytest.param("printf -v R 16", id="printf"),
        pytest.param("unset R", id="unset"),
        pytest.param("eval R=$1", id="eval"),
        pytest.param("R=(1 2)", id="an array"),
        pytest.param("b && R=64", id="a condition"),
        pytest.param("b || R=64", id="another"),
        pytest.param("b && { c; R=64; }", id="a group behind one"),
        pytest.param("(R=16)", id="a subshell"),
        pytest.param("for i in 1 2; do R=16; done", id="a loop's body"),
        pytest.param("f() { R=16; }", id="a function"),
        pytest.param("f() { R=16; }\nR=8\nf", id="a function that is called"),
    ],
)
def test_what_may_have_changed_is_open(text: str) -> None:
    options = parse_command(f"R=8\n{text}\ntrl sft --use_peft --lora_r ${{R:-8}}", "a.sh")
    assert "$" in str(options["lora_r"])


TRAIN = "trl sft --use_peft --lora_r $R"


@pytest.mark.parametrize(
    ("text", "rank"),
    [
        pytest.param("for i in 1 2; do trl sft --lora_r ${R:-8}; R=4; done", "${R}", id="set at the end of a loop"),
        pytest.param(f"R=8\nwhile b; do {TRAIN}; R=$((R*2)); done", "${R}", id="a loop comes back"),
        pytest.param(f"R=8\nfor i in 1 2; do {TRAIN}; if b; then R=4; fi; done", "${R}", id="a branch of it"),
        pytest.param(f"R=8\nfor i in 1 2; do R=4; {TRAIN}; done", "4", id="it is set anew each time"),
        pytest.param(f"R=8\nfor i in 1 2; do {TRAIN}; S=4; done", "8", id="a loop that leaves it"),
        pytest.param(f"R=8\nf() {{ {TRAIN}; }}\nR=64\nf", "${R}", id="a function runs later"),
        pytest.param(f"R=8\nf() {{ b && R+=1; {TRAIN}; }}\nR=64\nf", "${R}", id="and adds to what it finds"),
        pytest.param(f"R=8\nf() {{ {TRAIN}; }}\nR=64 f", "${R}", id="with a value of its own"),
        pytest.param(f"R=8\nf() {{ {TRAIN}; }}\nS=64\nf", "8", id="a function of what stays"),
        pytest.param(f"R=8\nif b; then R=4; else {TRAIN}; fi", "${R}", id="in the other branch"),
        pytest.param(f"R=8\nf() {{ b; }}\nR=64\n{TRAIN}", "64", id="another function"),
    ],
)
def test_loops_and_functions_run_later_than_they_are_read(text: str, rank: str) -> None:
    assert parse_command(text, "a.sh")["lora_r"] == rank


def test_what_is_nested_without_end_is_refused() -> None:
    with pytest.raises(UsageError, match="nested too deeply"):
        parse_command("if a; then\n" * 10_000 + TRAIN, "a.sh")


def test_an_array_that_a_loop_lets_grow() -> None:
    text = 'A=(--lora_r 4)\nfor i in a b; do A+=(--x $i); done\ntrl sft --use_peft "${A[@]}"'
    options = parse_command(text, "a.sh")
    assert (options["lora_r"], options["_hidden"]) == ("4", ["${A[@]}"])


@pytest.mark.parametrize(
    "text", ["((R > 2)) && b", "if b; then R=8; fi", "S=$1", "echo R=4 | tee R", "f() { S=4; }\nf"]
)
def test_what_has_not_changed_is_known(text: str) -> None:
    assert parse_command(f"R=8\n{text}\ntrl sft --use_peft --lora_r $R", "a.sh")["lora_r"] == "8"


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
        ("swift sft --model a --output_dir $OUT", False),
        ("swift sft --model a --bf16 $MORE", True),
        ('swift sft --model a --bf16 "${MORE[@]}"', True),
        ("swift sft --model a --gradient_checkpointing $MORE --seed 1", True),
        ('swift sft --model a --use_dora "${@:2}"', True),
        ("swift sft --model a ${MORE:-}", True),
        ("swift sft --model a ${E:+$E}", True),
        ("swift sft --model a $(cat opts)", True),
        ("swift sft --model a `cat opts`", True),
        ("swift sft --model a $A$B", True),
        ("A=(--lora_rank 4)\nif b; then A+=(--use_dora true); fi\nswift sft --model a ${A[@]}", True),
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
        ("swift sft --model a\nswift rlhf --model a --lora_rank 64", True),
        ("python sft.py --use_peft --model_name_or_path a\npython dpo.py --use_peft --model_name_or_path a", True),
        ("trl sft --use_peft --model_name_or_path a\npython eval.py --model a", False),
        (
            "llamafactory-cli train --do_train --model_name_or_path a --finetuning_type lora\n"
            "llamafactory-cli train --do_predict --model_name_or_path a --finetuning_type lora",
            False,
        ),
    ],
)
def test_several_trainings_of_one_script_are_named(tmp_path: Path, text: str, several: bool) -> None:
    path = tmp_path / "a.sh"
    path.write_text(text)
    assert ("several_commands" in {note.code for note in read_config_file(str(path)).notes}) == several


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("--do_train $MORE", {"do_train": True, "_hidden": ["$MORE"]}, id="a switch"),
        pytest.param('--use_dora "$@"', {"use_dora": True, "_hidden": ["$@"]}, id="several words are no value"),
        pytest.param("--use_dora $DORA", {"use_dora": "$DORA", "_hidden": []}, id="one may be yes or no"),
        pytest.param("--lora_rank $R", {"lora_rank": "$R", "_hidden": []}, id="a key that takes a value"),
        pytest.param("--lora_rank 4 $R", {"lora_rank": "4", "_hidden": ["$R"]}, id="behind a value"),
    ],
)
def test_a_variable_behind_a_key(text: str, said: dict) -> None:
    options = parse_command(f"swift sft {text}", "a.sh")
    assert {name: options[name] for name in said} == said


@pytest.mark.parametrize(
    ("text", "world"),
    [
        ("", 1),
        ("export NPROC_PER_NODE=4", 4),
        ("NPROC_PER_NODE=4\nexport NPROC_PER_NODE", 4),
        ("declare -x NPROC_PER_NODE=4", 4),
        ("NPROC_PER_NODE=4", 1),
        ("export NPROC_PER_NODE=$1", None),
        ("export NPROC_PER_NODE", None),
        ("if b; then export NPROC_PER_NODE=4; fi", None),
        ("export NPROC_PER_NODE=4\nNPROC_PER_NODE=2 \\", 2),
        ("export NPROC_PER_NODE=4\nenv NPROC_PER_NODE=2 \\", 2),
    ],
)
def test_processes_of_this_machine(text: str, world: int | None) -> None:
    assert parse_command(f"{text}\nswift sft --model a", "a.sh")["_world"] == world


def test_the_training_is_read_and_not_what_follows() -> None:
    text = "trl sft --use_peft --lora_r 4\npython eval.py --model a\n"
    assert parse_command(text, "a.sh")["lora_r"] == "4"


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


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("litgpt finetune_lora a/b", ("a/b", 8, 1, 16)),
        ("litgpt finetune checkpoints/a/b --lora_r 4", ("a/b", 4, 1, 16)),
        ("litgpt finetune_lora --data JSON --lora_r 4 checkpoints/a/b", ("a/b", 4, 1, 16)),
        ("litgpt finetune_lora --lora_r=4 a/b --data JSON", ("a/b", 4, 1, 16)),
        ("litgpt finetune_lora a/b --lora_r 4 --out_dir a/b c", ("a/b", 4, 1, 16)),
        ("litgpt finetune_lora --seed -1 a/b --lora_r 4", ("a/b", 4, 1, 16)),
        ("litgpt finetune lora --checkpoint_dir a/b --lora_r 4", ("a/b", 4, 1, 16)),
        ("litgpt finetune_lora a/b --train.micro_batch_size 2 --train.global_batch_size 8", ("a/b", 8, 2, 4)),
    ],
)
def test_litgpt_on_the_command_line(tmp_path: Path, text: str, values: tuple) -> None:
    path = tmp_path / "a.sh"
    path.write_text(text)
    config = read_config_file(str(path))
    assert (config.base, config.lora["r"], config.batch_size, config.gradient_accumulation) == values
