"""transformers' weight transforms as facts: what a checkpoint's names and shapes become at run time.

Rules' source: transformers 5.23.0, core_model_loading.py (WeightRenaming, GroupWeightRename, PrefixChange,
WeightConverter and their operations).
"""

from __future__ import annotations

from typing import Any

_ARGUMENTS = (
    "dim",
    "num_shards_attribute",
    "dim0",
    "dim1",
    "check_dims",
    "in_channels",
    "kernel_size",
    "stack_dim",
    "concat_dim",
)


def written_transform(transform: Any) -> list[Any]:
    """[kind, sources, targets, operations, scope, base prefix, offset], what is empty at the end left out."""
    kind = type(transform).__name__
    kind = {"WeightRenaming": "rename", "PrefixChange": "rename", "WeightConverter": "convert"}.get(kind, kind)
    return trimmed(
        [
            kind,
            list(transform.source_patterns),
            list(transform.target_patterns),
            [_operation(operation) for operation in getattr(transform, "operations", ())],
            transform.scope_prefix,
            transform.base_model_prefix,
            getattr(transform, "offset", 0),
        ]
    )


def trimmed(written: list[Any]) -> list[Any]:
    while not written[-1]:
        written = written[:-1]
    return written


def _operation(operation: Any) -> list[Any]:
    said = vars(operation)
    arguments = {key: list(v) if isinstance(v := said[key], tuple) else v for key in _ARGUMENTS if key in said}
    return [type(operation).__name__, arguments]
