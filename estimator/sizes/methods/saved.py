"""Adapters of other methods than LoRA: the tensors that they save, from config and tree.

    ADAPTION_PROMPT   in each of the last `adapter_layers` layers a prompt [1, adapter_len, hidden size] and a gate [1]
    PROMPT_TUNING     one embedding [num_virtual_tokens, token_dim] for each stack of layers (T5 has two);
                      P_TUNING the same, computed once; CPT one of the tokens it was made from
    MULTITASK_PROMPT_TUNING  the same, and for each task its rank columns and rows
    PREFIX_TUNING     one embedding [num_virtual_tokens, 2 num_layers token_dim], keys and values of every layer;
                      CARTRIDGE the same
    LN_TUNING         the targeted norms themselves, in the base's dtype
    TRAINABLE_TOKENS  a row of each of `token_indices`
    SHADOW            what shadow.py says
    XLORA             what classifier.py says; the LoRAs that it mixes lie in folders of their own
    VERA, PVERA, RANDLORA, VBLORA, UNILORA, TINYLORA, FROD   what all layers share, beside each layer's own
    the others        of each targeted matrix what layers.py says; a shape that the weights decide is VARIES

and the modules that modules_to_save or the task names, whole. peft 0.21.2, tuners/*/model.py and peft_model.py
(get_prompt_embedding_to_save).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import ceil
from typing import Any

from estimator.architecture.module import VARIES, Module, ModuleTree
from estimator.errors import LoraSizeError
from estimator.lora.adapt import adapt
from estimator.lora.index import TreeIndex, index_of
from estimator.lora.match import DUMMY_TARGET_MODULES, match_modules, ranks
from estimator.lora.tensors import embeddings_are_targeted
from estimator.request.lora_config import LoraConfig, from_mapping
from estimator.sizes.adapter_causes import PREFIX, Part, Parts
from estimator.sizes.methods.adapted_layer import Adapted, Shapes
from estimator.sizes.methods.classifier import xlora_parts
from estimator.sizes.methods.layers import NUMBERS, OF_A_LAYER, frod_values
from estimator.sizes.methods.shadow import shadow_parts

Config = Mapping[str, Any]
Named = Iterator[tuple[str, "tuple[int, ...] | Part"]]
_ROOT = "base_model."
_MATRICES, _CONVOLUTIONS = ("Linear", "Conv1D"), ("Conv1d", "Conv2d")
# Methods that take more than matrices, and have it stated here.
_KINDS = {"HIRA": ("Embedding",), "OFT": ("Embedding",), "TINYLORA": ("Embedding",),
          "LOHA": _CONVOLUTIONS, "LOKR": _CONVOLUTIONS}  # fmt: skip
# Configs without a modules_to_save, to which PEFT adds no head of a task either.
_WITHOUT_MODULES = ("ADAPTION_PROMPT", "TRAINABLE_TOKENS", "XLORA")
_WHICH = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save")


def other_method_parts(config: Config, tree: ModuleTree) -> Parts | None:
    """The tensors of adapter_model.safetensors by name; None where no rule is known for the method or for a layer.

    A shape that the base's weights decide is VARIES.
    """
    method = str(config.get("peft_type"))
    make = _PARTS.get(method)
    try:
        named = dict(make(config, tree)) if make else {}
        saved = _saved_modules(config, tree) if named else {}
    except (LoraSizeError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None
    parts = {name: part if isinstance(part, Part) else Part("F32", part) for name, part in named.items()}
    sizes = [size for part in parts.values() if part.shape != VARIES for size in part.shape]
    is_known = bool(parts) or (method == "XLORA" and make is not None)
    return {**parts, **saved} if is_known and all(type(size) is int and size >= 0 for size in sizes) else None


def _saved_modules(config: Config, tree: ModuleTree) -> Parts:
    """What PEFT saves beside a method's own, as it does with LoRA: whole modules, and biases where they train.

    "boft_only" and the like are what "lora_only" is of LoRA. A prompt method wraps no module: its names lack `model.`.
    """
    bias = str(config.get("bias") or "none")
    targets = (
        {name: config.get(name) for name in _WHICH} if bias != "none" else {"target_modules": DUMMY_TARGET_MODULES}
    )
    names = () if config["peft_type"] in _WITHOUT_MODULES else ("modules_to_save", "task_type")
    said = {name: config.get(name) for name in names}
    given = {**targets, **said, "r": 1, "bias": bias if bias in ("none", "all") else "lora_only"}
    saved = (tensor for tensor in adapt(tree, from_mapping(given)).tensors if tensor.part != "lora")
    prefix = _ROOT if config["peft_type"] in _PROMPTS else PREFIX
    modules = {prefix + t.name.removeprefix(PREFIX): Part(t.dtype, tuple(t.shape)) for t in saved}
    return {**modules, **dict(_embeddings(config, tree))}


def _embeddings(config: Config, tree: ModuleTree) -> Iterator[tuple[str, Part]]:
    """The base layers of adapted embeddings, which PEFT saves along where they are targeted by name."""
    if config["peft_type"] in ("TRAINABLE_TOKENS", *_PROMPTS) or not config.get("target_modules"):
        return
    index, targeted = _targeted(config, tree)
    if embeddings_are_targeted(index, from_mapping({"target_modules": config["target_modules"]})):
        for module in targeted:
            if module.name in (tree.input_embedding, tree.output_embedding):
                yield from (
                    (f"{PREFIX}{module.name}.base_layer.{p.name}", Part(p.dtype, p.shape)) for p in module.parameters
                )


def _targeted(config: Config, tree: ModuleTree) -> tuple[TreeIndex, list[Module]]:
    index = index_of(tree)
    matched = match_modules(index, from_mapping({name: config.get(name) for name in _WHICH}))
    modules = (index.modules[name] for name in matched.targeted)
    # dispatch_default of OSF leaves all but torch's Linear alone
    return index, [module for module in modules if config["peft_type"] != "OSF" or module.kind == "Linear"]


def _adapted(config: Config, tree: ModuleTree) -> list[Adapted]:
    """Raises ValueError for a layer that is no matrix: what most methods make of others is not stated here."""
    _, modules = _targeted(config, tree)
    said = LoraConfig(r=0)
    if config["peft_type"] in NUMBERS:
        field, pattern = NUMBERS[config["peft_type"]]
        said = LoraConfig(r=config[field], rank_pattern=config.get(pattern) or {})
    numbers = ranks([module.name for module in modules], said)
    known = (*_MATRICES, *_KINDS.get(config["peft_type"], ()))
    if any(module.kind not in known for module in modules):
        raise ValueError("no matrix")
    return [_one(module, numbers[module.name]) for module in modules]


def _one(module: Module, number: int) -> Adapted:
    weight, *rest = module.parameters
    kernel = weight.shape[2:] if module.kind in _CONVOLUTIONS else ()
    return Adapted(module.name, *_sides(module), number, kernel, weight.dtype, bool(rest), module.kind == "Embedding")


def _sides(module: Module) -> tuple[int, int]:
    """Out and in features."""
    out, into = module.parameters[0].shape[:2]
    return (into, out) if module.kind == "Conv1D" else (out, into)


def _layer_by_layer(config: Config, tree: ModuleTree) -> Named:
    shapes, shared = OF_A_LAYER[config["peft_type"]], _SHARED.get(config["peft_type"])
    layers = _adapted(config, tree)
    for layer in layers:
        yield from ((f"{PREFIX}{layer.name}.{name}", shape) for name, shape in shapes(config, layer).items())
    if shared and layers:
        yield from ((_ROOT + name, shape) for name, shape in shared(config, layers).items())


def _widest(layers: list[Adapted]) -> tuple[int, int]:
    return max(layer.out for layer in layers), max(layer.into for layer in layers)


def _vera(config: Config, layers: list[Adapted], name: str = "vera", turns: int = 1) -> Shapes:
    (out, into), rank = _widest(layers), config["r"]
    kept = config.get("save_projection", True)
    return {f"{name}_A": (turns * rank, into), f"{name}_B": (out, rank)} if kept else {}


def _pvera(config: Config, layers: list[Adapted]) -> Shapes:
    return _vera(config, layers, "pvera", 2)


def _randlora(config: Config, layers: list[Adapted]) -> Shapes:
    """The bases, which every layer holds as well: safetensors gets a copy for each name."""
    if not config.get("save_projection", True):
        return {}
    (out, into), rank = _widest(layers), config["r"]
    shorter = min(out, into)
    bases = {"randlora_A": (rank, 1, shorter), "randlora_B": (max(out, into), ceil(shorter / rank), rank)}
    places = ("", *(f"model.{layer.name}." for layer in layers))
    return {place + name: shape for place in places for name, shape in bases.items()}


def _vblora(config: Config, layers: list[Adapted]) -> Shapes:
    return {"vblora_vector_bank": (config["num_vectors"], config["vector_length"])}


def _unilora(config: Config, layers: list[Adapted]) -> Shapes:
    return {"unilora_theta_d": (config["theta_d_length"],)}


def _frod(config: Config, layers: list[Adapted]) -> Shapes:
    """For layers of one name: directions of the input, in the base's dtype, and the places off their diagonal."""
    if not config.get("save_projection", True):
        return {}
    shapes: dict[str, tuple[int, ...] | Part] = {}
    for layer in layers:
        role = _role(layer.name.split("."))
        shapes[f"frod_V.{role}"] = Part(layer.dtype, (layer.into, layer.into))
        shapes[f"frod_s_indices.{role}"] = Part("I64", (2, frod_values(config, layer)))
        shapes[f"frod_s_size.{role}"] = Part("I64", (2,))
    return shapes


