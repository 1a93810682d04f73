"""A config and the model that was built from it, as formulas want them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from estimator.architecture.learning.fit import values_of
from estimator.architecture.learning.remembering import Sized, plain_values
from estimator.architecture.learning.trace import Trace
from estimator.architecture.learning.truths import Observation
from estimator.architecture.surveying import tiny
from estimator.architecture.surveying.observe import Seen, SeenTensor


def observation_of(config: Any, number: int, mixed: bool = False) -> Observation:
    """The config as its class has filled it in."""
    return Observation(number, values_of(plain_values(config.to_dict())) | dict(_labels(config)), mixed=mixed)


def _labels(config: Any, prefix: str = "") -> Iterator[tuple[str, int]]:
    if hasattr(config, "num_labels"):
        yield f"{prefix}num_labels", plain_values(config.num_labels)
    for key, value in tiny.sub_configs(config).items():
        yield from _labels(value, f"{prefix}{key}.")


def sized(seen: Seen, module: torch.nn.Module, trace: Trace) -> Seen:
    """The same with shapes that remember how they came about."""
    groups = getattr(module, "groups", None)
    how = getattr(groups, "how", None)
    return seen._replace(
        parameters=tuple(_sized(tensor, module._parameters, trace) for tensor in seen.parameters),
        buffers=tuple(_sized(tensor, module._buffers, trace) for tensor in seen.buffers),
        groups=Sized(int(groups), how) if how is not None and seen.groups != 1 else int(seen.groups),
        children=tuple((name, sized(child, module._modules[name], trace)) for name, child in seen.children),
    )


def _sized(tensor: SeenTensor, held: Mapping[str, Any], trace: Trace) -> SeenTensor:
    return tensor._replace(shape=trace.shape(held[tensor.name]))
