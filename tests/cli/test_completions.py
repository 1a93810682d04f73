"""What a shell completes."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

from estimator.cli.group import cli


@pytest.mark.parametrize(
    ("words", "begun", "kind", "among"),
    [
        pytest.param(["--model"], "qwen2.5-0", "plain", "qwen2.5-0.5b", id="a model by its alias"),
        pytest.param(["-m"], "meta-llama/Llama-3.1", "plain", "meta-llama/Llama-3.1-8B", id="a model by its id"),
        pytest.param(["sweep", "-m"], "gpt2-", "plain", "gpt2-medium", id="a model of a sweep"),
        pytest.param(["plan", "-m"], "gpt2-", "plain", "gpt2-xl", id="a model of a plan"),
        pytest.param(["models"], "llama-3.1", "plain", "llama-3.1-8b", id="a pattern"),
        pytest.param(["-m"], "./my", "file", "./my", id="a folder"),
        pytest.param(["plan", "--gpu"], "RTX", "plain", "rtx4090", id="a GPU"),
        pytest.param(["--base-precision"], "n", "plain", "nf4", id="a choice"),
        pytest.param([], "sw", "plain", "sweep", id="a command"),
        pytest.param(["plan", "gpt2"], "--gpu-", "plain", "--gpu-memory", id="behind a word that belongs to no option"),
    ],
)
def test_a_shell_completes(words: list[str], begun: str, kind: str, among: str) -> None:
    found = ShellComplete(cli, {}, "lora-size", "_LORA_SIZE_COMPLETE").get_completions(words, begun)
    assert (kind, among) in [(item.type, item.value) for item in found]
    assert all(item.value.lower().startswith(begun.lower()) for item in found)
