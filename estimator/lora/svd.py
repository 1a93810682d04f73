"""AdaLoRA's layers (peft 0.21.2, peft/tuners/adalora/layer.py, model.py): A, B, and the singular values E."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from estimator.architecture.module import Module, Parameter
from estimator.errors import InvalidLoraError, UnsupportedModuleError
from estimator.lora.dtypes import adapter_dtype_of
from estimator.lora.layers import LoraLayer, check_shape_is_known
from estimator.lora.runtime import ADAPTER
from estimator.lora.tensors import PREFIX, SavedTensor
from estimator.lora.weights import Weight

_NO_LINEAR = frozenset({"awq", "eetq", "hqq", "aqlm"})  # schemes whose layers are no torch.nn.Linear


def svd_layers(module: Module, rank: int, weight: Parameter | None, scheme: str | None) -> list[LoraLayer]:
    """Raises UnsupportedModuleError for what is no Linear, Conv1D or Conv2d or is packed as PEFT has no
    class for, InvalidLoraError for a negative rank, UnsupportedError where the module's shape is not known.
    """
    wrapped = module.kind in ("Linear", "Conv1D", "Conv2d") and scheme not in _NO_LINEAR
    if wrapped:
        check_shape_is_known(module, weight)
    if not wrapped or weight is None:
        raise UnsupportedModuleError(
            f"{module.name} is a {module.cls}{f' in {scheme}' if scheme else ''}, which AdaLoRA cannot wrap.",
            where="target_modules",
            way_out="target Linear, Conv1D or Conv2d modules",
        )
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 0:
        raise InvalidLoraError("init_r should be 0 or a positive number.", where="init_r", way_out="give a number")
    if module.kind == "Conv2d":
        out_features, in_features = weight.shape[0], weight.shape[1] * module.groups
        columns = in_features * prod(weight.shape[2:])
    else:
        out_features, in_features = weight.shape if module.kind == "Linear" else reversed(weight.shape)
        columns = in_features
    weights = (
        Weight("lora_A", (rank, columns)),
        Weight("lora_B", (out_features, rank)),
        Weight("lora_E", (rank, 1)),
        Weight("ranknum", (1,), trainable=_is_moved(weight.dtype), saved=False),
    )
    what = "SVDConv2d" if module.kind == "Conv2d" else "SVDLinear"
    return [
        LoraLayer(module.name, module.kind, what, in_features, out_features, rank, weight.dtype, weights, module.name)
    ]


def _is_moved(dtype: str) -> bool:
    """ranknum is made frozen in float32; what a ParameterDict is given in the base's dtype is another, which trains."""
    return adapter_dtype_of(dtype, "base") != "F32"


def without_given_up_ranks(
    tensors: Sequence[SavedTensor], rank_pattern: Mapping[str, Any]
) -> tuple[tuple[SavedTensor, ...], str | None]:
    """resize_state_dict_by_rank_pattern: the file of a trained AdaLoRA, whose config lists the ranks that are left.

    The tensors, and why saving fails where it does: `{"q_proj.lora_E": [true, false]}` must name every layer in full.
    """
    resized = {tensor.name: tensor for tensor in tensors}
    layers = {tensor.name for tensor in tensors if tensor.part == "lora"}
    for name, kept in rank_pattern.items():
        if not isinstance(kept, (list, tuple)):
            return (), f"rank_pattern of AdaLoRA holds lists of true and false, and {name[:80]} has {str(kept)[:40]!r}."
        parts = name.split(".")
        layer = ".".join(parts[:-2] if ADAPTER in name else parts[:-1])
        for part in ("lora_E", "lora_A", "lora_B"):
            key, axis = f"{PREFIX}{layer}.{part}", 1 if part == "lora_B" else 0
            tensor = resized[key] if key in layers else None
            if tensor is None or (sum(kept) != tensor.shape[axis] and len(kept) != tensor.shape[axis]):
                return (), f"rank_pattern names {name[:80]}, and no layer of that name has {len(kept):,} ranks."
            shape = (tensor.shape[0], sum(kept)) if axis else (sum(kept), *tensor.shape[1:])
            resized[key] = tensor._replace(shape=shape)
    return tuple(resized.values()), None
