"""The command `--adapter`: its forms, its exit codes, and the options that mean nothing beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from estimator.cli.main import main

CONFIG = {
    "peft_type": "LORA",
    "r": 32,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "base_model_name_or_path": "meta-llama/Llama-3.1-8B",
}
IMPLIED = 109_086_416  # the README's headline: r 32 on q, k, v and o


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable:
    def command(*options: str, size: int = IMPLIED) -> tuple[int, str, str]:
        (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG))
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize {size}\n"
        (tmp_path / "adapter_model.safetensors").write_text(pointer)
        with pytest.raises(SystemExit) as end:
            main(["--adapter", str(tmp_path), "--offline", *options])
        return end.value.code, *capsys.readouterr()

    return command


def test_quiet_is_implied_actual_and_status(run: Callable) -> None:
    assert run("-q") == (0, f"{IMPLIED}\t{IMPLIED}\texact\n", "")


@pytest.mark.parametrize("form", [["--json"], ["--format", "json"]])
def test_json(run: Callable, form: list[str]) -> None:
    code, out, _ = run(*form)
    document = json.loads(out)
    assert (code, document["status"]) == (0, "exact")
    assert document["implied"]["bytes"] == document["actual"]["bytes"] == IMPLIED


def test_a_file_that_no_tensor_fits_in_is_damaged(run: Callable) -> None:
    code, out, _ = run("-q", size=48)
    assert (code, out) == (1, f"{IMPLIED}\t48\tdamaged\n")


@pytest.mark.parametrize(
    ("option", "implied"),
    [pytest.param(["--r", "16"], 54_560_368, id="rank"), pytest.param(["--model", "gpt2"], "", id="base")],
)
def test_what_the_config_says_can_be_overruled(run: Callable, option: list[str], implied: int | str) -> None:
    shown = run("-q", *option)[1].split("\t")[0]
    assert shown == str(implied)


@pytest.mark.parametrize(
    "options",
    [
        ["--verify"],
        ["--verify", "--device", "meta"],
        ["--device", "meta"],
        ["--train-step"],
        ["--trust-remote-code"],
        ["--explain"],
        ["--tree"],
        ["--config", "x.json"],
        ["--no-double-quant"],
        ["--quant-storage", "bf16"],
        ["--compute-dtype", "bf16"],
        ["--format", "csv"],
        ["--format", "markdown"],
    ],
    ids=" ".join,
)
def test_options_without_a_meaning_are_refused(run: Callable, options: list[str]) -> None:
    code, out, err = run(*options)
    assert (code, out) == (2, "")
    assert f"where  {options[0]}\n" in err
    assert "code   usage" in err


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        pytest.param(
            {**CONFIG, "base_model_name_or_path": "/home/me/base"}, 3, "--model", id="a base on another machine"
        ),
        pytest.param({"config": {"ln_after": False}}, 2, "none of PEFT's", id="another library's adapter_config.json"),
    ],
)
def test_what_has_no_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: dict, code: int, words: str
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit) as end:
        main(["--adapter", str(tmp_path), "--offline"])
    assert end.value.code == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("named", ["adapter_model.safetensors", "."])
def test_weights_without_their_config_are_a_check_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], named: str
) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"12345678")
    with pytest.raises(SystemExit) as end:
        main(["check", str(tmp_path / named)])
    assert end.value.code == 1
    assert "[no_config]" in capsys.readouterr().out
