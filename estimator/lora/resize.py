"""A vocabulary of another size: what resize_token_embeddings(n) makes of a tree (transformers 5.23.0)."""

from __future__ import annotations

from dataclasses import replace

from estimator.architecture.module import Module, ModuleTree
from estimator.errors import UsageError
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
