"""The contract's `plan` object beside an estimate's."""

from __future__ import annotations

from typing import Any


def plan_object(plan: Any) -> dict[str, Any]:
    """A plain object; all sizes in bytes."""
    memory, training = plan.memory, plan.training
    return {
        "gpu_memory": plan.gpu_memory,
        "training": {name: getattr(training, name) for name in _fields(training)},
        "components": [component._asdict() for component in memory.components],
        "peak": peaks(memory),
        "peak_moment": memory.moment,
        "fits": plan.fits,
        "likely_fits": plan.likely_fits,
        "largest": dict(plan.largest),
        "changes": [
            {
                "change": change.words,
                "saves_bytes": change.saves_bytes,
                "fits": change.fits,
                "likely_fits": change.likely_fits,
            }
            for change in plan.changes
        ],
        "changes_together": list(plan.together),
        "disk": dict(plan.disk),
    }


def _fields(training: Any) -> list[str]:
    """The options; software is no option."""
    return [name for name in type(training).__dataclass_fields__ if name != "software"]


def peaks(memory: Any) -> dict[str, dict[str, int]]:
    """allocated, reserved and device: what torch.cuda.max_memory_allocated, ..._reserved and nvidia-smi would show."""
    return {counter: _bounds(getattr(memory, counter)) for counter in ("allocated", "reserved", "device")}


def _bounds(bounds: Any) -> dict[str, int]:
    return {"lower_bytes": bounds.lower, "expected_bytes": bounds.expected, "upper_bytes": bounds.upper}
