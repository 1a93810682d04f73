"""Bad input of every kind: one message on stderr, its exit code, its error code, and nothing on stdout."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from estimator.cli.main import main

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 10,
}


def weights(header: str, data_bytes: int = 4) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode() + bytes(data_bytes)


GOOD = '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
FOLDERS: dict[str, dict[str, bytes]] = {
    "empty": {},
    "no-weights-odd-class": {"config.json": b'{"architectures": ["NoSuchClass"], "model_type": "no_such"}'},
    "broken-config": {"config.json": b"{", "model.safetensors": weights(GOOD)},
    "truncated": {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights(GOOD)[:30]},
    "lying": {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": weights(GOOD.replace("[0,4]", "[0,8]"), 8),
    },
    "huge-header": {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": struct.pack("<Q", 2**62)},
    "notes.txt": {},
}
LLAMA = ["--model", "llama-3.1-8b"]

CASES = [
    pytest.param([], 0, None, "", id="nothing at all shows the help"),
    pytest.param(["--r", "8"], 2, "usage", "no model", id="no model"),
    pytest.param(["--modle", "x"], 2, "usage", "--model", id="a typo in an option"),
    *(
        pytest.param([*command, option, "4"], 2, "usage", f"try    {said}\n", id=f"{' '.join(command)} {option}")
        for command, option, said in (
            ([], "--rank", "--r"),
            ([], "--lora_r", "--r"),
            ([], "--target-modules", "--targets"),
            ([], "--load-in-4bit", "--base-precision nf4"),
            ([], "--batch-size", "lora-size plan --batch-size"),
            ([], "--lora-alpha", "leave it out: no size depends on it"),
            ([], "--dropout", "it has no option: give it as lora_dropout in an adapter_config.json, with --config"),
            ([], "--use-qalora", "it has no option: give it as use_qalora in an adapter_config.json, with --config"),
            ([], "--output", "write the answer into a file with > FILE"),
            ([], "-o", "write the answer into a file with > FILE"),
            (["plan"], "--per_device_train_batch_size", "--batch-size"),
            ([], "--frmat", "did you mean --format?"),
            (["plan"], "--bf16", "--mixed-precision bf16"),
            (["batch"], "--base-precision", "lora-size --base-precision"),
            (["check"], "--offline", "leave it out: check never asks the network"),
            (["models"], "--online", "leave it out: models never asks the network"),
            ([], "--nonsense", "lora-size --help"),
        )
    ),
    pytest.param(["estimate", *LLAMA], 2, "usage", "an estimate needs none\n", id="an estimate by name"),
    pytest.param(["llama"], 2, "usage", "a model is given as --model llama", id="a model without its option"),
    pytest.param(["verify", *LLAMA], 2, "usage", "it is an option: --verify", id="an option for a command"),
    *(
        pytest.param([*LLAMA, "--timeout", value], 2, "usage", "--timeout", id=f"a time of {value}")
        for value in ("nan", "inf", "-inf", "-1", "0", "1e999", "soon")
    ),
    *(
        pytest.param([*before, option, empty], 2, "usage", "is empty", id=f"{option} that is empty: {empty!r}")
        for before, option, empty in (
            ([], "--model", ""),
            ([], "--adapter", ""),
            ([], "-m", " "),
            (LLAMA, "--config", ""),
            (LLAMA, "--revision", ""),
            (LLAMA, "--subfolder", ""),
            (LLAMA, "--tokenizer", ""),
            (["plan", *LLAMA], "--gpu", ""),
            (["sweep"], "-m", ""),
            (["sweep", *LLAMA], "--plot", ""),
            (["batch"], "--offline", ""),
            (["check", "."], "--strict", ""),
        )
    ),
    pytest.param(["llama-3.1-8b"], 2, "usage", "--model llama-3.1-8b", id="a model without its option"),
    pytest.param(["chek"], 2, "usage", "check", id="a typo in a command"),
    *(
        pytest.param(
            [command, "gpt2"], 2, "usage", "given as --model gpt2", id=f"{command} of a model without its option"
        )
        for command in ("plan", "sweep")
    ),
    pytest.param(["--model", "--json"], 2, "usage", "--json is an option", id="an option in a name's place"),
    pytest.param([*LLAMA, "--json", "--format", "csv"], 2, "usage", "--format csv and --json", id="two forms"),
    pytest.param([*LLAMA, "-q", "--json"], 2, "usage", "--json and --quiet", id="two forms, one of them quiet"),
    pytest.param(
        ["check", ".", "--json", "--format", "sarif"], 2, "usage", "--format sarif", id="two forms of a check"
    ),
    *(
        pytest.param([*LLAMA, *twice], 2, "usage", f"try    {said}\n", id=f"{twice[-2]} twice")
        for twice, said in (
            (["-t", "q_proj", "-t", "v_proj"], "give --targets once, with commas between what it lists"),
            (["--layers", "0", "--layers", "3-5"], "give --layers once, with commas between what it lists"),
        )
    ),
    pytest.param(["plan", *LLAMA, "-q", "--format", "csv"], 2, "usage", "--quiet", id="two forms of a plan"),
    *(
        pytest.param(
            ["plan", *LLAMA, "--tokens", "9", "--price", value], 2, "usage", "--price", id=f"a price of {value}"
        )
        for value in ("nan", "inf", "-1")
    ),
    *(
        pytest.param([*LLAMA, *form, closer], 2, "usage", f"where  {closer}\n", id=f"{closer} in {' '.join(form)}")
        for form in (["-q"], ["--format", "csv"])
        for closer in ("--explain", "--tree")
    ),
    pytest.param(
        [*LLAMA, "--vocab-size", "128257", "--tokenizer", "x"], 2, "usage", "one of the two", id="rows said twice"
    ),
    pytest.param(["check"], 2, "usage", "where  PATHS\n", id="an argument by the name that the help has"),
    pytest.param(
        ["--model", "llama-3.1-8", "--offline"], 3, "not_found", "meta-llama/Llama-3.1-8B", id="a typo in the model"
    ),
    pytest.param(["--model", "some-org/some-model", "--offline"], 3, "offline", "", id="not cached, offline"),
    pytest.param(["--model", "{empty}"], 3, "not_found", "config.json", id="a folder without a model"),
    pytest.param(["--model", "./no/such/folder"], 3, "not_found", "", id="a folder that is not there"),
    pytest.param(["--model", "{no-weights-odd-class}"], 3, "no_weights", "", id="an unknown class without weights"),
    pytest.param(["--model", "{broken-config}"], 2, "malformed_config", "config.json", id="broken config.json"),
    pytest.param(["--model", "{truncated}"], 2, "malformed_header", "model.safetensors", id="truncated file"),
    pytest.param(["--model", "{lying}"], 2, "malformed_header", "'a'", id="a header that lies"),
    pytest.param(["--model", "{huge-header}"], 2, "malformed_header", "100,000,000", id="a header without end"),
    pytest.param([*LLAMA, "--r", "0"], 2, "invalid_lora", "r", id="r of 0"),
    pytest.param([*LLAMA, "--r", "-1"], 2, "invalid_lora", "positive", id="r of -1"),
    pytest.param([*LLAMA, "--r", str(10**30)], 2, "invalid_lora", "", id="r of 10**30"),
    pytest.param([*LLAMA, "--r", "eight"], 2, "usage", "eight", id="r that is no number"),
    pytest.param([*LLAMA, "--r", "4,8"], 2, "usage", "lora-size sweep --r 4,8\n", id="several ranks"),
    pytest.param(
        ["plan", *LLAMA, "--base-precision", "nf4,bf16"],
        2,
        "usage",
        "lora-size sweep --base-precision nf4,bf16\n",
        id="several precisions",
    ),
    pytest.param(["sweep", *LLAMA, "--base-precision", ""], 2, "usage", "fp32", id="a precision without a name"),
    pytest.param([*LLAMA, "--num-labels", "2,3"], 2, "usage", "--help\n", id="several of what no sweep crosses"),
    pytest.param([*LLAMA, "--targets", "x"], 2, "no_target_modules", "", id="a name that the model has not"),
    pytest.param([*LLAMA, "--targets", "qz"], 2, "no_target_modules", "", id="an unknown letter"),
    pytest.param([*LLAMA, "--targets", ""], 2, None, "", id="empty target list"),
    pytest.param([*LLAMA, "--targets", "re:("], 2, None, "", id="a regular expression that is none"),
    pytest.param([*LLAMA, "--targets", "norm"], 2, "unsupported_module", "norm", id="a norm"),
    pytest.param([*LLAMA, "--layers", "3-1"], 2, "usage", "--layers", id="layers backwards"),
    pytest.param([*LLAMA, "--set", "x"], 2, "usage", "--set", id="--set without a value"),
    pytest.param([*LLAMA, "--base-precision", "int7"], 2, "usage", "nf4", id="a precision that is none"),
    pytest.param([*LLAMA, "--offline", "--online"], 2, "usage", "contradict", id="offline and online"),
    pytest.param([*LLAMA, "--config", "no-such.json"], 3, "not_found", "no-such.json", id="a config that is not there"),
    pytest.param(["batch", "no-such.jsonl"], 3, "not_found", "no-such.jsonl", id="a batch that is not there"),
    pytest.param(
        ["batch", "/proc/self/mem"], 3, "not_found", "/proc/self/mem", id="a batch that opens but is not read"
    ),
    pytest.param(["models", "zzzzzz"], 3, "not_found", "lists all of them", id="a pattern that matches nothing"),
    *(
        pytest.param(
            ["models", typo], 3, "not_found", f"did you mean `lora-size models {word}`?\n", id=f"{typo}, a typo"
        )
        for typo, word in (("qwn", "qwen"), ("lamma", "llama"), ("berrt", "bert"))
    ),
    pytest.param(
        ["models", "qwen2.5-7b-instuct"], 3, "not_found", "did you mean Qwen/Qwen2.5-7B", id="a typo in an id"
    ),
    pytest.param(
        ["completion"], 2, "usage", "Choose from: bash, zsh, fish\n", id="one line, whatever click has between"
    ),
    pytest.param(["--config", ""], 2, "usage", "where  --config\n", id="an option by its long name"),
    pytest.param(["--json", "models"], 2, "usage", "behind the command", id="an option before the command"),
]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    def command(arguments: list[str]) -> tuple[int, str, str]:
        places = {}
        for name, files in FOLDERS.items():
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            places[name] = str(folder)
            for file, content in files.items():
                (folder / file).write_bytes(content)
        filled = [places.get(argument[1:-1], argument) if argument[:1] == "{" else argument for argument in arguments]
        with pytest.raises(SystemExit) as end:
            main(filled)
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return command


@pytest.mark.parametrize(("arguments", "exit_code", "code", "says"), CASES)
def test_bad_input_ends_in_one_message_and_its_exit_code(
    run: Callable, arguments: list[str], exit_code: int, code: str | None, says: str
) -> None:
    found, out, err = run(arguments)
    assert found == exit_code
    assert says in err
    assert "Traceback" not in err
    if exit_code:
        assert out == ""
        assert err.startswith("Error: ")
        assert "  try    " in err
        assert err.rstrip().endswith(f"code   {code}") or code is None


def test_a_fault_of_the_program_is_one_message(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("estimator.cli.estimate.estimate", broken)
    code, out, err = run([*LLAMA])
    assert (code, out) == (2, "")
    assert "ZeroDivisionError" in err
    assert "please report" in err
