"""What each GPU keeps, against DeepSpeed's own estimate and against torch's cuts."""

from __future__ import annotations

import pytest

from estimator.sizes.memory.optimizers import Trained
from estimator.sizes.memory.sharding import gathered, resident
from estimator.sizes.memory.training import Adapter, Training

PARAMETERS = 1_000_000
TRAINED = [Trained((1000, 1000), 2)]
ADAPTER = Adapter(ranks={}, parameters=PARAMETERS, parameter_bytes=2 * PARAMETERS, width=2)


def kept(
    strategy: str,
    gpus: int,
    trained: list[Trained] = TRAINED,
    adapter: Adapter = ADAPTER,
    *,
    optimizer: str = "adamw_torch",
):
    run = Training(gpus=gpus, strategy=strategy, optimizer=optimizer)
    return resident(8_000_000, 2, adapter, trained, run)


@pytest.mark.parametrize("gpus", [1, 2, 8, 64])
def test_the_ceiling_of_zero2_is_deepspeeds_estimate(gpus: int) -> None:
    """2 bytes of parameters, and 18 of gradients, copies and moments, cut."""
    parts = kept("zero2", gpus)
    deepspeed = 2 * PARAMETERS + 18 * PARAMETERS // gpus
    assert parts.adapter.upper + parts.gradients.upper + parts.states.upper == pytest.approx(deepspeed, rel=1e-5)


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3"])
@pytest.mark.parametrize(("optimizer", "moments"), [("adamw_torch", 8), ("sgd", 0), ("adafactor", 4)])
@pytest.mark.parametrize("gpus", [1, 4])
def test_zero_steps_a_flat_float32_copy_of_16_bits(strategy: str, optimizer: str, moments: int, gpus: int) -> None:
    states = kept(strategy, gpus, optimizer=optimizer).states
    assert states.expected == states.upper == pytest.approx((4 + moments) * PARAMETERS / gpus, rel=1e-5)


@pytest.mark.parametrize(
    ("strategy", "weights", "adapter", "gradients"),
    [
        pytest.param("ddp", 8_000_000, 2_000_000, 2_000_000, id="everything on each"),
        pytest.param("zero1", 8_000_000, 2_000_000, 2_000_000, id="state alone is cut"),
        pytest.param("zero2", 8_000_000, 2_000_000, 500_000, id="gradients too"),
        pytest.param("zero3", 2_000_000, 500_000, 500_000, id="weights too"),
        pytest.param("fsdp", 2_000_000, 500_000, 500_000, id="as zero3"),
    ],
)
def test_four_gpus_share_what_the_strategy_shares(strategy: str, weights: int, adapter: int, gradients: int) -> None:
    parts = kept(strategy, 4)
    assert (parts.weights, parts.adapter.expected, parts.gradients.expected) == (weights, adapter, gradients)


@pytest.mark.parametrize("gpus", [1, 4])
def test_what_is_offloaded_is_in_the_ceiling_alone(gpus: int) -> None:
    run = Training(gpus=gpus, strategy="zero3", offloads=("weights", "optimizer"))
    parts, stays = resident(8_000_000, 2, ADAPTER, TRAINED, run), kept("zero3", gpus)
    assert (parts.weights, parts.adapter.expected, parts.states.expected) == (0, 0, 0)
    assert (parts.adapter.upper, parts.states.upper) == (stays.adapter.upper, stays.states.upper)
    assert parts.gradients == stays.gradients


def test_one_gpu_shares_nothing() -> None:
    for strategy in ("ddp", "zero3", "fsdp"):
        parts = kept(strategy, 1)
        assert (parts.weights, parts.adapter, parts.buckets.expected) == (8_000_000, (2_000_000, 2_000_000), 0)
        assert (parts.shares, parts.gathers_more) == (1, 0)


def test_a_rank_below_the_number_of_gpus_leaves_shares_empty() -> None:
    """torch's fully_shard cuts the first axis: of (8, 1000) each of 16 GPUs has one row or none, of (1000, 8) up to 63."""
    trained = [Trained((8, 1000), 4), Trained((1000, 8), 4)]
    adapter = Adapter(ranks={}, parameters=16_000, parameter_bytes=64_000)
    parts = kept("fsdp", 16, trained, adapter)
    assert parts.adapter.expected == 4_000
    assert parts.adapter.upper == 4 * (1000 + 63 * 8)


def test_small_parameters_stay_whole_under_zero3() -> None:
    trained = [Trained((8, 1000), 2), Trained((1000, 1000), 2)]
    adapter = Adapter(ranks={}, parameters=1_008_000, parameter_bytes=2_016_000, width=2)
    parts = kept("zero3", 4, trained, adapter)
    assert parts.adapter.upper == parts.adapter.expected + 16_000


def test_what_is_gathered() -> None:
    """2 MB outside six layers of 1 MB each: the root's all the time, one layer forward, two back."""
    assert gathered(8_000_000, 2_000_000, 6, ahead=1) == (3_000_000, 2_000_000, 4_000_000)
