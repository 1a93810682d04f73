"""Floors and ceilings of a plan: layers that have none never surely fit."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from estimator.architecture.from_config import from_config
from estimator.jobs.planning.largest import fits
from estimator.jobs.planning.plan import plan
from estimator.request.request import Request
from estimator.sizes.memory.shape import shape_of
from estimator.sizes.memory.training import Training
from tests.hub.models import header_of, weights_file


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
    answer = plan(Request(model=model, targets=targets, offline=True, dtype="bf16"), run)
    assert fits(answer.memory, 10**13) == "yes"
    assert "scans_in_torch" in {note.code for note in answer.notes}
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


def test_a_ceiling_has_logits_that_are_named_unless_the_trainer_drops_them() -> None:
    """Beside the step of layers, of which one is walked back at a time: float32 copies, as autocast hands them over."""
    run = Training(batch_size=1, packing=True, mixed_precision="bf16", gradient_checkpointing=True)
    request = Request(model="llama-3.2-1b", targets="qv", offline=True)
    named, dropped = (
        plan(request, replace(run, drops_outputs=drops)).memory.allocated.upper for drops in (False, True)
    )
    assert named - dropped == pytest.approx(1.02 * 1024 * 128_256 * 4, rel=1e-6)  # with the margin of 2 %


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


def test_matrices_whose_use_is_not_known_never_surely_fit(tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["DeepseekV32ForCausalLM"]}))
    request = Request(model=str(tmp_path), targets="q_b_proj", offline=True, dtype="bf16")
    answer = plan(request, Training(batch_size=1), 10**14)
    assert (answer.fits, set(answer.largest.values())) == ("maybe", {None})
    assert "matrices_not_modelled" in {note.code for note in answer.notes}


@pytest.mark.parametrize(
    ("architecture", "note"),
    [
        pytest.param("HrmTextForCausalLM", "layers_run_again", id="two stacks of 2 that take turns"),
        pytest.param("PegasusXForConditionalGeneration", "blocks_not_modelled", id="tokens that see all"),
        pytest.param("BigBirdForMaskedLM", "blocks_not_modelled", id="block_sparse"),
    ],
)
def test_layers_that_run_otherwise_never_surely_fit(tmp_path, architecture: str, note: str) -> None:
    fields = {"num_layers_per_stack": 2, "num_hidden_layers": 16} if "Hrm" in architecture else {}
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture], "dtype": "bfloat16", **fields}))
    answer = plan(Request(model=str(tmp_path), targets="all-linear", offline=True), Training(), 10**14)
    assert (answer.fits, set(answer.largest.values())) == ("maybe", {None})
    assert note in {note.code for note in answer.notes}


def test_the_floor_of_an_ungated_mlp_is_never_above_the_middle() -> None:
    run = Training(batch_size=3, sequence_length=64, packing=True, loss="in_place")
    peak = plan(Request(model="bigscience/bloom-560m", r=16, dtype="bf16", offline=True), run).memory.allocated
    assert peak.lower <= peak.expected <= peak.upper


def test_norms_without_a_weight_are_norms() -> None:
    block = shape_of(from_config({"architectures": ["NanoChatForCausalLM"]})).blocks[0]
    assert sorted(norm.role for norm in block.norms) == ["", "", "k", "q"]


@pytest.mark.parametrize("groups", [1, 5, 12, 13])
def test_layers_that_share_their_weights_each_keep_their_own(groups: int) -> None:
    config = {"architectures": ["AlbertModel"], "num_hidden_layers": 12, "num_hidden_groups": groups}
    assert len(shape_of(from_config(config)).blocks) == 12


def test_a_norm_named_for_embeddings_behind_the_layers_is_the_last() -> None:
    shape = shape_of(from_config({"architectures": ["Lfm2ForCausalLM"], "model_type": "lfm2"}))
    assert (shape.outer_norms, shape.norms_sums, shape.final_norm) == ((0, 1), False, "model.embedding_norm")


def test_an_identity_in_a_norms_place_makes_no_layer_parallel() -> None:
    shape = shape_of(from_config({"architectures": ["ModernBertForMaskedLM"], "model_type": "modernbert"}))
    assert not any(block.is_parallel for block in shape.blocks)


@pytest.mark.parametrize(
    ("beside", "bytes_of_each"),
    [
        pytest.param("reference", 10, id="DPO: logits in bfloat16, as float32, and their log-softmax"),
        pytest.param("chosen", 5, id="ORPO: the same of half of them"),
        pytest.param(None, 0, id="reward models: nothing"),
    ],
)
def test_pairs_are_two_sequences_an_example_and_their_ceiling_has_what_is_beside(beside, bytes_of_each) -> None:
    """With the margin of 2 %."""
    run = Training(batch_size=3, sequence_length=512, packing=True, gradient_checkpointing=True)
    request = Request(model="llama-3.2-1b", targets="qv", offline=True)
    pairs = plan(request, replace(run, compares=2, beside=beside)).memory.allocated
    six = plan(request, replace(run, batch_size=6)).memory.allocated
    assert (pairs.lower, pairs.expected) == (six.lower, six.expected)
    assert pairs.upper - six.upper == pytest.approx(1.02 * 6 * 512 * 128_256 * bytes_of_each, rel=1e-6)


def test_what_is_reserved_never_falls_as_the_rank_grows() -> None:
    """With the rank the peak moves from a layer that looks at images to another: both leave blocks behind."""
    run = Training(batch_size=1, sequence_length=128, mixed_precision="fp16", gradient_checkpointing=True)
    request = Request(
        model="meta-llama/Llama-3.2-11B-Vision-Instruct", targets="all-linear", base_precision="nf4", offline=True
    )
    fewer, more = (plan(request._replace(r=r), replace(run, attention="eager")).memory.reserved for r in (16, 17))
    assert fewer.expected < more.expected


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        pytest.param({}, 3 + 2, id="of the class: one of three turns, then two"),
        pytest.param({"H_cycles": 3, "L_cycles": 2, "L_bp_cycles": [1, 2]}, 4 + 3, id="those that are named come last"),
        pytest.param({"H_cycles": 1, "L_cycles": 2, "L_bp_cycles": [9, 1]}, 2 + 1, id="no more turns than there are"),
    ],
)
def test_stacks_that_take_turns_keep_each_pass_that_wants_gradients(fields: dict, passes: int) -> None:
    """As transformers 5.23.0 counts them (modeling_hrm_text.py)."""
    config = {"architectures": ["HrmTextForCausalLM"], "model_type": "hrm_text", "num_layers_per_stack": 3, **fields}
    shape = shape_of(from_config(config))
    first, *_, last = shape.blocks
    assert (len(shape.blocks), shape.runs_again) == (3 * passes, True)
    assert [block.attention[0].name.split(".")[1] for block in (first, last)] == ["L_module", "H_module"]
