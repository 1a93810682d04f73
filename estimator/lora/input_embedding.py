"""What get_input_embeddings() returns once PEFT's layers and wrappers stand around modules.

transformers 5.23.0: EmbeddingAccessMixin.get_input_embeddings (modeling_utils.py). A model reads an attribute of its
own or of the module next to it, and asks the part that holds the embedding otherwise. A wrapped part answers as the
copy that it has, which knows nothing of wrappers put inside of its wrapper later.
"""

from __future__ import annotations

from estimator.architecture.module import ModuleTree
from estimator.lora.runtime import ADAPTER, SAVED, Node, child_of, get_submodule


def input_embedding(model: Node, tree: ModuleTree) -> Node | None:
    """The module that the model's class names; None where the class has none, or a layer hides it."""
    if tree.input_embedding is None:
        return None
    node: Node | None = model
    parts = tree.input_embedding.split(".")
    while node is not None and (len(parts) > 2 or len(parts) == 2 and parts[0] == "language_model"):
        node = child_of(node, parts.pop(0))
        while node is not None and node.role == SAVED:
            node = node.children["modules_to_save"].children[ADAPTER]
    return get_submodule(node, ".".join(parts)) if node is not None else None
