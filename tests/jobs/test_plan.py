"""Plans and sweeps of bundled models: what the contract promises of their JSON, and that they agree with themselves."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner

from estimator.cli.plan import command as plan_command
from estimator.cli.sweep import command as sweep_command
from estimator.errors import UsageError
from estimator.jobs.largest import Limits, within_limits
from estimator.jobs.plan import plan
from estimator.jobs.training import _optimizer, training_from
from estimator.request.request import Request
from estimator.sizes.gpus import gpu_bytes
from estimator.sizes.training import Training
from tests.hub.models import header_of, weights_file

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


def test_changes_say_which_of_them_suffice() -> None:
    answer = plan(REQUEST._replace(base_precision="bf16"), replace(TRAINING, gradient_checkpointing=False), 24 * 10**9)
    assert answer.fits != "yes"
    saved = [change.saves_bytes for change in answer.changes]
    assert saved == sorted(saved, reverse=True)
    assert all(change.saves_bytes > 0 for change in answer.changes)
    assert answer.together


def test_nothing_is_proposed_where_it_fits() -> None:
    assert plan(REQUEST, TRAINING, 10**12).changes == ()


def test_checkpoints_on_disk_by_hand() -> None:
    sizes = plan(REQUEST, TRAINING, save_total_limit=3).disk
    states = 2 * 4 * 13_631_488 + 256 * 4
    assert sizes["checkpoint_bytes"] == sizes["adapter_bytes"] + states
    assert sizes["kept_bytes"] == 3 * sizes["checkpoint_bytes"]
    assert sizes["download_bytes"] == 2 * 8_030_261_248  # bf16, as config.json says


AXOLOTL = """base_model: NousResearch/Llama-3.2-1B
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_linear: true
sequence_len: 2048
micro_batch_size: 3
gradient_accumulation_steps: 2
gradient_checkpointing: true
optimizer: adamw_bnb_8bit
datasets: []
"""


def test_a_trainers_file_says_how_it_trains(tmp_path) -> None:
    path = tmp_path / "axolotl.yaml"
    path.write_text(AXOLOTL)
    training, notes = training_from(str(path), {"batch_size": 5})
    assert training.batch_size == 5  # what is given beside it wins
    assert (training.sequence_length, training.optimizer) == (2048, "adamw_bnb_8bit")
    assert training.gradient_checkpointing
    assert [note.code for note in notes] == ["training_from_config"]


def test_a_file_that_limits_no_sequence_says_what_is_taken(tmp_path) -> None:
    path = tmp_path / "torchtune.yaml"
    path.write_text("model:\n  _component_: torchtune.models.llama3_1.lora_llama3_1_8b\n  lora_rank: 8\n"
                    "  lora_attn_modules: [q_proj]\ntokenizer:\n  max_seq_len: null\nbatch_size: 2\n")  # fmt: skip
    codes = [[note.code for note in training_from(str(path), given)[1]] for given in ({}, {"sequence_length": 512})]
    assert codes == [["training_from_config", "length_assumed"], ["training_from_config"]]


@pytest.mark.parametrize(
    ("name", "optim"),
    [
        pytest.param("torch.optim.AdamW", "adamw_torch", id="torchtune"),
        pytest.param("bitsandbytes.optim.PagedAdamW8bit", "paged_adamw_8bit", id="bitsandbytes"),
        pytest.param("adamw_bnb_8bit", "adamw_bnb_8bit", id="transformers' own name"),
    ],
)
def test_optimizers_that_are_named_by_their_class(name: str, optim: str) -> None:
    assert _optimizer(name) == optim


def test_without_a_file_the_librarys_defaults_hold() -> None:
    assert training_from(None, {"batch_size": None}) == (Training(), ())


@pytest.mark.parametrize(
    ("architecture", "targets"),
    [("RwkvForCausalLM", "key,value"), ("MiniMaxForCausalLM", "out_proj"), ("KimiLinearForCausalLM", "q_proj")],
)
def test_layers_without_a_ceiling_never_surely_fit(tmp_path, architecture: str, targets: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture], "dtype": "bfloat16"}))
    answer = plan(Request(model=str(tmp_path), targets=targets, offline=True), Training(), 10**13)
    assert answer.fits == "maybe"
    assert set(answer.largest.values()) == {None}
    assert "states_not_modelled" in {note.code for note in answer.notes}


@pytest.mark.parametrize(
    ("model", "targets"),
    [
        ("ai21labs/Jamba-v0.1", "all-linear"),
        ("Qwen/Qwen3-Coder-Next", "all-linear"),
        ("Qwen/Qwen3.5-27B", "qkvogud"),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "in_proj,q_proj,v_proj"),
        ("state-spaces/mamba-2.8b-hf", "in_proj,x_proj"),
    ],
)
def test_scans_have_a_ceiling_in_torch_and_a_floor_in_kernels(model: str, targets: str) -> None:
    run = Training(gradient_checkpointing=True, packing=True)
    answer = plan(Request(model=model, targets=targets, offline=True, dtype="bf16"), run, 10**13)
    assert answer.fits == "yes"
    assert "scans_in_torch" in {note.code for note in answer.notes}
    assert answer.largest["sequence_length"] or answer.largest["batch_size"]
    assert answer.memory.device.lower < answer.memory.device.expected


def test_the_ceiling_of_packed_scans_is_no_lower_than_the_middle() -> None:
    """What older bitsandbytes keep of packed matrices' inputs moves where a checkpoint runs again."""
    run = Training(
        batch_size=2, sequence_length=9000, gradient_checkpointing=True, mixed_precision="bf16", loss="fused"
    )
    model = "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16"
    request = Request(model=model, targets="in_proj", base_precision="nf4", dtype="bf16", offline=True)
    peak = plan(request, run).memory.allocated
    assert peak.lower <= peak.expected <= peak.upper


