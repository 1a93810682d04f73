"""PEFT's adapter put on a real model, and the facts that can be read from both. Needs torch and peft.

Rules' source: peft 0.21.2, get_peft_model (mapping_func.py), PeftModel.save_pretrained (peft_model.py).
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from math import prod
from typing import Any

from estimator.dtypes import BITS, from_torch
from estimator.jobs.verifying.facts import AdaptedModule, BuiltModule, SavedTensor, shapes_of, tie_groups
from estimator.jobs.verifying.folder import temporary_folder
from estimator.jobs.verifying.model import torch_dtype

# Written by PEFT into what it saves, not part of a request.
_NOT_ASKED = frozenset(
    {"peft_type", "auto_mapping", "base_model_name_or_path", "peft_version", "inference_mode", "revision"}
)


def lora_config(fields: Mapping[str, Any], on_meta: bool) -> Any:
    """PEFT's own config object. Raises what PEFT raises. On meta no values are initialised: shapes stay the same."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    cls = PEFT_TYPE_TO_CONFIG_MAPPING[fields.get("peft_type") or "LORA"]
    known = {field.name for field in dataclasses.fields(cls)} - _NOT_ASKED
    given = {name: value for name, value in fields.items() if name in known}
    if on_meta and isinstance(given.get("init_lora_weights"), str):
        given["init_lora_weights"] = True
    return cls(**given)


def put_on(model: Any, fields: Mapping[str, Any], adapter_dtype: str | None, on_meta: bool) -> Any:
    """The PeftModel. `adapter_dtype`: None is PEFT's default, "base" is autocast_adapter_dtype=False, else a name.

    low_cpu_mem_usage spares values that meta does not need, but unties what ensure_weight_tying ties.
    """
    import peft

    autocast = adapter_dtype != "base"
    config = lora_config(fields, on_meta)
    spare = on_meta and not fields.get("ensure_weight_tying")
    adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=autocast, low_cpu_mem_usage=spare)
    if adapter_dtype not in (None, "base"):
        dtype = torch_dtype(adapter_dtype)
        for parameter in adapted.parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
    return adapted


def dtype_name(dtype: Any) -> str:
    return from_torch(dtype) or str(dtype)


def base_facts(model: Any) -> dict[str, Any]:
    """Facts of the model before PEFT changes it."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    by_dtype: dict[str, int] = {}
    for parameter in model.parameters():
        dtype = dtype_name(parameter.dtype)
        by_dtype[dtype] = by_dtype.get(dtype, 0) + parameter.nelement() * parameter.element_size()
    return {
        "architecture": type(model).__name__,
        "tied": tie_groups(names),
        "base_bytes": by_dtype,
        "buffers": {
            name: SavedTensor(dtype_name(buffer.dtype), tuple(buffer.shape))
            for name, buffer in model.named_buffers(remove_duplicate=False)
        },
        "footprint": model.get_memory_footprint(),
    }


def module_facts(model: Any) -> dict[str, Any]:
    """Every module with the parameters that it owns, and their number; of a model that is not quantised."""
    modules = {}
    for name, module in model.named_modules(remove_duplicate=False):
        own = module.named_parameters(recurse=False, remove_duplicate=False)
        shapes = sorted((parameter_name, tuple(parameter.shape)) for parameter_name, parameter in own)
        modules[name] = BuiltModule(type(module).__name__, tuple(shapes))
    return {
        "modules": modules,
        "shapes": shapes_of(modules),
        "base_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def converted_modules(model: Any) -> dict[str, str]:
    """The layers that bitsandbytes has taken over, and their classes."""
    classes = ("Linear4bit", "Linear8bitLt")
    return {name: type(m).__name__ for name, m in model.named_modules() if type(m).__name__ in classes}


def adapted_modules(model: Any) -> dict[str, tuple[AdaptedModule, ...]]:
    """By run-time name (`.base_layer` where layers are nested): in, out and rank of every LoRA layer.

    Modules that are trained beside LoRA (modules_to_save, trainable tokens) have none of the three.
    """
    from peft.tuners.lora import LoraLayer
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    found: dict[str, list[AdaptedModule]] = {}
    for name, module in model.base_model.model.named_modules():
        if isinstance(module, LoraLayer) and "default" in module.r:
            entry = AdaptedModule(module.in_features, module.out_features, module.r["default"])
            found.setdefault(name, []).append(entry)
        elif isinstance(module, (AuxiliaryTrainingWrapper, TrainableTokensLayer)):
            found[name] = [AdaptedModule(None, None, None)]
    return {name: tuple(sorted(entries)) for name, entries in found.items()}


def adapted_facts(model: Any) -> dict[str, Any]:
    """Facts of the PeftModel that need no file."""
    trainable, total = model.get_nb_trainable_parameters()
    return {"adapted": adapted_modules(model), "trainable": trainable, "all_parameters": total}


def file_tensors(model: Any, save_embedding_layers: str | bool) -> dict[str, SavedTensor]:
    """What save_pretrained would write."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=save_embedding_layers)
    return {name: SavedTensor(dtype_name(t.dtype), tuple(t.shape)) for name, t in state.items()}


def saved_file(model: Any, save_embedding_layers: str | bool) -> tuple[dict[str, SavedTensor], int]:
    """The tensors in the header of a file that PEFT really saved, and that file's bytes; nothing is left behind."""
    from safetensors import safe_open

    with temporary_folder() as folder:
        model.save_pretrained(folder, save_embedding_layers=save_embedding_layers)
        path = os.path.join(folder, "adapter_model.safetensors")
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            tensors = {name: SavedTensor(part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
        return tensors, os.path.getsize(path)


def file_bytes_on_meta(tensors: Mapping[str, SavedTensor]) -> int:
    """Bytes of the file with these tensors, its header serialised by safetensors itself over a stand-in for the data.

    The header's length depends on names, shapes and offsets; offsets have to be the real ones, so it is laid out here
    as safetensors 0.8.0 does: widest dtype first, then by name, padded to 8 bytes.
    """
    order = list(BITS)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in sorted(tensors, key=lambda name: (-order.index(tensors[name].dtype), name)):
        dtype, shape = tensors[name]
        size = prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + length + -length % 8 + at
