"""A vocabulary of another size: what resize_token_embeddings(n) makes of a tree (transformers 5.23.0)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from estimator.architecture.module import Module, ModuleTree
from estimator.errors import UnsupportedError, UsageError
from estimator.lora.index import TreeIndex
from estimator.request.lora_config import LoraConfig


def base_vocabulary(tree: ModuleTree) -> int | None:
    """Rows of the input embedding."""
    module = next((module for module in tree.modules if module.name == tree.input_embedding), None)
    weight = next((p for p in module.parameters if p.name == "weight"), None) if module else None
    return weight.shape[0] if weight and len(weight.shape) == 2 else None


def resized(index: TreeIndex, rows: int) -> ModuleTree:
    """The tree with so many rows in its embeddings. Raises UsageError where it has none, or the number is none."""
    tree = index.tree
    old = base_vocabulary(tree)
    if old is None or tree.input_embedding is None or rows < 1 or rows > 2**31:
        raise UsageError(
            f"the vocabulary of this model can't be resized to {str(rows)[:20]}.",
            where="--vocab-size",
            way_out="leave it out, or give a positive number for a model with token embeddings",
        )
    changed = {index.root(f"{tree.input_embedding}.weight")}
    if tree.output_embedding is not None:
        changed |= {index.root(f"{tree.output_embedding}.{name}") for name in ("weight", "bias")}

    def of(module: Module) -> Module:
        prefix = f"{module.name}." if module.name else ""
        parameters = tuple(
            p._replace(shape=(rows, *p.shape[1:]))
            if p.shape[:1] == (old,) and index.root(prefix + p.name) in changed
            else p
            for p in module.parameters
        )
        return module if parameters == module.parameters else module._replace(parameters=parameters)

    embeddings = _embeddings_of(index)
    first = embeddings[0] if len(embeddings) > 1 else tree.input_embedding
    return replace(tree, modules=tuple(map(of, tree.modules)), input_embedding=first)


def _embeddings_of(index: TreeIndex) -> list[str]:
    """The input embedding and the modules of its kind that share its weight.

    set_input_embeddings of encoder-decoder models gives all parts one and the same module, which then goes by the first
    of its names.
    """
    tree = index.tree
    root = index.root(f"{tree.input_embedding}.weight")
    names = {name.rpartition(".")[0] for name in tree.tied if index.root(name) == root} | {root.rpartition(".")[0]}
    names.add(tree.input_embedding or "")
    return index.in_order(name for name in names if name in index.modules and index.modules[name].kind == "Embedding")


def refuse_shared_embeddings(index: TreeIndex, adapted: Iterable[str], config: LoraConfig, before: str | None) -> None:
    """Raises UnsupportedError where the parts' embeddings are adapted or wrapped after resizing made them one.

    `before` is the input embedding before resizing.
    """
    shared = _embeddings_of(index)
    if len(shared) < 2:
        return
    tokens = config.trainable_token_indices
    ends = (*(config.modules_to_save or ()), *(tokens if isinstance(tokens, Mapping) else ()))
    hit = {*adapted, *(name for name in shared if name.endswith(ends))} if ends else set(adapted)
    name = next((name for name in shared[1:] if name in hit), None)
    if name is None and tokens is not None and before not in (None, shared[0]):
        name = before  # the rows of one embedding, and the head's ties to another
    if name is not None:
        raise UnsupportedError(
            f"{name} shares its weights with {shared[0]}; after resizing they may be one module.",
            where="--vocab-size",
            way_out=f"target {shared[0]}, or leave the embeddings out",
        )
