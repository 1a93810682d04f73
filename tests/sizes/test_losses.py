"""Bytes that each kind of loss makes for a token and an entry of the vocabulary, by hand."""

from __future__ import annotations

import pytest

from estimator.sizes.memory.activations.loss import loss as loss_of
from estimator.sizes.memory.activations.matrix import Setting
from estimator.sizes.memory.activations.step import training_step
from estimator.sizes.memory.activations.tape import Tape
from estimator.sizes.memory.shape import Shape
from estimator.sizes.memory.training import LITGPT, TODAY, Adapter, Software, Training

TOKENS, ENTRIES, HIDDEN = 1000, 1_000_000, 8


def head_bytes(loss: str, software: Software, ranks: dict[str, int] | None = None) -> float:
    shape = Shape(blocks=(), hidden=HIDDEN, vocabulary=ENTRIES, heads=1, activation="silu", head="lm_head")
    training = Training(batch_size=1, sequence_length=TOKENS, loss=loss)
    adapter = Adapter(ranks=ranks or {}, parameters=0, parameter_bytes=0, trains_before=True)
    setting = Setting(shape=shape, training=training, adapter=adapter, base_width=2, software=software)
    return training_step(setting, 0).head / (TOKENS * ENTRIES)


@pytest.mark.parametrize(
    ("loss", "software", "width"),
    [
        pytest.param("standard", TODAY, 12, id="log-softmax, its gradient and that of the logits, in float32"),
        pytest.param("standard", Software(shifts_logits=True), 14, id="16 bits, float32, shifted, log-softmax"),
        pytest.param("in_place", TODAY, 6, id="16 bits and float32, which becomes the gradient"),
        pytest.param("in_place", Software(shifts_logits=True), 10, id="the shifted copy becomes it"),
        pytest.param("in_place", Software(shifts_logits=True, drops_logits=True), 8, id="without those in 16 bits"),
        pytest.param("chunked", TODAY, 6, id="16 bits and log-softmax in float32, whose chunks become gradients"),
        pytest.param("chunked", Software(in_place_loss=True), 2, id="16 bits, whose chunks become gradients"),
        pytest.param("chunked", LITGPT, 10, id="16 bits, float32, and the float32 of the step before"),
    ],
)
def test_bytes_of_an_entry(loss: str, software: Software, width: int) -> None:
    assert head_bytes(loss, software) == pytest.approx(width, rel=0.01)


def test_a_fused_loss_never_holds_the_logits() -> None:
    assert head_bytes("fused", TODAY) < 0.01


@pytest.mark.parametrize(
    ("head_width", "mixed", "peak"),
    [
        pytest.param(2, "no", 672_141_312, id="a float32 copy of the head, and 256 rows four times"),
        pytest.param(2, "bf16", 825_895_936, id="a float32 copy, and one of that in 16 bits"),
        pytest.param(4, "bf16", 410_374_144, id="a copy in 16 bits of a head in float32"),
        pytest.param(4, "no", 164_631_040, id="no copy"),
    ],
)
def test_logits_in_rows_take_what_trl_took(head_width: int, mixed: str, peak: int) -> None:
    """TRL 1.10's own loss on fake tensors: 1,024 tokens, 4,096 wide, 32,000 entries; the input let go."""
    shape = Shape(blocks=(), hidden=4096, vocabulary=32_000, heads=1, activation="silu", head="lm_head")
    training = Training(batch_size=1, sequence_length=1024, loss="in_rows", mixed_precision=mixed)
    adapter = Adapter(ranks={}, parameters=0, parameter_bytes=0)
    setting = Setting(shape=shape, training=training, adapter=adapter, base_width=head_width, head_width=head_width)
    tape = Tape(1024)
    played = tape.play(loss_of(tape, tape.input(4096, head_width), setting))
    assert max(played.forward, played.backward) == pytest.approx(peak, rel=0.01)


def test_releases_after_that_hold_no_copy_of_the_head() -> None:
    assert head_bytes("in_rows", Software(in_place_loss=True)) == head_bytes("fused", Software(in_place_loss=True))


def test_lora_on_the_head_adds_what_it_makes() -> None:
    assert head_bytes("standard", TODAY, {"lm_head": 8}) > head_bytes("standard", TODAY)
