"""What a plan keeps between the passes depends on where the first weight trains, and on which experts' weights do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from estimator.jobs.planning.plan import plan
from estimator.request.request import Request
from estimator.request.training_config import Freezing
from estimator.sizes.memory.training import Training


def kept(request: Request) -> int:
    """Bytes that live between the passes, at least."""
    parts = {part.name: part for part in plan(request, Training(batch_size=1)).memory.components}
    return parts["activations kept"].lower_bytes


LAST = Request(model="llama-3.1-8b", targets="qkvo", layers="28-31")


@pytest.mark.parametrize(
    ("changed", "less"),
    [
        ({"layers": None}, True),
        ({"trainable_tokens": "0"}, True),
        ({"modules_to_save": "embed_tokens"}, True),
        ({"modules_to_save": "lm_head"}, False),
        ({"modules_to_save": "model.norm"}, False),
        ({"task": "SEQ_CLS"}, False),
    ],
    ids=["all layers", "token rows", "embeddings", "the head", "the last norm", "a task's head"],
)
def test_layers_before_the_first_that_trains_keep_nothing(changed: dict, less: bool) -> None:
    assert (3 * kept(LAST) < kept(LAST._replace(**changed))) == less


def test_only_the_experts_weights_that_are_adapted_are_made_anew() -> None:
    up, down, both = (
        plan(Request(model="mixtral-8x7b", r=8, targets="qv", target_parameters=names), Training(batch_size=1))
        for names in (
            "mlp.experts.gate_up_proj",
            "mlp.experts.down_proj",
            "mlp.experts.gate_up_proj,mlp.experts.down_proj",
        )
    )
    stack = 2 * 8 * 4096 * 14_336  # bytes of the weights that lead down in one layer
    peaks = [answer.memory.allocated.expected for answer in (up, down, both)]
    assert peaks[0] - peaks[1] == pytest.approx(32 * stack, rel=0.1)
    assert peaks[2] - peaks[0] == pytest.approx(32 * stack, rel=0.1)


@pytest.mark.parametrize("length", [pytest.param(1, id="the optimizer's step is the peak"), 1024])
@pytest.mark.parametrize("optimizer", ["adamw_torch", "paged_adamw_8bit"])
@pytest.mark.parametrize("strategy", [None, "fsdp"])
def test_the_parts_reach_the_ceiling(length: int, optimizer: str, strategy: str | None) -> None:
    run = Training(batch_size=1, sequence_length=length, optimizer=optimizer, gradient_checkpointing=True)
    run = run if strategy is None else replace(run, gpus=4, strategy=strategy)
    memory = plan(Request(model="openai-community/gpt2", r=256, targets="all-linear"), run).memory
    assert sum(part.upper_bytes for part in memory.components) >= memory.device.upper


def test_lora_before_the_layers_alone_walks_all_of_them_back() -> None:
    """A projector of images stands before the language model's 32 layers, of which no one is adapted."""
    before, behind = (
        kept(Request(model="llava-1.5-7b", targets=f"re:.*{name}", offline=True))
        for name in ("multi_modal_projector.linear_1", "layers.31.mlp.down_proj")
    )
    assert before > 16 * behind


def test_a_router_trains_where_it_stands() -> None:
    """all-linear adapts the routers of a mixture: where those of the last layers train, the first keep nothing."""
    request = Request(model="qwen3-30b-a3b", targets="all-linear", offline=True)
    last = Freezing(unfrozen=(".+layers.4[4-7].+lora_",))
    assert 4 * kept(request._replace(freezing=last)) < kept(request)
