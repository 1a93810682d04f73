"""The adapter beside its base at each precision, and beside what training or merging would write instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from estimator.sizes.base import BaseSizes
from estimator.sizes.loading import FLOAT_PRECISIONS


class Comparison(NamedTuple):
    """The adapter's file beside other files, in percent and bytes."""

    percent_at: Mapping[str, float | None]  # precision -> 100 x adapter file / the base's bytes there
    full_checkpoint_bytes: int | None  # the tensors that a full fine-tune in the load dtype would save
    merged_bytes: int | None  # the tensors of the base with the adapter merged into it


def compare(adapter_file_bytes: int | None, base: BaseSizes) -> Comparison:
    """None wherever one of the two sides is not known.

    `merge_and_unload` (peft 0.21.2) keeps the base's layers: a base loaded in 4 or 8 bits stays so.
    """
    precision = next((name for name, dtype in FLOAT_PRECISIONS.items() if dtype == base.loaded.dtype), None)
    full = base.bytes.get(precision) if precision else None
    return Comparison(
        percent_at={name: percent_of(adapter_file_bytes, size) for name, size in base.bytes.items()},
        full_checkpoint_bytes=full,
        merged_bytes=base.loaded.weight_bytes if base.model.quantised else full,
    )


def percent_of(part: int | None, whole: int | None) -> float | None:
    """100 x part / whole; None where one of them is not known, or there is no whole."""
    return 100 * part / whole if part is not None and whole else None