def _role(parts: list[str]) -> str:
    """`_category_from_key`."""
    if parts[-3:] == ["attention", "output", "dense"]:
        return "attention_output"
    return parts[-1] if len(parts) == 1 or parts[-2].isdigit() else "_".join(parts[-2:])


def _shadow(config: Config, tree: ModuleTree) -> Named:
    wrapped = [module.name for module in _targeted(config, tree)[1]] if config.get("target_modules") else []
    yield from ((_ROOT + name, shape) for name, shape in shadow_parts(config, tree, wrapped))


def _xlora(config: Config, tree: ModuleTree) -> Named:
    yield from ((_ROOT + name, part) for name, part in xlora_parts(config, tree))


def _tinylora(config: Config, layers: list[Adapted]) -> Shapes:
    """A vector for each group of layers that are next to one another (`_create_and_replace`)."""
    groups = max(1, round(len(layers) * (1.0 - config.get("weight_tying", 0.0))))
    size = max(1, len(layers) // groups)
    return {f"tinylora_v.{min(at // size, groups - 1)}": (config["u"],) for at in range(len(layers))}


def _adaption_prompts(config: Config, tree: ModuleTree) -> Named:
    text = tree.config.get("text_config")
    width = (text if isinstance(text, Mapping) else tree.config)["hidden_size"]
    name = config.get("target_modules") or "self_attn"
    attentions = [module.name for module in tree.modules if module.name.endswith(f".{name}")]
    if len(attentions) < config["adapter_layers"]:
        raise ValueError("fewer layers")
    for attention in attentions[-config["adapter_layers"] :]:
        yield f"{PREFIX}{attention}.adaption_prompt", (1, config["adapter_len"], width)
        yield f"{PREFIX}{attention}.adaption_gate", (1,)


def _norms(config: Config, tree: ModuleTree) -> Named:
    for module in _targeted(config, tree)[1]:
        copies = ((f"{PREFIX}{module.name}.ln_tuning_layers.{p.name}", p) for p in module.parameters)
        yield from ((name, Part(p.dtype, p.shape)) for name, p in copies)


def _rows(config: Config, tree: ModuleTree) -> Named:
    """Of the targeted table, and of what is tied to it."""
    for module in _targeted(config, tree)[1]:
        shape = len(config["token_indices"]), module.parameters[0].shape[1]
        tied = [name for name, source in tree.tied.items() if source == f"{module.name}.weight"]
        for name in (module.name, *(weight.removesuffix(".weight") for weight in tied)):
            yield f"{PREFIX}{name}.trainable_tokens_delta", shape


def _prompt(config: Config, tree: ModuleTree) -> Named:
    stacks = config.get("num_transformer_submodules") or 1
    yield "prompt_embeddings", (config["num_virtual_tokens"] * stacks, config["token_dim"])


def _prompts_of_tasks(config: Config, tree: ModuleTree) -> Named:
    yield from _prompt(config, tree)
    tasks, ranks_ = config["num_tasks"], config["num_ranks"]
    stacks = config.get("num_transformer_submodules") or 1
    yield "prefix_task_cols", (tasks, config["num_virtual_tokens"] * stacks, ranks_)
    yield "prefix_task_rows", (tasks, ranks_, config["token_dim"])


def _one_prompt(config: Config, tree: ModuleTree) -> Named:
    yield "prompt_embeddings", (config["num_virtual_tokens"], config["token_dim"])


def _prefix(config: Config, tree: ModuleTree) -> Named:
    yield "prompt_embeddings", (config["num_virtual_tokens"], 2 * config["num_layers"] * config["token_dim"])


_SHARED: Mapping[str, Callable[[Config, list[Adapted]], Shapes]] = {
    "VERA": _vera, "PVERA": _pvera, "RANDLORA": _randlora, "VBLORA": _vblora, "UNILORA": _unilora,
    "TINYLORA": _tinylora, "FROD": _frod,
}  # fmt: skip
_PROMPTS: Mapping[str, Callable[[Config, ModuleTree], Named]] = {
    "PROMPT_TUNING": _prompt, "P_TUNING": _prompt, "CPT": _one_prompt, "MULTITASK_PROMPT_TUNING": _prompts_of_tasks,
    "PREFIX_TUNING": _prefix, "CARTRIDGE": _prefix,
}  # fmt: skip
_PARTS: Mapping[str, Callable[[Config, ModuleTree], Named]] = {
    "ADAPTION_PROMPT": _adaption_prompts,
    "LN_TUNING": _norms,
    "SHADOW": _shadow,
    "TRAINABLE_TOKENS": _rows,
    "XLORA": _xlora,
    **_PROMPTS,
    **dict.fromkeys(OF_A_LAYER, _layer_by_layer),
}
