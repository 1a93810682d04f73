"""A LoraConfig drawn at random for one model: every field that decides what exists, trains or is saved."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from tests.lora.judge.names import Names
from tests.lora.judge.other_fields import other_fields, ranks_left
from tests.lora.judge.targets import targets


@dataclass(frozen=True, kw_only=True)
class Drawing:
    lora: dict[str, Any]
    options: dict[str, Any]  # vocab_size, adapter_dtype, save_embedding_layers


def draw(random: Random, names: Names) -> Drawing:
    """One config: targets first, then some of the other fields, seldom the ones that refuse nearly everything."""
    lora: dict[str, Any] = {"r": random.choice((1, 2, 3, 4, 4, 8, 12, 16, 130))}
    if random.random() < 0.1:
        lora["peft_type"] = "ADALORA"
        lora |= {"total_step": random.choice((10, 10, 10, 0)), "init_r": random.choice((0, 1, 5, 12))}
        lora |= random.choice(({}, {}, {"tinit": 5, "tfinal": 5}, {"tinit": 2, "tfinal": 3}, {"orth_reg_weight": -1}))
    lora |= targets(random, names)
    for _ in range(random.choice((0, 1, 1, 1, 2, 2, 3))):
        lora |= other_fields(random, names)
    if "peft_type" in lora and random.random() < 0.3:
        lora |= ranks_left(random, names)
    return Drawing(lora=lora, options=_options(random, names))


def _options(random: Random, names: Names) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if random.random() < 0.1:
        options["adapter_dtype"] = "base"
    if random.random() < 0.1:
        options["save_embedding_layers"] = random.choice(("yes", "no"))
    if names.rows is not None and random.random() < 0.1:
        options["vocab_size"] = names.rows + random.choice((1, 7, -3, 0))
    return options
