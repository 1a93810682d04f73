"""Plans and sweeps of bundled models: what the contract promises of their JSON, and that they agree with themselves."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from estimator.cli.plan import command as plan_command
from estimator.cli.sweep import command as sweep_command
from estimator.errors import UsageError
from estimator.jobs.plan import largest_rank, plan
from estimator.request.request import Request
from estimator.sizes.training import Training

REQUEST = Request(model="llama-3.1-8b", r=16, targets="qkvo", base_precision="nf4")
TRAINING = Training(batch_size=2, gradient_checkpointing=True, mixed_precision="bf16")


@pytest.fixture(scope="module")
def planned():
    return plan(REQUEST, TRAINING, 40 * 10**9)


@pytest.mark.parametrize("field", ["batch_size", "sequence_length"])
def test_largest_fits_and_one_more_does_not(planned, field: str) -> None:
    largest = planned.largest[field]
    assert plan(REQUEST, replace(TRAINING, **{field: largest}), planned.gpu_memory).fits == "yes"
    assert plan(REQUEST, replace(TRAINING, **{field: largest + 1}), planned.gpu_memory).fits != "yes"


def test_the_largest_rank_fits_and_one_more_does_not(planned) -> None:
    largest = planned.largest["r"]
    assert plan(replace(REQUEST, r=largest), TRAINING, planned.gpu_memory).fits == "yes"
    assert plan(replace(REQUEST, r=largest + 1), TRAINING, planned.gpu_memory).fits != "yes"


def test_the_parts_of_a_lora_by_hand(planned) -> None:
    parts = {part.name: part for part in planned.memory.components}
    adapter = 4 * 13_631_488  # float32 weights of r 16 on q, k, v and o
    assert parts["adapter weights"].lower_bytes == parts["gradients"].lower_bytes == adapter
    assert parts["optimizer state"].lower_bytes == 2 * adapter + 256 * 4  # two moments; a step for each of 256 tensors


def test_without_a_gpu_nothing_is_judged() -> None:
    answer = plan(REQUEST, TRAINING)
    assert answer.fits is None
    assert set(answer.largest.values()) == {None}


def test_the_largest_rank_within_limits_is_arithmetic() -> None:
    request = replace(REQUEST, r=None)
    each = 13_631_488 // 16  # parameters of one rank
    assert largest_rank(request, max_file_bytes=None, max_parameters=10 * each) == 10
    assert largest_rank(request, max_file_bytes=None, max_parameters=10 * each - 1) == 9
    assert largest_rank(request, max_file_bytes=1000, max_parameters=None) is None


def test_zero_shards_what_it_says() -> None:
    alone, sharded = (plan(REQUEST, replace(TRAINING, gpus=8, strategy=name)) for name in ("zero1", "zero3"))
    one, three = ({p.name: p.upper_bytes for p in answer.memory.components} for answer in (alone, sharded))
    assert three["base weights"] == -(-one["base weights"] // 8)
    assert one["gradients"] == 8 * three["gradients"]


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(UsageError):
        plan(REQUEST, replace(TRAINING, optimizer="adamw"))


def test_json_of_a_plan_keeps_the_contract() -> None:
    options = ["--model", "llama-3.1-8b", "--gpu", "a100-80gb", "--gradient-checkpointing", "--json"]
    document = json.loads(CliRunner().invoke(plan_command, options, catch_exceptions=False).stdout)
    peak = document["plan"]["peak"]
    assert set(peak) == {"allocated", "reserved", "device"}
    assert all(set(bounds) == {"lower_bytes", "expected_bytes", "upper_bytes"} for bounds in peak.values())
    assert document["plan"]["fits"] in ("yes", "no", "maybe")
    assert set(document["plan"]["largest"]) == {"batch_size", "sequence_length", "r"}
    assert set(document["plan"]["disk"]) == {"adapter_bytes", "checkpoint_bytes", "download_bytes"}


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_a_sweep_crosses_what_it_is_given(form: str) -> None:
    options = ["--model", "llama-3.1-8b", "--r", "4,8", "--targets", "qv", "--targets", "qkvo", "--format", form]
    text = CliRunner().invoke(sweep_command, options, catch_exceptions=False).stdout
    wanted = ("1703936", "3407872", "6815744")  # by hand: qv and qkvo at r 4 and 8
    assert all(number in text.replace(",", "") for number in wanted)


def test_a_dtype_that_is_not_known_is_assumed_and_said() -> None:
    answer = plan(Request(model="openai-community/gpt2", online=False), Training())
    said = {note.code for note in answer.notes}
    assert ("dtype_assumed" in said) == (answer.answer.found.source == "snapshot")


def test_weights_of_an_assumed_dtype_are_not_called_exact() -> None:
    answer = plan(Request(model="openai-community/gpt2"), Training())
    weights = next(part for part in answer.memory.components if part.name == "base weights")
    assert weights.basis == "modelled"
    assert weights.upper_bytes == 2 * weights.lower_bytes  # float32 beside the bfloat16 that was assumed
