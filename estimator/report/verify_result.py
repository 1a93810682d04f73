"""What a verification found: the estimate beside the real model, fact by fact."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Comparison(NamedTuple):
    """One promise beside what the real model has; lists of modules and tensors are compared entry by entry."""

    what: str  # "trainable parameters"; bytes where the name says bytes
    estimate: Any
    real: Any
    equal: bool


class Difference(NamedTuple):
    """One entry of a list that is not what was promised."""

    what: str  # the comparison that it belongs to
    name: str  # module, parameter or tensor
    estimate: Any  # None: not promised
    real: Any  # None: not there


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    device: str  # "meta" | "cpu" | "cuda"
    comparisons: tuple[Comparison, ...]
    differences: tuple[Difference, ...]
    left_out: tuple[str, ...]  # what this device cannot show, in words
    measured: Mapping[str, int]  # shown, not compared: CUDA memory in bytes
    versions: Mapping[str, str]  # library -> release

    @property
    def equal(self) -> bool:
        return all(comparison.equal for comparison in self.comparisons)
