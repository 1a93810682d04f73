"""A vocabulary of another size: what resize_token_embeddings(n) makes of a tree (transformers 5.23.0)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from estimator.architecture.module import Module, ModuleTree
from estimator.errors import UnsupportedError, UsageError
from estimator.lora.index import TreeIndex


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

    return replace(tree, modules=tuple(map(of, tree.modules)))


def refuse_shared_embeddings(index: TreeIndex, adapted: Iterable[str]) -> None:
    """Raises UnsupportedError where a second embedding would be adapted that resizing may have made the very first.

    set_input_embeddings of encoder-decoder models gives all parts one and the same module, which then goes by its first
    name alone; which classes do so is not known here.
    """
    tree = index.tree
    root = index.root(f"{tree.input_embedding}.weight")
    tied = {name.rpartition(".")[0] for name in tree.tied if index.root(name) == root}
    shared = tied - {tree.input_embedding, tree.output_embedding}
    name = next((name for name in adapted if name in shared), None)
    if name is not None:
        raise UnsupportedError(
            f"{name} shares its weights with {tree.input_embedding}; after resizing they may be one module.",
            where="--vocab-size",
            way_out=f"target {tree.input_embedding}, or leave the embeddings out",
        )
