"""What `largest` says fits, `plan` says fits; one more does not."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from unittest.mock import patch

import pytest

from estimator.errors import LoraSizeError
from estimator.sizes.memory.blocks import Block, Linear
from estimator.sizes.memory.norms import Norm
from estimator.sizes.memory.optimizers import Trained
from estimator.sizes.memory.peak import BaseInMemory, training_memory
from estimator.sizes.memory.shape import Shape
from estimator.sizes.memory.training import Adapter, Training

pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from estimator.jobs.base import BaseCache  # noqa: E402
from estimator.jobs.estimate import estimate  # noqa: E402
from estimator.jobs.planning import largest as plan  # noqa: E402
from estimator.jobs.planning.memory import memory_of  # noqa: E402
from estimator.jobs.planning.plan import plan as plan_run  # noqa: E402
from estimator.jobs.planning.serve import Serving, serve  # noqa: E402
from estimator.request.request import Request  # noqa: E402

BLOCK = Block(
    attention=(Linear("q_proj", 512, 512), Linear("o_proj", 512, 512)),
    mlp=(Linear("up_proj", 512, 2048), Linear("down_proj", 2048, 512)),
    norms=(Norm(512, "rms"), Norm(512, "rms")),
    query=512,
    key_value=128,
    mixed=512,
    inner=2048,
    is_gated=True,
)
SHAPE = Shape(blocks=(BLOCK,) * 4, hidden=512, vocabulary=32_000, heads=8, activation="silu", head="lm_head")


def memory(rank: int, **settings_of_run):
    trained = [Trained((rank, 512), 4), Trained((512, rank), 4)]
    adapter = Adapter(ranks={"q_proj": rank}, parameters=1024 * rank, parameter_bytes=4096 * rank)
    base = BaseInMemory(weight_bytes=200_000_000, width=2)
    return training_memory(SHAPE, base, adapter, trained, Training(**settings_of_run))


@settings(max_examples=60)
@given(
    gpu=st.integers(3 * 10**9, 10**11),
    checkpointing=st.booleans(),
    loss=st.sampled_from(("standard", "fused", "chunked")),
    length=st.integers(1, 4096),
)
def test_the_largest_batch_fits_and_one_more_does_not(gpu: int, checkpointing: bool, loss: str, length: int) -> None:
    def excess(batch: int) -> float:
        run = memory(8, batch_size=batch, sequence_length=length, gradient_checkpointing=checkpointing, loss=loss)
        return plan.excess(run, gpu)

    largest = plan.largest_value(excess, 4096)
    if largest is None:
        assert excess(1) > 0
    else:
        assert excess(largest) <= 0
        assert largest == 4096 or excess(largest + 1) > 0


@given(
    limit=st.integers(0, 2**24),
    threshold=st.integers(0, 2**17),
    power=st.sampled_from((1, 2, 3)),
    jump=st.integers(0, 10**6),
    refused=st.booleans(),
)
def test_search_finds_the_threshold(limit: int, threshold: int, power: int, jump: int, refused: bool) -> None:
    """Of what grows straight or faster, or leaps, or is refused behind it."""

    def excess(n: int) -> float:
        if n <= threshold:
            return n**power - threshold**power
        return inf if refused else n**power - threshold**power + jump

    assert plan.largest_value(excess, limit) == (min(limit, threshold) or None)


def test_search_asks_few_questions_of_what_grows_straight() -> None:
    asked: list[int] = []

    def excess(n: int) -> int:
        asked.append(n)
        return 48 * n - 100_000

    assert plan.largest_value(excess, 2**17) == 2083
    assert len(asked) == 4


@given(
    rank=st.integers(1, 256),
    batch=st.integers(1, 64),
    gpus=st.integers(1, 64),
    strategy=st.sampled_from(("ddp", "zero1", "zero2", "zero3", "fsdp")),
)
def test_bounds_are_in_order(rank: int, batch: int, gpus: int, strategy: str) -> None:
    run = memory(rank, batch_size=batch, gpus=gpus, strategy=strategy)
    for peak in (run.allocated, run.reserved, run.device):
        assert 0 < peak.lower <= peak.expected <= peak.upper
    assert run.allocated.expected <= run.reserved.expected <= run.device.expected


BASES = BaseCache()


@settings(max_examples=10)
@given(
    gpu=st.integers(10**9, 60 * 10**9),
    batch=st.integers(1, 8),
    length=st.integers(64, 4096),
    checkpointing=st.booleans(),
    rank=st.integers(1, 64),
    optimizer=st.sampled_from(("adamw_torch", "paged_adamw_8bit", "sgd")),
    share=st.sampled_from(
        [(1, "ddp"), *((n, s) for n in (2, 7, 64) for s in ("ddp", "zero1", "zero2", "zero3", "fsdp"))]
    ),
    precision=st.sampled_from((("stored", None), ("fp32", None), ("int8", None), ("nf4", None), ("nf4", True))),
    mixed=st.sampled_from(("no", "bf16", "fp16")),
    loss=st.sampled_from(("standard", "in_place", "fused", "chunked")),
    attention=st.sampled_from(("eager", "sdpa", "flash_attention_2")),
    targets=st.sampled_from((("qv", "20-23"), ("qkvo", None), ("all-linear", None))),
    packing=st.booleans(),
    lora=st.sampled_from(
        ({}, {"use_dora": True}, {"bias": "all"}, {"trainable_token_indices": [1, 2]},
         {"modules_to_save": ["input_layernorm"]}, {"rank_pattern": {"v_proj": 64}}, {"lora_dropout": 0.1})
    ),
    positions=st.sampled_from((1, 300, 32_768)),
)  # fmt: skip
def test_what_largest_says_plan_says(
    gpu, batch, length, checkpointing, rank, optimizer, share, precision, mixed, loss, attention, targets, packing,
    lora, positions,
) -> None:  # fmt: skip
    request = Request(model="qwen2.5-0.5b", r=rank, targets=targets[0], layers=targets[1], lora=lora, dtype="bf16",
                      base_precision=precision[0], prepare_kbit=precision[1],
                      set={"max_position_embeddings": positions})  # fmt: skip
    run = Training(
        batch_size=batch, sequence_length=length, gradient_checkpointing=checkpointing, optimizer=optimizer,
        gpus=share[0], strategy=share[1], mixed_precision=mixed, loss=loss, attention=attention, packing=packing,
    )  # fmt: skip
    with patch("estimator.jobs.planning.plan.changes", return_value=((), ())):  # which ask for more plans
        found = plan_run(request, run, gpu).largest

    def fits(name: str, value: int) -> bool:
        """What `plan` judges, without the rest of a plan; what is refused does not fit."""
        asked, changed = (request._replace(r=value), run) if name == "r" else (request, replace(run, **{name: value}))
        try:
            return plan.fits(memory_of(estimate(asked, bases=BASES), changed, BASES), gpu) == "yes"
        except LoraSizeError:
            return False

    for name, value in found.items():
        assert value is None or fits(name, value)
        if value != {"batch_size": plan.MAX_BATCH, "sequence_length": positions, "r": plan.MAX_RANK}[name]:
            assert not fits(name, (value or 0) + 1)


@settings(max_examples=5)
@given(
    gpu=st.integers(10**9, 60 * 10**9),
    model=st.sampled_from(("qwen2.5-0.5b", "Qwen/Qwen3.5-27B", "gpt2")),
    adapters=st.integers(1, 64),
    rank=st.sampled_from((8, 16, 256)),
    batch=st.integers(1, 64),
    length=st.integers(1, 4096),
    gpus=st.sampled_from((1, 2, 8)),
)
def test_what_serving_calls_the_largest_fits_and_one_more_does_not(
    gpu, model, adapters, rank, batch, length, gpus
) -> None:
    request = Request(
        model=model, targets="default" if model == "gpt2" else "q_proj,v_proj", dtype="bf16", offline=True
    )
    asked = Serving(adapters=adapters, max_lora_rank=rank, batch_size=batch, sequence_length=length, gpus=gpus)
    with patch("estimator.jobs.planning.plan.BaseCache", return_value=BASES):  # each serve loads the base anew
        found = serve(request, asked, gpu)
        for name in ("batch_size", "sequence_length"):
            value = found.largest[name]
            assert value is None or serve(request, replace(asked, **{name: value}), gpu).fits == "yes"
            if value is None or (name == "batch_size" and value < plan.MAX_BATCH):
                assert serve(request, replace(asked, **{name: (value or 0) + 1}), gpu).fits != "yes"
