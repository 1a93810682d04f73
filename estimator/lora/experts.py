"""Notes on experts: frozen ones, and counts that differ between transformers 4 and 5.

transformers 4 builds experts one by one, each with Linear modules; transformers 5 fuses them into parameters, and PEFT
(0.21.2, convert_peft_config_for_transformers) adapts those with the rank multiplied by the number of fused names.
"""

from __future__ import annotations

from math import prod

from estimator.architecture.module import Module
from estimator.lora.inject import Injection, Prepared
from estimator.lora.layers import LoraLayer
from estimator.notes import Note
from estimator.request.lora_config import LoraConfig


def expert_notes(asked: LoraConfig, request: Prepared, injection: Injection, trained: int) -> list[Note]:
    """What the reader must know of experts; `trained` is the number of trainable parameters."""
    if asked.target_parameters is None and request.config.target_parameters:
        return [_by_release(asked, injection, trained)]
    index = request.index
    experts = index.remembered("experts", lambda: [module for module in index.tree.modules if _holds_experts(module)])
    adapted = {layer.module for layer in injection.layers} if experts else ()
    frozen = [module for module in experts if module.name not in adapted]
    if not frozen:
        return []
    size = sum(prod(p.shape) for module in frozen for p in module.parameters if len(p.shape) == 3)
    names = " and ".join(p.name for p in frozen[0].parameters if len(p.shape) == 3)
    return [
        Note(
            "experts_frozen",
            f"{len(frozen)} modules hold fused experts as parameters, such as {frozen[0].name} ({size:,} parameters in "
            f"all); they stay frozen. target_parameters adapts them: {names}.",
        )
    ]


def _holds_experts(module: Module) -> bool:
    """transformers 5 names them so; class tokens, positions and weight norms have three dimensions as well."""
    named = "Experts" in module.cls or module.name.rpartition(".")[2] == "experts"
    return named and module.kind == "other" and any(len(p.shape) == 3 for p in module.parameters)


def _by_release(asked: LoraConfig, injection: Injection, trained: int) -> Note:
    before = _with_transformers_4(asked, injection, trained)
    count = "give another count" if before is None else f"give {before:,} trainable parameters, not {trained:,}"
    return Note(
        "experts_by_release",
        "Experts are fused parameters in transformers 5, so PEFT adapts them with the rank times what each fuses; with "
        f"transformers 4, which has a module for each expert's projection, the same names {count}.",
    )


def _with_transformers_4(asked: LoraConfig, injection: Injection, trained: int) -> int | None:
    """The count where each expert is a module of its own; None where the config says more than names and a rank."""
    more = (asked.rank_pattern, asked.exclude_modules, asked.use_dora, asked.modules_to_save, asked.lora_bias)
    if isinstance(asked.target_modules, str) or any(more) or asked.layers_to_transform is not None:
        return None
    wrapped = [layer for layer in injection.layers if layer.what == "ParamWrapper"]
    return trained + sum(_one_by_one(layer, asked.r) - _elements(layer) for layer in wrapped)


def _elements(layer: LoraLayer) -> int:
    return sum(prod(weight.shape) for weight in layer.weights)


def _one_by_one(layer: LoraLayer, rank: int) -> int:
    """Parameters on the projections that one fused parameter holds: each expert's, each of its names', with rank r."""
    experts = layer.weights[0].shape[0] // layer.rank
    parts = layer.rank // rank
    return experts * parts * rank * (layer.in_features + layer.out_features // parts)
