"""The hook as pre-commit runs it, on a scratch repository; and the action's script."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from estimator.jobs.checking.check import check
from tests.jobs.test_check import write

ROOT = Path(__file__).parents[2]
HOOK = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())[0]


def environment(tmp_path: Path) -> dict[str, str]:
    """`lora-size` of this checkout on the PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "lora-size").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m estimator "$@"\n')
    (programs / "lora-size").chmod(0o755)
    paths = (str(programs), os.path.dirname(sys.executable), os.environ["PATH"])
    return {
        **os.environ,
        "PATH": os.pathsep.join(paths),
        "PYTHONPATH": str(ROOT),
        "PRE_COMMIT_HOME": str(tmp_path / "home"),
    }


@pytest.mark.parametrize(
    "name",
    [
        "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "axolotl.yaml", "train.sh", "run.slurm",
        "model.safetensors", "model-00001-of-00002.safetensors", "consolidated.safetensors", "consolidated.00.pth", "pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin", "optimizer.pt", "optimizer.bin", "scaler.pt", "__0_0.distcp",
    ],
)  # fmt: skip
def test_the_hook_is_handed_what_check_judges(tmp_path: Path, name: str) -> None:
    assert re.search(HOOK["files"], f"adapters/{name}")
    (tmp_path / name).write_text("")
    (row,) = check([str(tmp_path / name)])
    assert "not_an_adapter" not in [problem.code for problem in row.problems]


@pytest.mark.parametrize(
    "name", ["README.md", "train.py", "config.json", ".pre-commit-config.yaml", ".github/workflows/a.yml"]
)
def test_the_hook_is_not_handed_what_is_nobody_s(name: str) -> None:
    assert not re.search(HOOK["files"], name) or re.search(HOOK["exclude"], name)


@pytest.mark.parametrize(("cut", "code"), [pytest.param(0, 0, id="healthy"), pytest.param(9, 1, id="cut short")])
def test_pre_commit_fails_a_commit_with_a_file_cut_short(tmp_path: Path, cut: int, code: int) -> None:
    pytest.importorskip("pre_commit")
    if shutil.which("git") is None:
        pytest.skip("needs git")
    repository = tmp_path / "repository"
    write(repository / "adapters" / "a", cut=cut)
    config = {"repos": [{"repo": "local", "hooks": [{**HOOK, "language": "system"}]}]}
    (repository / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    env = environment(tmp_path)
    for command in (["git", "init", "-q"], ["git", "add", "-A"]):
        subprocess.run(command, cwd=repository, env=env, check=True)
    command = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
    run = subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True)
    assert run.returncode == code, run.stdout + run.stderr
    assert ("cut_short" in run.stdout) == bool(code)


@pytest.mark.parametrize(("cut", "code"), [pytest.param(0, 0, id="healthy"), pytest.param(9, 1, id="cut short")])
def test_the_action_annotates_a_file_cut_short(tmp_path: Path, cut: int, code: int) -> None:
    write(tmp_path / "adapters" / "a", cut=cut)
    script = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"][-1]["run"]
    env = {**environment(tmp_path), "LORA_SIZE_PATHS": "adapters", "LORA_SIZE_ARGS": "--max-file-size 5MB"}
    run = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == code, run.stderr
    assert run.stdout.startswith("::error file=") == bool(code)
