"""What a built model looks like: module classes, parameters and buffers, as a tree.

Kinds are what PEFT 0.21.2 tells apart (tuners/lora/model.py and layer.py, `dispatch_default`): by isinstance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

_OPEN = "timm model"
_KINDS = (
    (nn.Embedding, "Embedding"),
    (nn.Conv1d, "Conv1d"),
    (nn.Conv2d, "Conv2d"),
    (nn.Conv3d, "Conv3d"),
    (nn.MultiheadAttention, "MultiheadAttention"),
    (nn.Linear, "Linear"),
    (Conv1D, "Conv1D"),
)
BUILD_DTYPE = torch.float16  # none that a class gives: what has another in a model built under it was given it


class SeenTensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    dtype: str | None  # safetensors' name where the class fixes it, else None
    persistent: bool = True  # in the state dict


class Seen(NamedTuple):
    cls: str
    kind: str
    parameters: tuple[SeenTensor, ...]
    buffers: tuple[SeenTensor, ...]
    groups: int
    transposed: bool
    children: tuple[tuple[str, Seen], ...]
    is_open: bool = False  # of another package, built by a name in the config: below it anything may stand

    def names(self, before: str = "") -> Iterator[str]:
        """The full names of all parameters."""
        yield from (f"{before}{tensor.name}" for tensor in self.parameters)
        for name, child in self.children:
            yield from child.names(f"{before}{name}.")


def observe(model: nn.Module) -> Seen:
    """The tree of `model.named_modules()`: a module that stands in two places is listed where it comes first."""
    return _observe(model, set())


def structure_of(seen: Seen) -> Any:
    """All but the sizes."""
    return (
        seen.cls,
        tuple((t.name, len(t.shape), t.dtype) for t in seen.parameters),
        tuple((t.name, t.persistent) for t in seen.buffers),
        seen.groups,
        tuple((name, structure_of(child)) for name, child in seen.children),
    )


def kind_of(module: nn.Module) -> str:
    return next((kind for cls, kind in _KINDS if isinstance(module, cls)), "other")


def _observe(module: nn.Module, done: set[int]) -> Seen:
    done.add(id(module))
    kept = set(module._buffers) - module._non_persistent_buffers_set
    parameters = tuple(_tensor(name, value) for name, value in module._parameters.items() if value is not None)
    buffers = tuple(_tensor(name, value, name in kept) for name, value in module._buffers.items() if value is not None)
    children = []
    for name, child in module._modules.items():
        if child is not None and id(child) not in done:
            children.append((name, _observe(child, done)))
    is_open = type(module).__module__.startswith("timm.")
    return Seen(
        cls=_OPEN if is_open else type(module).__name__,
        kind=kind_of(module),
        parameters=() if is_open else parameters,
        buffers=() if is_open else buffers,
        groups=getattr(module, "groups", 1) if isinstance(module, nn.modules.conv._ConvNd) else 1,
        transposed=bool(getattr(module, "is_transposed", False)),
        children=() if is_open else tuple(children),
        is_open=is_open,
    )


_DTYPES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.complex64: "C64", torch.float8_e4m3fn: "F8_E4M3",
}  # fmt: skip


def _tensor(name: str, value: torch.Tensor, persistent: bool = True) -> SeenTensor:
    dtype = None if value.dtype == BUILD_DTYPE else _DTYPES[value.dtype]
    return SeenTensor(name, tuple(value.shape), dtype, persistent)


def ties_of(model: PreTrainedModel) -> dict[str, str]:
    """Full parameter name -> the name of the parameter that it shares: as the class says, then as objects show."""
    ties = dict(getattr(model, "all_tied_weights_keys", None) or {})
    first: dict[int, str] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        owner = first.setdefault(id(value), name)
        if owner != name and name not in ties and owner not in ties:
            ties[name] = owner
    return ties


def declared_of(model: PreTrainedModel) -> dict[str, str]:
    """Parameter -> source as `_tied_weights_keys` of the model and its parts say, where the source is a parameter."""
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        keys = getattr(module, "_tied_weights_keys", None)
        before = f"{name}." if name else ""
        found |= {before + key: before + source for key, source in keys.items()} if isinstance(keys, dict) else {}
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {key: source for key, source in found.items() if source in names}


def embeddings_of(model: PreTrainedModel) -> tuple[str | None, str | None]:
    """Module names behind get_input_embeddings() and get_output_embeddings(); None where they fail or have none."""
    names = {id(module): name for name, module in model.named_modules()}
    return tuple(
        _named(getattr(model, method, None), names) for method in ("get_input_embeddings", "get_output_embeddings")
    )


def _named(method: Any, names: dict[int, str]) -> str | None:
    try:
        return names.get(id(method()))
    except Exception:
        return None


def one_embedding(model: torch.nn.Module) -> list[str]:
    """Names of the modules that set_input_embeddings() makes one and the same, where they are several. It is done to
    the model.
    """
    new = torch.nn.Embedding(1, 1, device="meta")
    try:
        model.set_input_embeddings(new)
    except Exception:  # the class has no input embedding, or none that can be set
        return []
    names = [name for name, module in model.named_modules(remove_duplicate=False) if module is new]
    return names if len(names) > 1 else []
