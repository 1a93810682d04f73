"""The model as it stands in memory once PEFT has put its layers in: modules, their children and their parameters.

What modules_to_save and trainable_token_indices do depends on names that only then exist (`lora_dropout`,
`base_layer`), on objects that are shared or copied, and on where a wrapper looks an attribute up; so they are played
through here.

peft 0.21.2: LoraLayer.__init__ and update_layer (peft/tuners/lora/layer.py), AdaLoraLayer
(peft/tuners/adalora/layer.py), cast_adapter_dtype (peft/tuners/tuners_utils.py). torch 2.13: Module.named_modules,
get_submodule, state_dict.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

from estimator.architecture.module import Module, full_name
from estimator.lora.dtypes import adapter_dtype_of, is_cast
from estimator.lora.index import TreeIndex
from estimator.lora.layers import LoraLayer
from estimator.lora.weights import Weight

ADAPTER = "default"


class Leaf:
    """A parameter or a buffer; names that share it hold the same object."""

    __slots__ = ("counted", "dtype", "parameter", "part", "saved", "shape", "trainable")

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: str,
        part: str,
        *,
        trainable: bool,
        parameter: bool = True,
        saved: bool = True,
        counted: int = 1,
    ) -> None:
        self.shape, self.dtype, self.part = shape, dtype, part
        self.trainable, self.parameter, self.saved = trainable, parameter, saved
        self.counted = counted  # how often PEFT counts an element

    def copied(self, part: str) -> Leaf:
        twin = Leaf(self.shape, self.dtype, part, trainable=self.trainable)
        twin.parameter, twin.saved, twin.counted = self.parameter, self.saved, self.counted
        return twin

    @property
    def elements(self) -> int:
        return prod(self.shape) * self.counted


class Node:
    """A module at run time. `role` is "" for the base's own modules and the parts of PEFT's layers."""

    __slots__ = ("children", "cls", "layer", "leaves", "module", "role", "tied")

    def __init__(
        self, cls: str, *, role: str = "", module: Module | None = None, layer: LoraLayer | None = None
    ) -> None:
        self.cls, self.role, self.module, self.layer = cls, role, module, layer
        self.children: dict[str, Node] = {}
        self.leaves: dict[str, Leaf] = {}
        self.tied = False  # of TrainableTokensWrapper: its rows are another's

    @property
    def is_tuner_layer(self) -> bool:
        """isinstance(module, BaseTunerLayer)."""
        return self.role in (LORA, TOKENS_LAYER)

    @property
    def is_wrapper(self) -> bool:
        """isinstance(module, AuxiliaryTrainingWrapper)."""
        return self.role in (SAVED, TOKENS)


LORA, SAVED, TOKENS, TOKENS_LAYER, OUTER = (
    "LoraLayer", "ModulesToSaveWrapper", "TrainableTokensWrapper", "TrainableTokensLayer", "PeftModel",
)  # fmt: skip
DICTS = ("ModuleDict", "ParameterDict", "BufferDict")


# Looking things up


def child_of(node: Node, name: str) -> Node | None:
    """getattr(module, name) for a module; wrappers and PEFT's outer models ask what they wrap for what they lack."""
    if name in node.children:
        return node.children[name]
    if node.role == SAVED:
        return child_of(node.children["modules_to_save"].children[ADAPTER], name)
    if node.role == TOKENS and name == "original_module":
        return node.children["token_adapter"].children["base_layer"]
    if node.role == OUTER:
        return child_of(next(iter(node.children.values())), name)
    return None


def get_submodule(root: Node, name: str) -> Node | None:
    """None where torch would raise AttributeError."""
    node: Node | None = root
    for part in name.split(".") if name else ():
        node = child_of(node, part) if node is not None else None
    return node


def walk(root: Node) -> Iterator[tuple[str, Node]]:
    """named_modules(remove_duplicate=False)."""
    return _visited(root, once=False)


def named_modules(root: Node) -> Iterator[tuple[str, Node]]:
    """Each module once, under its first name."""
    return _visited(root, once=True)


def _visited(root: Node, *, once: bool, seen: set[Node] | None = None) -> Iterator[tuple[str, Node]]:
    """seen: what was visited before, and is not once more."""
    seen = set() if seen is None else seen
    left = [("", root)]
    while left:
        named = name, node = left.pop()
        if once:
            if node in seen:
                continue
            seen.add(node)
        yield named
        if node.children:
            prefix = f"{name}." if name else ""
            left += [(prefix + part, child) for part, child in reversed(node.children.items())]


def leaves(root: Node) -> list[Leaf]:
    """parameters(): each once."""
    found: dict[int, Leaf] = {}
    left = [root]
    while left:
        node = left.pop()
        for leaf in node.leaves.values():
            if leaf.parameter:
                found[id(leaf)] = leaf
        left += node.children.values()
    return list(found.values())


def state_dict(root: Node) -> dict[str, Leaf]:
    """Parameters and persistent buffers under every name they have."""
    return {full_name(name, own): leaf for name, node in walk(root) for own, leaf in node.leaves.items() if leaf.saved}


def deepcopy(node: Node, part: str, copies: dict[int, Any] | None = None) -> Node:
    """A copy whose tensors are of the given part of the file; what is shared within stays shared.

    copies: the Node or Leaf that each was copied to, by the id of the original.
    """
    copies = {} if copies is None else copies
    if id(node) in copies:
        return copies[id(node)]
    twin = copies[id(node)] = Node(node.cls, role=node.role, module=node.module, layer=node.layer)
    twin.tied = node.tied
    for name, leaf in node.leaves.items():
        if id(leaf) not in copies:
            copies[id(leaf)] = leaf.copied(part)
        twin.leaves[name] = copies[id(leaf)]
    for name, child in node.children.items():
        twin.children[name] = deepcopy(child, part, copies)
    return twin


