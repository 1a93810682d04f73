"""Adapters of other methods than LoRA, as far as their size is explained: what they save, from config and tree.

    ADAPTION_PROMPT   in each of `adapter_layers` layers a prompt [1, adapter_len, hidden size] and a gate [1]
    PROMPT_TUNING     one embedding [num_virtual_tokens, token_dim]; P_TUNING: the same, computed once
    PREFIX_TUNING     one embedding [num_virtual_tokens, 2 num_layers token_dim], keys and values of every layer
    LN_TUNING         the targeted norms themselves
    TRAINABLE_TOKENS  a row of each of `token_indices`
    VERA              of each targeted layer b [out] and d [r]; A [r, widest in] and B [widest out, r] where saved

and of each targeted layer

    OSF        the directions below the rank kept: U [out, low], S [low], V [low, in]
    IA3        a vector [out], or [in] in `feedforward_modules`
    LOHA       twice [out, r] and [r, in]
    HRA        [in, r]
    MISS       [r, out]
    OFT        as many triangles of a block as blocks go into its input
    C3A        [out / block, in / block, block]
    FOURIERFT  n_frequency
    DELORA     [r, in], [out, r], a scale [1] and norms [in]

peft 0.21.2, tuners/*/layer.py and peft_model.py (get_prompt_embedding_to_save).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from typing import Any

from estimator.architecture.module import Module, ModuleTree
from estimator.request.patterns import fullmatching
from estimator.sizes.adapter_causes import Cause

Shapes = Iterator[tuple[int, ...]]
LEAST_HEADER_BYTES, HEADER_BYTES = 50, 300  # of a tensor: a name, a dtype, a shape and two offsets


def other_method_causes(config: Mapping[str, Any], tree: ModuleTree, actual_bytes: int) -> tuple[Cause, ...] | None:
    """Why the file of another method has its size; None where its rule is not known or does not fit."""
    method = str(config.get("peft_type"))
    shapes = _shapes(method, config, tree)
    elements = sum(map(prod, shapes))
    for width in (4, 2):
        beside = actual_bytes - elements * width
        if shapes and LEAST_HEADER_BYTES * len(shapes) <= beside <= HEADER_BYTES * len(shapes) + 64:
            message = f"This is an adapter of {method}, not of LoRA: {elements:,} elements in {len(shapes):,} tensors."
            halved = Cause("sixteen_bit", "The tensors have 16 bits.", len(shapes), -2 * elements)
            return (Cause("other_method", message, len(shapes), 0), *([halved] if width == 2 else []))
    return None


def _shapes(method: str, config: Mapping[str, Any], tree: ModuleTree) -> list[tuple[int, ...]]:
    """What the method saves; [] where no rule is known, or the config does not hold what its rule reads."""
    try:
        shapes = list(_SHAPES[method](config, tree)) if method in _SHAPES else []
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return []
    return shapes if all(type(size) is int for shape in shapes for size in shape) else []


def _adaption_prompts(config: Mapping[str, Any], tree: ModuleTree) -> Shapes:
    text = tree.config.get("text_config")
    width = (text if isinstance(text, Mapping) else tree.config).get("hidden_size")
    length, layers = config.get("adapter_len"), config.get("adapter_layers")
    if all(type(value) is int for value in (width, length, layers)):
        for _ in range(layers):
            yield 1, length, width
            yield (1,)


def _prompt(config: Mapping[str, Any], tree: ModuleTree) -> Shapes:
    yield config["num_virtual_tokens"], config["token_dim"]


def _prefix(config: Mapping[str, Any], tree: ModuleTree) -> Shapes:
    yield config["num_virtual_tokens"], 2 * config["num_layers"] * config["token_dim"]


def _norms(config: Mapping[str, Any], tree: ModuleTree) -> Shapes:
    yield from (p.shape for module in _targeted(config, tree) for p in module.parameters)


def _rows(config: Mapping[str, Any], tree: ModuleTree) -> Shapes:
    tables = (module for module in _targeted(config, tree) if module.kind == "Embedding")
    yield from ((len(config["token_indices"]), module.parameters[0].shape[1]) for module in tables)


def _vera(config: Mapping[str, Any], tree: ModuleTree) -> Shapes:
    sides = [_sides(module) for module in _targeted(config, tree) if module.kind in _MATRICES]
    for out, _ in sides:
        yield from ((out,), (config["r"],))
    if config.get("save_projection", True) and sides:
        yield config["r"], max(into for _, into in sides)
        yield max(out for out, _ in sides), config["r"]


def _layer_by_layer(config: Mapping[str, Any], tree: ModuleTree) -> Shapes:
    shapes = _OF_A_LAYER[config["peft_type"]]
    for module in _targeted(config, tree):
        if module.kind in _MATRICES:
            yield from shapes(config, module.name, *_sides(module))


def _targeted(config: Mapping[str, Any], tree: ModuleTree) -> Iterator[Module]:
    targets = config.get("target_modules") or ()
    if isinstance(targets, str):
        names = {*fullmatching(targets, [module.name for module in tree.modules], where="target_modules")}
        yield from (module for module in tree.modules if module.name in names)
    else:
        yield from (module for module in tree.modules if _is_named(module.name, targets))


def _is_named(module: str, names: Iterable[str]) -> bool:
    return f".{module}".endswith(tuple(f".{name}" for name in names))


def _sides(module: Module) -> tuple[int, int]:
    """Out and in features."""
    shape = module.parameters[0].shape
    return (shape[1], shape[0]) if module.kind == "Conv1D" else shape


def _low_rank_parts(config: Mapping[str, Any], name: str, out: int, into: int) -> Shapes:
    kept = (config.get("rank_pattern") or {}).get(name.rpartition(".")[2], config.get("effective_rank"))
    low = min(out, into) - kept if type(kept) is int else 0
    if low > 0:
        yield from ((out, low), (low,), (low, into))


def _blocks(config: Mapping[str, Any], into: int) -> tuple[int, ...]:
    """OFT: the number of blocks and the elements above the diagonal of one; `r` is the number where it is not 0."""
    block = config.get("oft_block_size") or into // config["r"]
    return 1 if config.get("block_share") else into // block, block * (block - 1) // 2


_MATRICES = ("Linear", "Conv1D")
_OF_A_LAYER: Mapping[str, Callable[[Mapping[str, Any], str, int, int], Iterable[tuple[int, ...]]]] = {
    "OSF": _low_rank_parts,
    "IA3": lambda c, name, out, into: [(into if _is_named(name, c.get("feedforward_modules") or ()) else out,)],
    "LOHA": lambda c, name, out, into: [(out, c["r"]), (c["r"], into)] * 2,
    "HRA": lambda c, name, out, into: [(into, c["r"])],
    "MISS": lambda c, name, out, into: [(c["r"], out)],
    "OFT": lambda c, name, out, into: [_blocks(c, into)],
    "C3A": lambda c, name, out, into: [(out // c["block_size"], into // c["block_size"], c["block_size"])],
    "FOURIERFT": lambda c, name, out, into: [(c["n_frequency"],)],
    "DELORA": lambda c, name, out, into: [(c["r"], into), (out, c["r"]), (1,), (into,)],
}
_SHAPES: Mapping[str, Callable[[Mapping[str, Any], ModuleTree], Shapes]] = {
    "ADAPTION_PROMPT": _adaption_prompts,
    "PROMPT_TUNING": _prompt,
    "P_TUNING": _prompt,
    "PREFIX_TUNING": _prefix,
    "LN_TUNING": _norms,
    "TRAINABLE_TOKENS": _rows,
    "VERA": _vera,
    **dict.fromkeys(_OF_A_LAYER, _layer_by_layer),
}
