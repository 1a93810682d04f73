"""What `--verify` refuses before it begins, and what it leaves behind: nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext

import pytest

from estimator.errors import OfflineError, UnsupportedError, UsageError
from estimator.jobs.estimate import estimate
from estimator.jobs.verifying import verify as job
from estimator.jobs.verifying.folder import PREFIX
from estimator.request.request import Request
from estimator.sizes.memory.training import Training
from estimator.source.compact import compact
from estimator.source.found import StoredFile

REQUEST = Request(model="qwen2.5-0.5b", r=8, targets="qv")


@pytest.mark.parametrize("missing", ["torch", "peft", "transformers"])
def test_without_the_extra_the_message_names_the_one_command(monkeypatch, missing: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == missing else real(name, *rest))
    answer = estimate(REQUEST)
    with pytest.raises(UnsupportedError) as refusal:
        job.verify(REQUEST, answer, device="meta")
    assert missing in refusal.value.what
    assert refusal.value.way_out == "pip install 'lora-size[verify]'"


@pytest.mark.parametrize(
    ("installed", "is_refused"), [("5.9.1", True), ("5.23.0", True), ("5.24.0", False), ("5.24.1.dev0", False)]
)
def test_a_class_that_the_installed_release_lacks_is_refused(monkeypatch, installed: str, is_refused: bool) -> None:
    monkeypatch.setattr(job.metadata, "version", lambda name: installed)
    with pytest.raises(UnsupportedError) if is_refused else nullcontext() as refusal:
        job._require_release("DoryForCausalLM", "dory")
    if refusal:
        assert refusal.value.way_out == "pip install 'transformers>=5.24.0'"
    job._require_release("LlamaForCausalLM", "llama")


TEXT = json.dumps(
    {
        "__metadata__": {"format": "pt"},
        "lm_head.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "model.norm.weight": {"dtype": "F32", "shape": [3], "data_offsets": [24, 36]},
    },
    separators=(",", ":"),
).encode()


@pytest.mark.parametrize(
    "header", [TEXT, json.loads(TEXT), compact(TEXT)], ids=["a file's", "the cache's", "as the Hub's is taken apart"]
)
def test_what_is_stored_and_not_tied_is_kept_apart_wherever_the_header_is_from(header) -> None:
    answer = estimate(REQUEST)
    found = answer.found._replace(files=(StoredFile("model.safetensors", header, len(TEXT), 44 + len(TEXT)),))
    tree = answer.tree._replace(tied={"lm_head.weight": "model.embed_tokens.weight"})
    assert job._kept_apart(answer._replace(found=found, tree=tree)) == {"model.norm.weight"}


def test_what_cannot_fit_is_refused_by_our_own_plan(monkeypatch) -> None:
    answer = estimate(REQUEST)
    held = answer.base.loaded.footprint_bytes + 4 * answer.adaptation.trainable_parameters
    monkeypatch.setattr(job, "_free_bytes", lambda device: held - 1)
    with pytest.raises(UnsupportedError, match=f"{held:,}"):
        job._must_fit(answer, "cuda", None)
    monkeypatch.setattr(job, "_free_bytes", lambda device: held)
    job._must_fit(answer, "cuda", None)
    with pytest.raises(UnsupportedError):  # a step needs gradients and activations as well
        job._must_fit(answer, "cuda", job.STEP)


def test_a_step_is_what_the_trainers_file_plans(tmp_path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text(
        "base_model: Qwen/Qwen2.5-0.5B\nadapter: lora\nlora_r: 8\nlora_target_modules: [q_proj]\n"
        "sequence_len: 4096\nmicro_batch_size: 3\ngradient_checkpointing: true\noptimizer: lion_8bit\ndatasets: []\n"
    )
    step = job._step(REQUEST._replace(config=str(path)), estimate(REQUEST))
    assert (step.batch_size, step.sequence_length, step.gradient_checkpointing) == (3, 4096, True)
    assert step.optimizer == "adamw_torch"
    assert job._step(REQUEST, estimate(REQUEST)) == job.STEP


def test_where_nothing_trains_there_is_nothing_to_compare(tmp_path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text(
        "base_model: Qwen/Qwen2.5-0.5B\nadapter: lora\nlora_target_modules: [q_proj]\nunfrozen_parameters: [lm_head]\n"
    )
    request = REQUEST._replace(config=str(path))
    with pytest.raises(UsageError, match="freezes"):
        job.verify(request, estimate(request))


def test_a_peak_outside_the_plan_differs() -> None:
    answer, run = estimate(REQUEST), Training(batch_size=1, sequence_length=512)
    inside, outside = ({job.PEAK: size} for size in (1_500_000_000, 10**12))
    assert [c.equal for c in job._peak(answer, run, inside)] == [True]
    assert [c.equal for c in job._peak(answer, run, outside)] == [False]
    assert list(job._peak(answer, run, {})) == []


# Python leaves an interrupt ignored where the tests run in the background of a shell.
HOLDS_A_FOLDER = """
import signal, time
from estimator.jobs.verifying.folder import temporary_folder
signal.signal(signal.SIGINT, signal.default_int_handler)
with temporary_folder() as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_folder(tmp_path, number: int) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", HOLDS_A_FOLDER], env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
    folder = process.stdout.readline().strip()
    assert os.path.basename(folder).startswith(PREFIX)
    process.send_signal(number)
    process.wait(timeout=30)
    assert os.listdir(tmp_path) == []


def test_handlers_are_put_back() -> None:
    from estimator.jobs.verifying.folder import temporary_folder

    before = signal.getsignal(signal.SIGTERM)
    with temporary_folder():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.judges
def test_weights_that_are_not_cached_are_an_offline_error(monkeypatch, tmp_path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    pytest.importorskip("accelerate")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    request = REQUEST._replace(offline=True)
    with pytest.raises(OfflineError, match="not in the Hub's cache"):
        job.verify(request, estimate(request), device="cpu")
