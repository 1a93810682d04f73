"""The modules that transformers builds, as PEFT would see them in `model.named_modules()`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from estimator.notes import Note

# What PEFT tells apart. "other" is everything LoRA cannot wrap: norms, containers, activations, fused experts, ...
KINDS = ("Linear", "Conv1D", "Embedding", "Conv1d", "Conv2d", "Conv3d", "MultiheadAttention", "other")


class Parameter(NamedTuple):
    """A parameter or buffer that a module itself owns (not its children)."""

    name: str  # local: "weight", "bias", "gate_up_proj"
    shape: tuple[int, ...]  # as torch has it: Linear (out, in); Conv1D (in, out); Embedding (rows, width)
    dtype: str  # safetensors' name, "F32"; as stored, or as config.json says, or "F32"


class Module(NamedTuple):
    """One entry of `named_modules()`; containers and modules without parameters are entries as well."""

    name: str  # full run-time name; "" is the model itself
    cls: str  # class name: "Linear", "LlamaRMSNorm", "ModuleList"
    kind: str  # one of KINDS
    parameters: tuple[Parameter, ...] = ()  # in registration order, tied ones included
    buffers: tuple[Parameter, ...] = ()  # persistent or not
    groups: int = 1  # of a convolution


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleTree:
    """What `AutoModel...from_pretrained` would return, without weights."""

    architecture: str | None  # the class that is built
    config: Mapping[str, Any]  # config.json as it came
    modules: tuple[Module, ...]  # in named_modules() order
    tied: Mapping[str, str]  # full parameter name -> the name of the parameter that it shares
    input_embedding: str | None = None  # module name behind get_input_embeddings(); None where that fails
    output_embedding: str | None = None  # module name behind get_output_embeddings()
    keep_in_fp32: tuple[str, ...] = ()  # _keep_in_fp32_modules (under fp16 only)
    keep_in_fp32_strict: tuple[str, ...] = ()  # _keep_in_fp32_modules_strict (under bf16 too)
    transposed: tuple[str, ...] = ()  # parameters whose class keeps (experts, in, out): PEFT's is_transposed
    is_composite: bool = False  # several towers: config.json nests text_config and others
    basis: str = "exact"  # "exact" | "inferred"
    shapes: str = "headers"  # "headers" | "config"
    notes: tuple[Note, ...] = ()
