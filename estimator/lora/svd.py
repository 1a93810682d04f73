"""AdaLoRA's layers (peft 0.21.2, peft/tuners/adalora/layer.py, model.py): A, B, and the singular values E."""

from __future__ import annotations

from math import prod

from estimator.architecture.module import Module, Parameter
from estimator.errors import InvalidLoraError, UnsupportedModuleError
from estimator.lora.layers import LoraLayer
from estimator.lora.weights import Weight


def svd_layers(module: Module, rank: int, weight: Parameter | None) -> list[LoraLayer]:
    """Raises UnsupportedModuleError for what is no Linear, Conv1D or Conv2d, InvalidLoraError for a negative rank."""
    if module.kind not in ("Linear", "Conv1D", "Conv2d") or weight is None:
        raise UnsupportedModuleError(
            f"{module.name} is a {module.cls}, which AdaLoRA cannot wrap.",
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
        Weight("ranknum", (1,), trainable=False, saved=False),
    )
    what = "SVDConv2d" if module.kind == "Conv2d" else "SVDLinear"
    return [
        LoraLayer(module.name, module.kind, what, in_features, out_features, rank, weight.dtype, weights, module.name)
    ]
