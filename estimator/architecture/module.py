"""The modules that transformers builds, as PEFT would see them in `model.named_modules()`."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from estimator.notes import Note

# What PEFT tells apart. "other" is everything LoRA cannot wrap: norms, containers, activations, fused experts, ...
KINDS = ("Linear", "Conv1D", "Embedding", "Conv1d", "Conv2d", "Conv3d", "MultiheadAttention", "other")


VARIES = (-1,)  # shape of a text that is as long as the weights' values make it


class Parameter(NamedTuple):
    """A parameter or buffer that a module itself owns (not its children)."""

    name: str  # local: "weight", "bias", "gate_up_proj"
    shape: tuple[int, ...]  # as torch has it: Linear (out, in); Conv1D (in, out); Embedding (rows, width)
    dtype: str  # safetensors' name, "F32"; as stored, or as config.json says, or "F32"
    fixed: bool = False  # the class sets this dtype itself: from_pretrained(dtype=...) leaves it (float32 inv_freq)
    persistent: bool = True  # of a buffer: part of state_dict(), so saved along with a module in modules_to_save


class Module(NamedTuple):
    """One entry of `named_modules()`; containers and modules without parameters are entries as well."""

    name: str  # full run-time name; "" is the model itself
    cls: str  # class name: "Linear", "LlamaRMSNorm", "ModuleList"
    kind: str  # one of KINDS
    parameters: tuple[Parameter, ...] = ()  # in registration order, tied ones included
    buffers: tuple[Parameter, ...] = ()  # persistent or not
    groups: int = 1  # of a convolution


class QuantisedLayer(NamedTuple):
    """What stands at run time in place of a module's own parameters once a quantiser has converted it.

    The module keeps its place in `ModuleTree.modules` with the logical weight, so that in and out features, and what
    LoRA puts on them, are read as ever; bytes and counts are read here.
    """

    scheme: str  # "bitsandbytes_4bit", "gptq", "fp8", ...: the module's own, where several are mixed
    cls: str  # run-time class: "Linear4bit"
    parameters: tuple[Parameter, ...]  # as run-time tensors, packed; bias included
    buffers: tuple[Parameter, ...] = ()
    state_bytes: int = 0  # tensors beside the weight that are neither parameter nor buffer
    # what state_dict() has beside parameters and persistent buffers; None: of a size not known
    saved_beside: tuple[Parameter, ...] | None = None
    saved_anew: tuple[Parameter, ...] | None = None  # the same once OLoRA has quantised the weight again
    packed_factor: int = 1  # PEFT counts an element of `weight` this often: 2 x itemsize for Params4bit
    is_linear: bool = True  # isinstance(torch.nn.Linear): what `all-linear` finds
    refusal: str | None = None  # why PEFT cannot wrap it; None where it can
    compute_dtype: str | None = None  # of a Linear4bit: what PEFT casts an adapter on it to
    unpacked_dtype: str | None = None  # of a Linear4bit: what its weight was quantised from, and is unpacked to


class ModuleTree(NamedTuple):
    """What `AutoModel...from_pretrained` would return, without weights."""

    architecture: str | None  # the class that is built
    config: Mapping[str, Any]  # the class's own: config.json, or the section of it that the class is built from
    modules: tuple[Module, ...]  # in named_modules() order
    tied: Mapping[str, str]  # full parameter name -> the name of the parameter that it shares
    input_embedding: str | None = None  # module name behind get_input_embeddings(); None where that fails
    one_embedding: tuple[str, ...] = ()  # where set_input_embeddings() gives several names one module: all of them
    same_modules: Mapping[str, str] = {}  # further names of a module -> its name in `modules`
    declares_ties: bool = False  # `_tied_weights_keys` is a mapping: PEFT then asks for the input embedding, or fails
    # parameter -> source, as `_tied_weights_keys` of the class and its parts say whatever the config; the source exists
    declared_ties: Mapping[str, str] = {}
    tie_word_embeddings: bool | None = (
        None  # of the run-time config, class default included; None: no such field, or unknown
    )
    output_embedding: str | None = None  # module name behind get_output_embeddings()
    # parameter beside the head, as long as the vocabulary and not tied to it -> what a resized vocabulary makes of it:
    # "" it is kept, None it is dropped, else the parameter that takes its place
    beside_head: Mapping[str, str | None] = {}
    keep_in_fp32: tuple[str, ...] = ()  # _keep_in_fp32_modules (under fp16 only)
    keep_in_fp32_strict: tuple[str, ...] = ()  # _keep_in_fp32_modules_strict (under bf16 too)
    transposed: tuple[str, ...] = ()  # parameters whose class keeps (experts, in, out): PEFT's is_transposed
    is_composite: bool = False  # several towers: config.json nests text_config and others
    basis: str = "exact"  # "exact" | "inferred"
    shapes: str = "headers"  # "headers" | "config"
    quantised: Mapping[str, QuantisedLayer] = {}  # by module name; {} until loaded so
    lacking: tuple[str, ...] = ()  # parameters that the file of this very class does not hold
    unstored: frozenset[str] = frozenset()  # parameters that no file holds, whatever class it is of: a task's head
    notes: tuple[Note, ...] = ()


def full_name(module: str, own: str) -> str:
    """What torch calls a module's own parameter, buffer or child: what the model itself ("") owns has no prefix."""
    return f"{module}.{own}" if module else own


def named_parameters(modules: Iterable[Module]) -> Iterator[tuple[str, Parameter]]:
    """As `model.named_parameters(remove_duplicate=False)`: full names, tied ones under each of theirs."""
    return ((full_name(module.name, own.name), own) for module in modules for own in module.parameters)


def named_buffers(modules: Iterable[Module]) -> Iterator[tuple[str, Parameter]]:
    """As `model.named_buffers(remove_duplicate=False)`, those that are not persistent included."""
    return ((full_name(module.name, own.name), own) for module in modules for own in module.buffers)


def parameter_shapes(modules: Iterable[Module]) -> dict[str, tuple[int, ...]]:
    """Full parameter name -> shape as torch has it."""
    return {name: own.shape for name, own in named_parameters(modules)}
