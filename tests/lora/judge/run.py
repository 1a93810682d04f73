"""Draws configs, lets PEFT and the estimate answer, and keeps what differs."""

from __future__ import annotations

import copy
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from estimator.jobs.base import BaseCache
from tests.lora.judge.compare import differences
from tests.lora.judge.draw import draw, names_of
from tests.lora.judge.families import DTYPES, build, classes
from tests.lora.judge.truth import outcome

DRAWS_A_MODEL = 25


class Difference(NamedTuple):
    seed: str
    cls: str
    lora: dict[str, Any]
    options: dict[str, Any]
    found: list[str]

    def __str__(self) -> str:
        return f"seed {self.seed!r} {self.cls} {self.lora} {self.options}\n    " + "\n    ".join(self.found)


def differing(family: str, draws: int, seed: int, folder: Path) -> list[Difference]:
    """What differs among so many draws on models of one family."""
    found = []
    for start in range(0, draws, DRAWS_A_MODEL):
        random = Random(f"{family} {seed} {start}")
        cls = random.choice(classes(family))
        place = folder / f"{family}-{start}"
        model = saved(build(family, cls, random.choice(DTYPES), {}), place)
        names, bases = names_of(model), BaseCache()
        for number in range(start, min(start + DRAWS_A_MODEL, draws)):
            one = f"{family} {seed} {start} {number}"
            drawing = draw(Random(one), names)
            lora = copy.deepcopy(drawing.lora)
            real = outcome(model, drawing.lora, drawing.options)
            if told := differences(str(place), lora, drawing.options, real, bases):
                found.append(Difference(one, cls, lora, drawing.options, told))
    return found


def saved(model: Any, place: Path) -> Any:
    """The model as from_pretrained gives it back, once it has been saved."""
    model.save_pretrained(place)
    return type(model).from_pretrained(place, dtype="auto")
