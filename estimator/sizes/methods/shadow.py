"""ShadowPEFT: a small model of the base's own kind beside it, and what ties its state to each wrapped block.

peft 0.21.2, tuners/shadow: `_build_shadow_backbone` and `_init_shadow_backbone` (model.py), ShadowLayer (layers.py).

    shadow_backbone   the first `shadow_num_hidden_layers` blocks and what stands beside them; the table of tokens is
                      the base's, unless share_embeddings is false or the class calls it otherwise than embed_tokens
    shadow_head       a copy of the classifier, for SEQ_CLS
    of each block     shadow_down [r, width], shadow_up [width, r], and two networks of two layers, of r between
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from estimator.architecture.facts import class_facts
from estimator.architecture.module import ModuleTree
from estimator.lora.dtypes import is_float
from estimator.sizes.adapter_causes import Part

_STACKS = ("layers", "h")
_RESIZED = ("shadow_hidden_size", "shadow_intermediate_size", "shadow_num_attention_heads")

Named = Iterator[tuple[str, "tuple[int, ...] | Part"]]


def shadow_parts(config: Mapping[str, Any], tree: ModuleTree, wrapped: Sequence[str]) -> Named:
    """Shapes by name behind `base_model.`; `wrapped`: the targeted blocks, () for all.

    Raises ValueError for a shadow of other sizes than the base's, which its class would make from a changed config.
    """
    if config.get("shadow_model", "mirror") != "mirror" or any(config.get(name) for name in _RESIZED):
        raise ValueError("another model")
    stacks = [m.name for m in tree.modules if m.name.rpartition(".")[2] in _STACKS and m.cls == "ModuleList"]
    if len(stacks) != 1:
        raise ValueError("no backbone or several")
    (stack,) = stacks
    around = stack.rpartition(".")[0]
    if around not in _backbones(tree):
        raise ValueError("a backbone around the stack's own module")
    _refuse_other_parts(tree, around)
    blocks = [m.name for m in tree.modules if m.name.rpartition(".")[0] == stack]
    layers = config.get("shadow_num_hidden_layers") or 1
    if layers not in range(1, len(blocks) + 1):
        raise ValueError("more layers than the base has, or fewer than one")
    text = tree.config.get("text_config")
    fields = text if isinstance(text, Mapping) else tree.config
    # Beside encoder_layers, num_hidden_layers is the encoder's: a decoder made anew is as deep as the base's.
    is_a_decoder = "encoder_layers" in fields and "decoder_layers" in fields
    yield from _backbone(config, tree, stack, () if is_a_decoder else blocks[layers:])
    width = next(fields[name] for name in ("hidden_size", "n_embd", "d_model") if name in fields)
    for block in wrapped or blocks:
        yield from ((f"model.{block}.shadow_{name}", shape) for name, shape in _of_a_block(config, width))


def _backbones(tree: ModuleTree) -> tuple[str, str]:
    """What `_get_backbone` takes: a decoder in the first of these modules, or that module; the model has them all."""
    facts, names = class_facts(tree.architecture or ""), {module.name for module in tree.modules}
    candidates = ("model", "transformer", facts.prefix if facts else "")
    found = next((name for name in candidates if name and name in names), "")
    return found, f"{found}.decoder".removeprefix(".")


def _refuse_other_parts(tree: ModuleTree, around: str) -> None:
    """PEFT makes the backbone's class anew, by its config alone: with the pooler that a classifier has it leave out.

    Raises ValueError where the class has parts that the base is without.
    """
    cls = next((module.cls for module in tree.modules if module.name == around), "")
    facts = class_facts(cls)
    there = {module.name.removeprefix(f"{around}." if around else "").partition(".")[0] for module in tree.modules}
    if facts is not None and any(child.name not in there for child in facts.root.children):
        raise ValueError("a backbone with other parts")


def _backbone(config: Mapping[str, Any], tree: ModuleTree, stack: str, left_out: Sequence[str]) -> Named:
    """In the dtype of the base's first parameter, whole numbers apart."""
    around, dtype = stack.rpartition(".")[0], next(m.parameters[0].dtype for m in tree.modules if m.parameters)
    prefix = f"{around}." if around else ""
    shared = (f"{prefix}embed_tokens.",) if config.get("share_embeddings", True) else ()
    for module in tree.modules:
        here = module.name.startswith(prefix) and not f"{module.name}.".startswith(shared)
        if here and not f"{module.name}.".startswith(tuple(f"{block}." for block in left_out)):
            name = module.name.removeprefix(prefix)
            kept = (*module.parameters, *(p for p in module.buffers if p.persistent))
            own = ((f"shadow_backbone.default.{name}.{p.name}", p) for p in kept)
            yield from ((full, Part(dtype if is_float(p.dtype) else p.dtype, p.shape)) for full, p in own)
        if config.get("task_type") == "SEQ_CLS" and module.name in ("score", "classifier"):
            yield from ((f"shadow_head.default.{p.name}", Part(dtype, p.shape)) for p in module.parameters)


def _of_a_block(config: Mapping[str, Any], width: int) -> Named:
    rank = config["r"]
    between = config.get("update_hidden_size") or rank
    yield "down.default.weight", (rank, width)
    yield "up.default.weight", (width, rank)
    for network in ("update_transform", "update_gate"):
        yield f"{network}.default.0.weight", (between, width)
        yield f"{network}.default.0.bias", (between,)
        yield f"{network}.default.2.weight", (width, between)
        yield f"{network}.default.2.bias", (width,)