def require_grad(node: Node, trainable: bool) -> None:
    """requires_grad_ of every parameter."""
    for leaf in leaves(node):
        leaf.trainable = trainable


# Building


def base_model(index: TreeIndex) -> Node:
    """The base with nothing on it; all of it frozen."""
    root = Node(index.tree.architecture or "")
    shared: dict[str, Leaf] = {}
    for module in index.tree.modules:
        node = _place(root, module.name)
        node.cls, node.module = module.cls, module
        packed = index.packed(module.name)
        for own in index.held(module):
            full = index.root(full_name(module.name, own.name))
            if full not in shared:
                counted = packed.packed_factor if packed is not None and own.name == "weight" else 1
                shared[full] = Leaf(own.shape, own.dtype, "bias", trainable=False, counted=counted)
            node.leaves[own.name] = shared[full]
        for own in index.beside(module.name):
            node.leaves[own.name] = Leaf(own.shape, own.dtype, "bias", trainable=False, parameter=False)
        for own in module.buffers:
            leaf = Leaf(own.shape, own.dtype, "bias", trainable=False, parameter=False, saved=own.persistent)
            node.leaves[own.name] = leaf
    for name, first in index.tree.same_modules.items():
        parent, _, last = name.rpartition(".")
        _place(root, parent).children[last] = _place(root, first)
    return root


def _place(root: Node, name: str) -> Node:
    node = root
    for part in name.split(".") if name else ():
        node = node.children.setdefault(part, Node("Module"))
    return node


def inject(root: Node, layers: Iterable[LoraLayer]) -> None:
    """Puts each layer around what stands in its module's place; the innermost of several has the longest name."""
    for layer in sorted(layers, key=lambda layer: len(layer.name), reverse=True):
        parent = _parent_of(root, layer.module)
        last = layer.module.rpartition(".")[2]
        parent.children[last] = lora_node(layer, parent.children[last])


def _parent_of(root: Node, name: str) -> Node:
    """A module's parent, inside of the layers that have been put around the modules above."""
    node = root
    for part in name.split(".")[:-1]:
        node = node.children[part]
        while node.role == LORA:
            node = node.children["base_layer"]
    return node


def lora_node(layer: LoraLayer, base: Node) -> Node:
    """LoraLayer: every container that its constructor makes, empty ones too, with the layer's own weights in them."""
    node = Node(layer.what, role=LORA, module=base.module, layer=layer)
    dicts = "ParameterDict" if layer.what.startswith("SVD") else "ModuleDict"
    node.children["base_layer"] = base
    node.children["lora_dropout"] = Node("ModuleDict")
    node.children["lora_dropout"].children[ADAPTER] = Node("Identity")
    node.children["lora_A"], node.children["lora_B"] = Node(dicts), Node(dicts)
    for name in ("lora_embedding_A", "lora_embedding_B"):
        node.children[name] = Node("ParameterDict")
    node.children["lora_magnitude_vector"] = Node("ModuleDict")
    for weight in layer.weights:
        _hold(node, weight, adapter_dtype_of(weight.dtype or layer.dtype, "base"))
    return node


def _hold(node: Node, weight: Weight, dtype: str) -> None:
    """`lora_A.weight` is a module's under the adapter's name, `lora_E` a parameter's or a buffer's of that name."""
    container, _, own = weight.suffix.partition(".")
    leaf = Leaf(weight.shape, dtype, weight.part, trainable=weight.trainable, parameter=weight.parameter)
    if container == "lora_magnitude_vector":
        own = "weight"
    if not own:
        kind = "ParameterDict" if weight.parameter else "BufferDict"
        node.children.setdefault(container, Node(kind)).leaves[ADAPTER] = leaf
        return
    modules = node.children.setdefault(container, Node("ModuleDict"))
    modules.children.setdefault(ADAPTER, Node("Module")).leaves[own] = leaf


def peft_model(base: Node) -> Node:
    """PeftModel(LoraModel(base)): names begin with base_model.model."""
    tuner, outer = Node("LoraModel", role=OUTER), Node("PeftModel", role=OUTER)
    tuner.children["model"] = base
    outer.children["base_model"] = tuner
    return outer


def cast_adapter_dtype(root: Node, adapter_dtype: str | None) -> None:
    """Every tensor under the adapter's name in a container anywhere below a tuner layer, base_layer included.

    What a ParameterDict is given as a plain tensor becomes a new parameter, which trains even where the old did not.
    """
    below: set[Node] = set()
    for _, tuner in named_modules(root):
        for _, node in _visited(tuner, once=True, seen=below) if tuner.is_tuner_layer else ():
            if node.cls in DICTS and ADAPTER in node.leaves:
                _cast(node, ADAPTER, adapter_dtype, revived=node.cls == "ParameterDict")
            if node.cls in DICTS and ADAPTER in node.children:
                for _, owner in named_modules(node.children[ADAPTER]):
                    for name in [name for name, leaf in owner.leaves.items() if leaf.parameter]:
                        _cast(owner, name, adapter_dtype, revived=False)


def _cast(owner: Node, name: str, adapter_dtype: str | None, *, revived: bool) -> None:
    old = owner.leaves[name]
    if not is_cast(old.dtype, adapter_dtype):
        return
    new = owner.leaves[name] = old.copied(old.part)
    new.dtype = adapter_dtype_of(old.dtype, adapter_dtype)
    new.trainable = old.trainable or revived
