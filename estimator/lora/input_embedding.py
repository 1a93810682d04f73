"""What get_input_embeddings() returns, and what is tied to it, once PEFT's layers and wrappers stand around modules.

transformers 5.23.0: EmbeddingAccessMixin.get_input_embeddings (modeling_utils.py). A model reads an attribute of its
own or of the module next to it, and asks the part that holds the embedding otherwise. A wrapped part answers as the
copy that it has, which knows nothing of wrappers put inside of its wrapper later.
"""

from __future__ import annotations

import re

from estimator.architecture.module import ModuleTree
from estimator.errors import InvalidLoraError
from estimator.lora.index import TreeIndex
from estimator.lora.runtime import ADAPTER, SAVED, Node, child_of, get_submodule, leaves, state_dict
from estimator.lora.ties import NO_EMBEDDING, declared_ties, tied_with_embedding


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


def tied_at_run_time(index: TreeIndex, root: Node) -> list[str]:
    """The names of tied_with_embedding() once layers stand around modules: `lm_head.base_layer` of an adapted head."""
    if not tied_with_embedding(index):
        return []
    embedding = input_embedding(root, index.tree)
    if embedding is None:
        raise InvalidLoraError(
            f"{NO_EMBEDDING}, once a layer stands around it, and PEFT asks for it.",
            where="trainable_token_indices",
            way_out="leave it out, or adapt less around the embedding",
        )
    own = {id(leaf) for leaf in leaves(embedding)}
    candidates = [name for name, leaf in state_dict(root).items() if leaf.parameter and id(leaf) in own]
    at_run_time = {_BASE_LAYER.sub("", name): name for name in candidates}
    at_run_time.update({name.replace("base_layer.", ""): name for name in candidates})
    declared = (pair for k, v in declared_ties(index.tree).items() for pair in _declared_in_copies(root, k, v))
    tied = [at_run_time.get(k, k) for k, v in declared if at_run_time.get(v, v) in candidates]
    return sorted({name.rpartition(".")[0] for name in tied})


def _declared_in_copies(root: Node, target: str, source: str) -> list[tuple[str, str]]:
    """The tie as the parts that declare it have it: a part that is saved whole does so in the original and the copy."""
    node: Node | None = root
    starts, ends = [""], (target.split("."), source.split("."))
    while ends[0][0] == ends[1][0] and node is not None:
        node = node.children.get(ends[0][0])
        starts = [f"{start}{ends[0][0]}." for start in starts]
        ends = (ends[0][1:], ends[1][1:])
        while node is not None and node.role == SAVED:
            starts = [start + held for start in starts for held in ("original_module.", f"modules_to_save.{ADAPTER}.")]
            node = node.children["modules_to_save"].children[ADAPTER]
    return [(start + ".".join(ends[0]), start + ".".join(ends[1])) for start in starts]


_BASE_LAYER = re.compile(r"[^.]+\.base_layer\.")
