"""What an optimizer keeps beside the parameters, in bytes after its first step.

Names are transformers' `optim` (5.23.0, training_args.py, OptimizerNames); rules are of torch 2.13 and bitsandbytes
0.50.2 (bitsandbytes/optim/optimizer.py: state of tensors under 4,096 elements stays float32, blocks of 256 share a
float32 absmax, code books of 256 float32 are one for each kind of state).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from math import prod
from typing import NamedTuple

from estimator.errors import UsageError

_MIN_8BIT = 4096
_BLOCK = 256
_CODE_BYTES = 256 * 4
_STEP_BYTES = 4


class Trained(NamedTuple):
    """A trainable parameter."""

    shape: tuple[int, ...]
    width: int  # bytes of an element


Rule = Callable[[Trained], int]


def _moments(count: int, *, step: bool) -> Rule:
    """`count` tensors like the parameter; torch's AdamW keeps its step beside them, a float32 of its own."""
    return lambda p: count * prod(p.shape) * p.width + (_STEP_BYTES if step else 0)


def _moments_32bit(count: int) -> Rule:
    return lambda p: count * prod(p.shape) * 4


def _moments_8bit(count: int) -> Rule:
    def rule(p: Trained) -> int:
        elements = prod(p.shape)
        if elements < _MIN_8BIT:
            return count * elements * 4
        return count * (elements + 4 * -(-elements // _BLOCK))

    return rule


def _adafactor(p: Trained) -> int:
    """transformers' Adafactor without first moment: a row and a column of float32 for what has two axes, and an RMS."""
    if len(p.shape) < 2:
        return 4 * prod(p.shape) + 4
    outer = prod(p.shape[:-2])
    return 4 * outer * (p.shape[-2] + p.shape[-1]) + 4


def _muon(p: Trained) -> int:
    """torch.optim.Muon: one momentum for matrices; it takes nothing else."""
    return prod(p.shape) * p.width


_NONE: Rule = lambda p: 0  # noqa: E731
_ADAM, _ADAM_8 = _moments(2, step=True), _moments_8bit(2)
RULES: dict[str, Rule] = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_hf"), _ADAM),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit"), _ADAM_8),
    "paged_adamw_32bit": _moments_32bit(2),
    **dict.fromkeys(("lion_32bit", "paged_lion_32bit"), _moments_32bit(1)),
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit"), _moments_8bit(1)),
    "adafactor": _adafactor,
    "sgd": _NONE,
    "adagrad": _moments(1, step=True),
    "rmsprop": _moments(1, step=True),
    "muon": _muon,
}
_CODE_BOOKS = {"adamw_bnb_8bit": 2, "adamw_8bit": 2, "paged_adamw_8bit": 2, "lion_8bit": 1, "paged_lion_8bit": 1}


def state_bytes(optimizer: str, parameters: Iterable[Trained]) -> int:
    """Bytes of an optimizer's state. Raises UsageError for a name that is none, or has no rule here."""
    rule = RULES.get(optimizer)
    if rule is None:
        close = get_close_matches(optimizer, RULES, n=1)
        way_out = f"did you mean {close[0]}?" if close else "one of " + ", ".join(RULES)
        raise UsageError(
            f"the state of optimizer {optimizer[:60]!r} is not known.", where="--optimizer", way_out=way_out
        )
    parameters = list(parameters)
    books = _CODE_BOOKS.get(optimizer, 0) if any(prod(p.shape) >= _MIN_8BIT for p in parameters) else 0
    return sum(map(rule, parameters)) + books * _CODE_BYTES


def step_bytes(optimizer: str, parameters: Iterable[Trained]) -> int:
    """Bytes that live only while it steps: torch's AdamW for all parameters at once holds the roots of one moment.

    torch/optim/adamw.py, _multi_tensor_adamw; fused and 8-bit kernels need nothing.
    """
    return sum(prod(p.shape) * p.width for p in parameters) if optimizer in ("adamw_torch", "adamw_hf") else 0


def is_paged(optimizer: str) -> bool:
    """Paged state lies in unified memory, outside the caching allocator, and moves to the host where space is short."""
    return optimizer.startswith("paged_")