def test_a_class_that_nobody_knows_never_surely_fits(tmp_path) -> None:
    config = {"architectures": ["OddForCausalLM"], "model_type": "odd", "hidden_size": 64, "vocab_size": 101}
    (tmp_path / "config.json").write_text(json.dumps(config))
    matrices = {"net.embed.weight": (101, 64), "net.mix.query.weight": (64, 64), "net.mix.value.weight": (64, 64)}
    file = weights_file(header_of({name: ("F32", shape) for name, shape in matrices.items()}))
    (tmp_path / "model.safetensors").write_bytes(file.part(0, file.size))
    answer = plan(Request(model=str(tmp_path), targets="query,value"), Training(batch_size=1), 10**13)
    assert (answer.fits, set(answer.largest.values())) == ("maybe", {None})
    assert "activations_inferred" in {note.code for note in answer.notes}


def test_the_floor_of_eager_attention_keeps_its_own_softmax() -> None:
    run = Training(batch_size=1, sequence_length=8192, packing=True, attention="eager", mixed_precision="fp16")
    run = replace(run, gradient_checkpointing=True)
    memory = plan(Request(model="BAAI/bge-small-en-v1.5", targets="all-linear", offline=True), run).memory
    for peak in (memory.allocated, memory.device):
        assert peak.lower <= peak.expected <= peak.upper


@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_with_a_state_keep_what_goes_in_and_out_of_their_kernels(checkpointing: bool) -> None:
    """In and out of Jamba's mixers: 16,384 + 8,192 elements in bf16; its layers' inputs alone under checkpointing."""
    request = Request(model="ai21labs/Jamba-v0.1", targets="qv", offline=True)
    run = Training(batch_size=1, sequence_length=1000, gradient_checkpointing=checkpointing, packing=True, loss="fused")
    runs = (run, replace(run, sequence_length=2000))
    kept = [
        next(p.lower_bytes for p in plan(request, run).memory.components if p.name == "activations kept")
        for run in runs
    ]
    each = 2 * 4096 * 32 if checkpointing else 2 * (16_384 + 8_192) * 20
    assert kept[1] - kept[0] > 1000 * each


def test_layers_of_convolutions_never_surely_fit(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["ConvNextModel"], "model_type": "convnext"}')
    request = Request(model=str(tmp_path), targets="all-linear", set={"hidden_size": 96})
    answer = plan(request, Training(batch_size=1), 10**13)
    assert (answer.fits, set(answer.largest.values())) == ("maybe", {None})
    assert "layers_not_modelled" in {note.code for note in answer.notes}


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
    assert {"base weights", "adapter weights", "gradients", "optimizer state"} <= {part["name"] for part in components}
    assert document["plan"]["gpu_memory"] == gpu_bytes("a100-80gb")
    assert document["plan"]["fits"] == "yes"
    assert set(document["plan"]["largest"]) == {"batch_size", "sequence_length", "r"}
    assert set(document["plan"]["disk"]) == {"adapter_bytes", "checkpoint_bytes", "download_bytes"}


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_a_sweep_crosses_what_it_is_given(form: str) -> None:
    options = ["--model", "llama-3.1-8b", "--r", "4,8", "--targets", "qv", "--targets", "qkvo", "--format", form]
    text = CliRunner().invoke(sweep_command, options, catch_exceptions=False).stdout
    rows = [(row["targets"], row["r"], row["parameters"]) for row in sweep_rows(form, text)]
    # by hand: 32 layers, r x (4,096 + 4,096) of q and o, r x (4,096 + 1,024) of k and v
    wanted = [("qv", "4", 1_703_936), ("qv", "8", 3_407_872), ("qkvo", "4", 3_407_872), ("qkvo", "8", 6_815_744)]
    assert rows == [(targets, r, str(parameters)) for targets, r, parameters in wanted]


def sweep_rows(form: str, text: str) -> list[dict[str, str]]:
    """The cases by the names of their columns, numbers without separators."""
    if form == "json":
        return [{name: str(value) for name, value in case.items()} for case in json.loads(text)["sweep"]]
    if form == "csv":
        return list(csv.DictReader(io.StringIO(text)))
    lines = [line for line in text.split("\n\n")[0].splitlines() if "---" not in line]
    split = [re.split(r" *\| *|  +", line.strip("| ")) for line in lines]
    return [dict(zip(split[0], [cell.replace(",", "") for cell in row], strict=False)) for row in split[1:]]


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
