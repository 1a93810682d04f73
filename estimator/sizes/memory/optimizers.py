"""What an optimizer keeps beside the parameters, in bytes after its first step.

Names are transformers' `optim` (5.23.0, training_args.py, OptimizerNames); rules are of torch 2.13, bitsandbytes
0.50.2 (optim/optimizer.py: state of tensors under 4,096 elements stays float32, blocks of 256 share a float32 absmax,
code books of 256 float32 are one for each kind of state; ademamix.py), torchao 0.18 (optim/adam.py, subclass_8bit.py),
schedulefree 1.4.1 and torch-optimi 0.3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from math import prod
from typing import NamedTuple

from estimator.errors import UsageError

_MIN_8BIT = 4096
_MIN_PAGED = 100_000  # elements; smaller tensors' state is not paged (optimizer.py, get_state_buffer)
_BLOCK = 256
_CODE_BYTES = 256 * 4
_STEP_BYTES = 4


class Trained(NamedTuple):
    """A trainable parameter."""

    shape: tuple[int, ...]
    width: int  # bytes of an element
    embeds: bool = False  # the weight of an nn.Embedding


Rule = Callable[[Trained], int]


def _moments(count: int, *, step: bool) -> Rule:
    """`count` tensors like the parameter; torch's AdamW keeps its step beside them, a float32 of its own."""
    return lambda p: count * prod(p.shape) * p.width + (_STEP_BYTES if step else 0)


def _moments_32bit(count: int) -> Rule:
    return lambda p: count * prod(p.shape) * 4


def _moments_8bit(count: int) -> Rule:
    """transformers (trainer.py, create_optimizer) has an embedding's state in 32 bits."""

    def rule(p: Trained) -> int:
        elements = prod(p.shape)
        if elements < _MIN_8BIT or p.embeds:
            return count * elements * 4
        return count * (elements + 4 * -(-elements // _BLOCK))

    return rule


def _moments_torchao(bits: int) -> Rule:
    """Two, each with a code book of its own, and a step; what no blocks of 256 fill stays as wide as the parameter."""

    def rule(p: Trained) -> int:
        elements = prod(p.shape)
        if elements < _MIN_8BIT or elements % _BLOCK:
            return 2 * elements * p.width + _STEP_BYTES
        return 2 * (elements * bits // 8 + 4 * elements // _BLOCK + 4 * 2**bits) + _STEP_BYTES

    return rule


def _stable(p: Trained) -> int:
    """Two moments and a number; in 16 bits what Kahan summation left over as well."""
    return (2 if p.width == 4 else 3) * prod(p.shape) * p.width + p.width


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
    **dict.fromkeys(("ademamix", "paged_ademamix_32bit"), _moments_32bit(3)),
    **dict.fromkeys(("ademamix_8bit", "paged_ademamix_8bit"), _moments_8bit(3)),
    **dict.fromkeys(("rmsprop_bnb", "rmsprop_bnb_32bit"), _moments_32bit(1)),
    "rmsprop_bnb_8bit": _moments_8bit(1),
    "adamw_torch_8bit": _moments_torchao(8),
    "adamw_torch_4bit": _moments_torchao(4),
    "adafactor": _adafactor,
    "sgd": _NONE,
    "adagrad": _moments(1, step=True),
    "rmsprop": _moments(1, step=True),
    "muon": _muon,
    **dict.fromkeys(("schedule_free_adamw", "schedule_free_radam"), _moments(2, step=False)),
    "schedule_free_sgd": _moments(1, step=False),
    "stable_adamw": _stable,
}
_CODE_BOOKS = dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit"), 2) | {
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit", "rmsprop_bnb_8bit"), 1),
    **dict.fromkeys(("ademamix_8bit", "paged_ademamix_8bit"), 2),
}
_PAGED_BYTES = {  # of an element, of all moments
    "paged_adamw_32bit": 8,
    "paged_adamw_8bit": 2,
    "paged_lion_32bit": 4,
    "paged_lion_8bit": 1,
    "paged_ademamix_32bit": 12,
    "paged_ademamix_8bit": 3,
}
# Copies of all parameters that foreach makes while it steps: roots of moments (torch/optim/adamw.py,
# _multi_tensor_adamw), of Adagrad also what they divide
_COPIES = {"adagrad": 2} | dict.fromkeys(
    ("adamw_torch", "adamw_hf", "rmsprop", "schedule_free_adamw", "schedule_free_radam", "stable_adamw"), 1
)
_LOW_RANK = "it needs optim_target_modules, which plan has no option for"
_WHILE_WALKED = "it changes weights while their gradients are made, which is not modelled"
_OTHERS = {  # names of transformers' that have no rule, and why
    "adamw_torch_xla": "it runs on TPUs",
    "adamw_torch_npu_fused": "it runs on NPUs",
    "adamw_anyprecision": "its library, torchdistx, is given up",
    "grokadamw": "it keeps its state on the CPU",
    **dict.fromkeys(("lomo", "adalomo"), _WHILE_WALKED),
    **dict.fromkeys(
        (f"galore_{kind}{ending}" for kind in ("adamw", "adamw_8bit", "adafactor") for ending in ("", "_layerwise")),
        _LOW_RANK,
    ),
    **dict.fromkeys(("apollo_adamw", "apollo_adamw_layerwise"), _LOW_RANK),
}


def state_bytes(optimizer: str, parameters: Iterable[Trained]) -> int:
    """Bytes of an optimizer's state. Raises UsageError for a name that is none, or has no rule here."""
    rule = RULES.get(optimizer)
    if rule is None:
        raise _unknown(optimizer)
    parameters = list(parameters)
    books = _CODE_BOOKS.get(optimizer, 0) if any(prod(p.shape) >= _MIN_8BIT for p in parameters) else 0
    return sum(map(rule, parameters)) + books * _CODE_BYTES


def _unknown(optimizer: str) -> UsageError:
    if reason := _OTHERS.get(optimizer):
        what, way_out = f"the state of optimizer {optimizer!r} is not counted: {reason}.", "--optimizer adamw_torch"
        return UsageError(what, where="--optimizer", way_out=way_out)
    close = [name for name in RULES if name.startswith(optimizer)] or get_close_matches(optimizer, RULES, n=1)
    way_out = f"did you mean {close[0]}?" if close else "one of " + ", ".join(RULES)
    return UsageError(f"the state of optimizer {optimizer[:60]!r} is not known.", where="--optimizer", way_out=way_out)


def step_bytes(optimizer: str, parameters: Iterable[Trained]) -> int:
    """Bytes that live only while it steps, of all parameters at once; fused and 8-bit kernels need nothing."""
    return _COPIES.get(optimizer, 0) * sum(prod(p.shape) * p.width for p in parameters)


def paged_bytes(optimizer: str, parameters: Iterable[Trained]) -> int:
    """Bytes of state in unified memory, outside the caching allocator, which move to the host where space is short.

    What the 8-bit ones keep beside (absmax, code books) and the state of small tensors stays on the GPU.
    """
    each = _PAGED_BYTES.get(optimizer, 0)
    moments = each if optimizer.endswith("_32bit") else 4 * each
    large = (p for p in parameters if prod(p.shape) >= _MIN_PAGED)
    return sum((moments if p.embeds else each) * prod(p.shape) for p in large)
