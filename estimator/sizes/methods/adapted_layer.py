"""A layer that a method other than LoRA adapts, and what the rules of methods say of one."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from estimator.sizes.adapter_causes import Part


class Adapted(NamedTuple):
    """A matrix that a method adapts."""

    name: str
    out: int
    into: int
    number: int  # 0 where the method has none
    kernel: tuple[int, ...] = ()  # of a convolution, whose `into` are the channels that one group reads
    dtype: str = "F32"
    has_bias: bool = False
    is_embedding: bool = False  # `out` are its rows, `into` their width


Config = Mapping[str, Any]
Shapes = Mapping[str, "tuple[int, ...] | Part"]  # a shape alone is of float32
