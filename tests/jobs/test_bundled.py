"""Bundled models against PEFT itself: recorded counts always, and PEFT on the meta device where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from estimator.jobs.estimate import estimate
from estimator.request.request import Request
from estimator.source.snapshot import find_in_snapshot

RECORDED = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "fixtures" / "bundled" / "counts.jsonl").read_text().splitlines()
]
ROWS = [pytest.param(row, id=f"{row['model']} {row['why']}") for row in RECORDED]


@pytest.mark.parametrize("row", ROWS)
def test_counts_are_the_recorded_ones(row: dict[str, Any]) -> None:
    adaptation = estimate(Request(model=row["model"], lora=row["lora"]))
    assert adaptation.adaptation.trainable_parameters == row["trainable"]
    assert adaptation.base.all_parameters + adaptation.adaptation.added_parameters == row["all"]
    assert sum(module.rank is not None for module in adaptation.adaptation.modules) == row["modules"]


def peft_says(row: dict[str, Any]) -> dict[str, int]:
    """Trainable and all parameters, and the number of LoRA layers, of a real PEFT model without weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    fields = dict(find_in_snapshot(row["model"]).config)
    config = transformers.CONFIG_MAPPING[fields["model_type"]].from_dict(fields)
    with torch.device("meta"):
        base = getattr(transformers, fields["architectures"][0])(config)
        model = peft.get_peft_model(base, peft.LoraConfig(**row["lora"]))
    trainable, total = model.get_nb_trainable_parameters()
    layers = [module for module in model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    return {"trainable": trainable, "all": total, "modules": len(layers)}


@pytest.mark.judges
@pytest.mark.parametrize("row", ROWS)
def test_peft_on_the_meta_device_says_the_same(row: dict[str, Any]) -> None:
    assert peft_says(row) == {key: row[key] for key in ("trainable", "all", "modules")}
