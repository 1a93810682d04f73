"""Draws configs, lets PEFT and the estimate answer, and keeps what differs."""

from __future__ import annotations

import copy
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from estimator.errors import LoraSizeError
from estimator.jobs.base import BaseCache
from estimator.request.request import Request
from tests.lora.judge.compare import differences
from tests.lora.judge.draw import draw
from tests.lora.judge.families import DTYPES, build, classes
from tests.lora.judge.names import names_of
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
        names, bases, models = names_of(model), BaseCache(), {cls: model}
        for number in range(start, min(start + DRAWS_A_MODEL, draws)):
            one = f"{family} {seed} {start} {number}"
            drawing = draw(Random(one), names)
            lora = copy.deepcopy(drawing.lora)
            loaded = _of_the_task(str(place), lora.get("task_type"), models, bases)
            real = outcome(loaded, drawing.lora, drawing.options)
            if told := differences(str(place), lora, drawing.options, real, bases):
                found.append(Difference(one, type(loaded).__name__, lora, drawing.options, told))
    return found


def _of_the_task(place: str, task: str | None, models: dict[str, Any], bases: BaseCache) -> Any:
    """The model that a task loads from the folder: which class that is, the estimate says and others judge."""
    import transformers

    try:
        named = bases.base(Request(model=place), task).tree.architecture
    except LoraSizeError:
        named = None
    if named is None:
        return next(iter(models.values()))
    if named not in models:
        models[named] = getattr(transformers, named).from_pretrained(place, dtype="auto")
    return models[named]


def saved(model: Any, place: Path) -> Any:
    """The model as from_pretrained gives it back, once it has been saved."""
    model.save_pretrained(place)
    return type(model).from_pretrained(place, dtype="auto")
