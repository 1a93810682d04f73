"""The contract's `plan` object beside an estimate's, and the table of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from estimator.report.units import decimal_size


def plan_object(plan: Any) -> dict[str, Any]:
    """A plain object; all sizes in bytes."""
    memory, training = plan.memory, plan.training
    return {
        "gpu_memory": plan.gpu_memory,
        "training": {name: getattr(training, name) for name in type(training).__dataclass_fields__},
        "components": [component._asdict() for component in memory.components],
        "peak": {counter: _bounds(getattr(memory, counter)) for counter in ("allocated", "reserved", "device")},
        "peak_moment": memory.moment,
        "fits": plan.fits,
        "largest": dict(plan.largest),
        "changes": [{"change": words, "saves_bytes": saved} for words, saved in plan.changes],
        "disk": dict(plan.disk),
    }


def _bounds(bounds: Any) -> dict[str, int]:
    return {"lower_bytes": bounds.lower, "expected_bytes": bounds.expected, "upper_bytes": bounds.upper}


def plan_table(document: dict[str, Any]) -> str:
    return "\n".join(_lines(document["plan"]))


def _lines(plan: dict[str, Any]) -> Iterator[str]:
    training = plan["training"]
    yield (f"memory of training on each GPU: batch {training['batch_size']}, {training['sequence_length']:,} tokens, "
           f"{training['optimizer']}, mixed precision {training['mixed_precision']}, "
           f"checkpointing {'on' if training['gradient_checkpointing'] else 'off'}, {training['attention']}, "
           f"{training['loss']} loss")  # fmt: skip
    for part in plan["components"]:
        yield f"  {part['name']:<32}{_range(part['lower_bytes'], part['upper_bytes']):>24}  {part['basis']}"
    for counter, peak in plan["peak"].items():
        bounds = _range(peak["lower_bytes"], peak["upper_bytes"])
        yield f"  {'peak ' + counter:<32}{decimal_size(peak['expected_bytes']):>24}  {bounds}"
    yield f"  the peak is in: {plan['peak_moment']}"
    if plan["fits"] is not None:
        yield f"fits {decimal_size(plan['gpu_memory'])}: {plan['fits']}"
        for name, value in plan["largest"].items():
            yield f"  largest {name} that surely fits: {'none' if value is None else f'{value:,}'}"
    if plan["fits"] != "yes":
        for change in plan["changes"]:
            yield f"  {change['change']} saves {decimal_size(change['saves_bytes'])}"
    if "largest_r_within_limits" in plan:
        rank = plan["largest_r_within_limits"]
        yield f"largest r within the limits: {'none' if rank is None else f'{rank:,}'}"
    for name, size in plan["disk"].items():
        if size is not None:
            yield f"disk: {name.removesuffix('_bytes')} {decimal_size(size)}"


def _range(lower: int, upper: int) -> str:
    return decimal_size(lower) if lower == upper else f"{decimal_size(lower)} to {decimal_size(upper)}"
