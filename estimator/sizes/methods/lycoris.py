"""LoHa and LoKr of one matrix or convolution (peft 0.21.2, tuners/loha/layer.py and tuners/lokr/layer.py)."""

from __future__ import annotations

from functools import lru_cache
from math import prod

from estimator.sizes.methods.adapted_layer import Adapted, Config, Shapes


def loha(config: Config, layer: Adapted) -> Shapes:
    """Two products; a core of the kernel's size between their halves where `use_effective_conv2d` asks for it."""
    shapes: dict[str, tuple[int, ...]] = {}
    rank, core = layer.number, _core(config, layer)
    for product in (1, 2):
        if core:
            shapes[f"hada_t{product}"] = (rank, rank, *core)
        shapes[f"hada_w{product}_a"] = (rank, layer.out) if core else (layer.out, rank)
        shapes[f"hada_w{product}_b"] = (rank, layer.into if core else layer.into * prod(layer.kernel))
    return shapes


def _core(config: Config, layer: Adapted) -> tuple[int, ...]:
    """The kernel in two dimensions; () where it is of one place, or none."""
    asked = bool(config.get("use_effective_conv2d")) and prod(layer.kernel) > 1
    return (*layer.kernel, 1)[:2] if asked else ()


def lokr(config: Config, layer: Adapted) -> Shapes:
    """A Kronecker product; a factor is itself a product where the rank is less than half of its longer side."""
    rank, factor = layer.number, config.get("decompose_factor", -1)
    (into, inner), (out, outer) = _factors(layer.into, factor), _factors(layer.out, factor)
    first = _factor("lokr_w1", (out, into), rank if config.get("decompose_both") else None)
    if rank >= max(outer, inner) / 2:
        return {**first, "lokr_w2": (outer, inner, *layer.kernel)}
    if core := _core(config, layer):
        return {**first, "lokr_t2": (rank, rank, *core), "lokr_w2_a": (rank, outer), "lokr_w2_b": (rank, inner)}
    return {**first, "lokr_w2_a": (outer, rank), "lokr_w2_b": (rank, inner * prod(layer.kernel))}


def _factor(name: str, shape: tuple[int, int], rank: int | None) -> Shapes:
    if rank is None or rank >= max(shape) / 2:
        return {name: shape}
    return {f"{name}_a": (shape[0], rank), f"{name}_b": (rank, shape[1])}


@lru_cache(maxsize=4096)
def _factors(size: int, factor: int) -> tuple[int, int]:
    """The two factors whose sum is least, the smaller first and no larger than `factor` (`factorization`)."""
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    most = size if factor == -1 else factor
    first, second = 1, size
    while first < second:
        larger = next(number for number in range(first + 1, size + 1) if size % number == 0)
        if larger + size // larger > first + second or larger > most:
            break
        first, second = larger, size // larger
    return (second, first) if first > second else (first, second)
