"""The `plan` object of `plan --infer`: vLLM's figures in the contract's fields, the rest under `serving`."""

from __future__ import annotations

from typing import Any

from estimator.report.plan_document import peaks
from estimator.sizes.memory.vllm import GPU_MEMORY_UTILIZATION, RELEASE


def serve_object(plan: Any) -> dict[str, Any]:
    """A plain object; all sizes in bytes on each GPU."""
    return {
        "gpu_memory": plan.gpu_memory,
        "components": [component._asdict() for component in plan.memory.components],
        "peak": peaks(plan.memory),
        "fits": plan.fits,
        "likely_fits": plan.likely_fits,
        "largest": dict(plan.largest),
        "disk": dict(plan.disk),
        "serving": {
            "vllm_release": RELEASE,
            "gpu_memory_utilization": GPU_MEMORY_UTILIZATION,
            **{name: getattr(plan.serving, name) for name in type(plan.serving).__dataclass_fields__},
            "refused": [problem._asdict() for problem in plan.refused],
            "kv_cache": _cache(plan),
            "peft": {
                "bytes_each": plan.peft.bytes_each,
                "adapter_bytes": plan.peft.bytes_each * plan.serving.adapters,
                "kv_bytes_per_token": plan.peft.bytes_per_token,
                "kv_bytes": plan.peft.cache_bytes,
                "components": [component._asdict() for component in plan.peft.memory.components],
                **peaks(plan.peft.memory),
            },
        },
    }


def _cache(plan: Any) -> dict[str, Any]:
    cache = plan.cache
    tokens = None if plan.tokens is None else {"lower": plan.tokens[0], "upper": plan.tokens[1]}
    return {
        "bytes_per_token": plan.bytes_per_token,
        "layers": 0 if cache is None else cache.layers,
        "windowed_layers": 0 if cache is None else cache.windowed_layers,
        "window": None if cache is None else cache.window,
        "tokens": tokens,
    }
