"""Plans of bundled models: what the contract promises of their JSON, and that they agree with themselves."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from estimator.cli.plan import command as plan_command
from estimator.errors import UsageError
from estimator.jobs.planning.largest import Limits, within_limits
from estimator.jobs.planning.plan import plan
from estimator.request.request import Request
from estimator.sizes.memory.gpus import gpu_bytes
from estimator.sizes.memory.peak import WORKSPACE_BYTES
from estimator.sizes.memory.training import LITGPT, TODAY, Training

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
    assert plan(REQUEST._replace(r=largest), TRAINING, planned.gpu_memory).fits == "yes"
    assert plan(REQUEST._replace(r=largest + 1), TRAINING, planned.gpu_memory).fits != "yes"


def test_a_largest_that_memory_does_not_limit_says_where_it_stops() -> None:
    run = Training(batch_size=1, sequence_length=128, packing=True, gradient_checkpointing=True, optimizer="sgd")
    request = Request(model="HuggingFaceTB/SmolLM-135M", targets="qv", layers="0", offline=True)
    small, large = (plan(request, run, gigabytes * 10**9) for gigabytes in (2, 141))
    assert large.largest["r"] == 131_072
    assert [[note.code for note in answer.notes if note.code == "largest_stops"] for answer in (small, large)] == [
        [], ["largest_stops"]
    ]  # fmt: skip


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
    request = REQUEST._replace(r=None)
    each = 13_631_488 // 16  # parameters of one rank
    assert within_limits(request, Limits(parameters=10 * each))[0].r == 10
    assert within_limits(request, Limits(parameters=10 * each - 1))[0].r == 9
    assert within_limits(request, Limits(file_bytes=1000))[0].r is None


def test_target_sets_below_a_limit() -> None:
    rows = within_limits(REQUEST._replace(r=None), Limits(parameters=13_631_488))
    by_targets = {row.targets: row for row in rows}
    assert rows[0].targets is None  # the request's own come first
    assert by_targets[None].r == 16
    assert by_targets["qv"].r == 32  # half as many parameters a rank, by hand: 32 x 13,312
    assert "qkvo" not in by_targets  # the same modules as the request's own
    assert all(row.parameters <= 13_631_488 for row in rows)


def test_what_is_saved_along_is_not_trained() -> None:
    answer = plan(REQUEST._replace(vocab_size=128_257), TRAINING)
    parts = {part.name: part for part in answer.memory.components}
    assert answer.answer.adaptation.trainable_parameters == 13_631_488
    assert parts["gradients"].upper_bytes == 4 * 13_631_488


def test_k_bit_preparation_makes_the_embeddings_float32() -> None:
    plain, prepared = (plan(REQUEST._replace(prepare_kbit=switch), TRAINING) for switch in (False, True))
    weights = [
        next(p.upper_bytes for p in answer.memory.components if p.name == "base weights")
        for answer in (plain, prepared)
    ]
    halves = 2 * 128_256 * 4096 + 65 * 4096  # embedding, head and norms
    assert weights[1] - weights[0] == 2 * halves


@pytest.mark.parametrize(
    ("rows", "options", "bytes_more"),
    [
        pytest.param(128_000, {}, 2 * 96_000 * 4096 * 2, id="bf16, embeddings and head"),
        pytest.param(128_000, {"base_precision": "nf4"}, 2 * 96_000 * 4096 * 2, id="never packed"),
        pytest.param(
            128_000, {"base_precision": "nf4", "prepare_kbit": True}, 2 * 96_000 * 4096 * 4, id="float32 once prepared"
        ),
        pytest.param(16_000, {}, -2 * 16_000 * 4096 * 2, id="fewer"),
    ],
)
def test_another_vocabulary_weighs_and_makes_other_logits(rows: int, options: dict, bytes_more: int) -> None:
    request = Request(model="llama-2-7b", targets="qv", save_embedding_layers="no", dtype="bf16", **options)
    run = Training(gradient_checkpointing=True, packing=True)
    own, other = (
        {part.name: part.lower_bytes for part in plan(asked, run).memory.components}
        for asked in (request, request._replace(vocab_size=rows))
    )
    less = 2 * 2 * (rows - 32_000) * 4096 if options.get("prepare_kbit") else 0  # a floor that trl casts back
    assert other["base weights"] - own["base weights"] == bytes_more - less
    assert other["logits and loss"] / own["logits and loss"] == pytest.approx(rows / 32_000, rel=0.15)


def test_changes_say_which_of_them_suffice() -> None:
    answer = plan(REQUEST._replace(base_precision="bf16"), replace(TRAINING, gradient_checkpointing=False), 24 * 10**9)
    assert answer.fits != "yes"
    saved = [change.saves_bytes for change in answer.changes]
    assert saved == sorted(saved, reverse=True)
    assert all(change.saves_bytes > 0 for change in answer.changes)
    assert answer.together


@pytest.mark.parametrize(
    ("checkpointing", "change", "changed", "whose"),
    [
        pytest.param(False, "--gradient-checkpointing", {"gradient_checkpointing": True}, "litgpt", id="litgpt's"),
        pytest.param(True, "--base-precision nf4 --double-quant", {}, "torchtune", id="torchtune's"),
    ],
)
def test_changes_keep_to_the_software_that_is_said(checkpointing: bool, change: str, changed: dict, whose: str) -> None:
    """A loss in chunks is litgpt's or torchtune's; which of them would change with checkpointing, or 4 bits."""
    run = Training(batch_size=2, loss="chunked", gradient_checkpointing=checkpointing)
    request = Request(model="llama-3.2-1b", offline=True, dtype="bf16")
    after = request if changed else request._replace(base_precision="nf4", double_quant=True)
    told = replace(run, software=LITGPT if whose == "litgpt" else TODAY)
    answer, before, then = plan(request, run), plan(request, told), plan(after, replace(told, **changed))
    saved = {c.words: c.saves_bytes for c in answer.changes}
    assert saved[change] == before.memory.device.expected - then.memory.device.expected
    said = [note.message for note in answer.notes if note.code == "software_assumed"]
    assert [f"{whose}'s" in message.split(";")[0] for message in said] == [True]
    assert "software_assumed" not in {note.code for note in before.notes}


def test_nothing_is_proposed_where_it_fits() -> None:
    assert plan(REQUEST, TRAINING, 10**12).changes == ()


def test_checkpoints_on_disk_by_hand() -> None:
    sizes = plan(REQUEST, TRAINING, save_total_limit=3).disk
    states = 2 * 4 * 13_631_488 + 256 * 4
    assert sizes["checkpoint_bytes"] == sizes["adapter_bytes"] + states
    assert sizes["kept_bytes"] == 3 * sizes["checkpoint_bytes"]
    assert sizes["download_bytes"] == 2 * 8_030_261_248  # bf16, as config.json says


def test_zero_shards_what_it_says() -> None:
    alone, sharded = (plan(REQUEST, replace(TRAINING, gpus=8, strategy=name)) for name in ("zero1", "zero3"))
    one, three = ({p.name: p.lower_bytes for p in answer.memory.components} for answer in (alone, sharded))
    assert three["base weights"] == -(-one["base weights"] // 8)
    assert one["gradients"] == 8 * three["gradients"]


@pytest.mark.parametrize(
    ("changes", "strategy", "said"),
    [
        pytest.param({"base_precision": "nf4"}, "fsdp", True, id="4 bit in bytes"),
        pytest.param({"base_precision": "nf4", "quant_storage": "bf16"}, "fsdp", False, id="4 bit in floats"),
        pytest.param({"base_precision": "int8"}, "zero3", True, id="8 bit"),
        pytest.param({"base_precision": "bf16"}, "zero3", False, id="16 bit"),
        pytest.param({"base_precision": "nf4"}, "zero2", False, id="weights stay whole"),
    ],
)
def test_weights_that_cannot_be_cut_are_said(changes, strategy: str, said: bool) -> None:
    answer = plan(REQUEST._replace(**changes), replace(TRAINING, gpus=2, strategy=strategy))
    assert ("not_sharded" in {note.code for note in answer.notes}) == said


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(UsageError):
        plan(REQUEST, replace(TRAINING, optimizer="adamw"))


def test_json_of_a_plan_keeps_the_contract() -> None:
    options = ["--model", "llama-3.1-8b", "--gpu", "a100-80gb", "--gradient-checkpointing", "--json"]
    document = json.loads(CliRunner().invoke(plan_command, options, catch_exceptions=False).stdout)
    peak = document["plan"]["peak"]
    assert set(peak) == {"allocated", "reserved", "device"}
    assert all(set(bounds) == {"lower_bytes", "expected_bytes", "upper_bytes"} for bounds in peak.values())
    assert all(b["lower_bytes"] <= b["expected_bytes"] <= b["upper_bytes"] for b in peak.values())
    components = document["plan"]["components"]
    assert all(set(part) == {"name", "lower_bytes", "upper_bytes", "basis"} for part in components)
    assert {part["basis"] for part in components} == {"exact", "modelled"}
    assert all(part["lower_bytes"] == part["upper_bytes"] for part in components if part["basis"] == "exact")
    upper = {part["name"]: part["upper_bytes"] for part in components}
    assert {"base weights", "adapter weights", "gradients", "optimizer state", "margin of the model"} <= upper.keys()
    assert upper["workspaces"] == WORKSPACE_BYTES  # the margin is a part of its own
    assert document["plan"]["gpu_memory"] == gpu_bytes("a100-80gb")
    assert document["plan"]["fits"] == "yes"
    assert set(document["plan"]["largest"]) == {"batch_size", "sequence_length", "r"}
    assert set(document["plan"]["disk"]) == {"adapter_bytes", "checkpoint_bytes", "download_bytes"}


@pytest.mark.parametrize(
    ("changes", "run"),
    [
        pytest.param({}, {"optimizer": "paged_adamw_32bit", "gradient_accumulation": 4}, id="a plain run"),
        pytest.param(
            {"model": "EleutherAI/pythia-31m-deduped", "r": 1},
            {"sequence_length": 8192, "attention": "eager", "gradient_checkpointing": True, "loss": "fused"},
            id="masks of eager attention",
        ),
        pytest.param(
            {"model": "microsoft/Phi-3-mini-4k-instruct", "targets": "qkvo", "dora": True},
            {"sequence_length": 1, "loss": "fused"},
            id="a peak while running forward",
        ),
        pytest.param({}, {"gpus": 8, "strategy": "zero3", "gradient_checkpointing": True}, id="gathered weights"),
    ],
)
def test_parts_sum_to_no_less_than_the_peak(changes: dict, run: dict) -> None:
    memory = plan(Request(model="llama-3.1-8b")._replace(**changes), Training(**run)).memory
    assert sum(part.upper_bytes for part in memory.components) >= memory.device.upper


def test_a_dtype_that_is_not_known_is_assumed_and_said() -> None:
    answer = plan(Request(model="openai-community/gpt2", online=False), Training())
    said = {note.code for note in answer.notes}
    assert ("dtype_assumed" in said) == (answer.answer.found.source == "snapshot")


def test_weights_of_an_assumed_dtype_are_not_called_exact() -> None:
    answer = plan(Request(model="openai-community/gpt2"), Training(), 10**12)
    weights = next(part for part in answer.memory.components if part.name == "base weights")
    assert weights.basis == "modelled"
    more = weights.upper_bytes - weights.lower_bytes  # float32 beside the bfloat16 that was assumed
    assert more == 2 * 124_439_808
    said = plan(Request(model="openai-community/gpt2", dtype="bf16"), Training()).memory
    assert answer.memory.device.upper == said.device.upper + more


def test_no_change_stands_twice() -> None:
    words = [change.words for change in plan(REQUEST, TRAINING, 10**9).changes]
    assert len(words) == len(set(words))
