"""Bytes that each kind of loss makes for a token and an entry of the vocabulary, by hand."""

from __future__ import annotations

import pytest

from estimator.sizes.memory.activations.matrix import Setting
from estimator.sizes.memory.activations.step import training_step
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
        pytest.param("chunked", LITGPT, 10, id="16 bits, float32, and the float32 of the step before"),
    ],
)
def test_bytes_of_an_entry(loss: str, software: Software, width: int) -> None:
    assert head_bytes(loss, software) == pytest.approx(width, rel=0.01)


def test_a_fused_loss_never_holds_the_logits() -> None:
    assert head_bytes("fused", TODAY) < 0.01


def test_lora_on_the_head_adds_what_it_makes() -> None:
    assert head_bytes("standard", TODAY, {"lm_head": 8}) > head_bytes("standard", TODAY)
