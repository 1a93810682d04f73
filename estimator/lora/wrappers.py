"""What trains beside the LoRA layers: modules saved whole, and rows of token embeddings.

peft 0.21.2: set_additional_trainable_modules, _set_trainable, AuxiliaryTrainingWrapper.check_module,
ModulesToSaveWrapper, TrainableTokensWrapper (peft/utils/other.py), TrainableTokensLayer
(peft/tuners/trainable_tokens/layer.py).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from estimator.errors import InvalidLoraError, UnsupportedError
from estimator.lora.dtypes import is_float
from estimator.lora.facts import containers
from estimator.lora.index import TreeIndex
from estimator.lora.input_embedding import input_embedding, tied_at_run_time
from estimator.lora.loaded import how_to_spare
from estimator.lora.runtime import (
    ADAPTER,
    SAVED,
    TOKENS,
    TOKENS_LAYER,
    Leaf,
    Node,
    deepcopy,
    get_submodule,
    named_modules,
    require_grad,
    walk,
)
from estimator.lora.ties import NO_EMBEDDING, ties_words
from estimator.request.lora_config import LoraConfig
from estimator.request.patterns import MAX_PATTERNS

MAX_WRAPPED = 200_000  # modules that a request may wrap before it is refused

Wrap = Callable[[str, Node], Node]  # a module and its name -> its wrapper


def set_trainable(root: Node, names: Iterable[str], role: str, wrap: Wrap, where: str) -> int:
    """Wraps every module whose name ends with one of the names, in the middle of a word as well; how many matched."""
    ends = tuple(names)
    if "" in ends:
        raise UnsupportedError(f"{where} holds an empty name.", where=where, way_out="name modules")
    keys = [key for key, _ in walk(root) if key.endswith(ends)] if ends else []
    if len(keys) > MAX_WRAPPED:
        raise UnsupportedError(f"{where} matches {len(keys):,} modules.", where=where, way_out="name fewer")
    for key in keys:
        above, _, last = key.rpartition(".")
        parent, target = get_submodule(root, above), get_submodule(root, key)
        grandparent = get_submodule(root, above.rpartition(".")[0])
        if parent is None or target is None:
            raise _refused(where, f"{key} is gone once a module around it is wrapped; PEFT ends in an AttributeError")
        if grandparent is not None and grandparent.is_tuner_layer:
            raise _refused(where, f"{key} lies in a layer that is adapted already")
        wrapped = next((node for node in (grandparent, target) if node is not None and node.role == role), None)
        if wrapped is not None:
            _update(wrapped)
        else:
            _check_module(key, target, where)
            parent.children[last] = wrap(key, target)
    return len(keys)


def _update(wrapper: Node) -> None:
    """A wrapper that is there already: its copy trains, what it wraps does not."""
    if wrapper.role == SAVED:
        require_grad(wrapper.children["original_module"], False)
        require_grad(wrapper.children["modules_to_save"].children[ADAPTER], True)


def _check_module(name: str, node: Node, where: str) -> None:
    if node.is_tuner_layer:
        raise InvalidLoraError(
            f"{where} names {name}, which LoRA wraps already.", where=where, way_out="name it in one of the two alone"
        )
    if node.cls in containers():
        raise InvalidLoraError(
            f"{where} names {name}, a {node.cls}, which cannot be wrapped.", where=where, way_out="name what is in it"
        )


# modules_to_save


def save_modules(root: Node, index: TreeIndex, names: Iterable[str]) -> None:
    """ModulesToSaveWrapper: a copy of each module, which trains, beside the original."""
    packed = _packed(index)
    as_floats = _packed_as_floats(index) - packed.keys()

    def wrap(name: str, node: Node) -> Node:
        _refuse_packed(index, name, node, packed, as_floats)
        return _saved(node, deepcopy(node, "saved_modules"))

    set_trainable(root, names, SAVED, wrap, "modules_to_save")


def _saved(node: Node, copy: Node) -> Node:
    wrapper, copies = Node("ModulesToSaveWrapper", role=SAVED, module=node.module), Node("ModuleDict")
    copies.children[ADAPTER] = copy
    wrapper.children.update(original_module=node, modules_to_save=copies)
    _update(wrapper)
    return wrapper


def tie_saved_modules(root: Node, index: TreeIndex, names: Sequence[str]) -> None:
    """modules_to_tie: a Linear without bias around the very weight of the embedding's copy."""
    if not names:
        return
    embedding = input_embedding(root, index.tree)
    if embedding is None or embedding.role != SAVED:
        raise InvalidLoraError(
            f"ensure_weight_tying takes {index.tree.input_embedding}, the input embedding, out of modules_to_save "
            "again; PEFT then ends in an AttributeError of its own.",
            where="ensure_weight_tying",
            way_out="leave it out",
        )
    weight = embedding.children["modules_to_save"].children[ADAPTER].leaves["weight"]

    def wrap(name: str, node: Node) -> Node:
        twin = Node("Linear", module=node.module)
        twin.leaves["weight"] = weight
        return _saved(node, twin)

    set_trainable(root, names, SAVED, wrap, "modules_to_save")


def _packed(index: TreeIndex) -> Mapping[str, str]:
    """Modules that hold integers once they are loaded, with their class; a tie to another module's weight apart."""
    return {
        name: layer.cls
        for name, layer in index.tree.quantised.items()
        if any(not is_float(p.dtype) and f"{name}.{p.name}" not in index.tree.tied for p in layer.parameters)
    }


def _packed_as_floats(index: TreeIndex) -> set[str]:
    """4-bit modules with a state of unknown size, whatever dtype their bytes are seen as; a tied weight apart."""
    return {
        name
        for name, layer in index.tree.quantised.items()
        if layer.packed_factor > 1 and layer.saved_beside is None and f"{name}.weight" not in index.tree.tied
    }


def _refuse_packed(
    index: TreeIndex, name: str, node: Node, packed: Mapping[str, str], as_floats: Container[str]
) -> None:
    """ModulesToSaveWrapper has its copy's parameters require gradients; torch refuses that of integers."""
    inside = [one.module.name for _, one in walk(node) if one.module is not None and one.module.name in packed]
    if inside:
        raise InvalidLoraError(
            f"modules_to_save takes {name}, but {inside[0]} is a {packed[inside[0]]} whose weights are integers.",
            where="modules_to_save",
            way_out=f"{how_to_spare(index, inside[0])}, or adapt it with LoRA",
        )
    if inside := [one.module.name for _, one in walk(node) if one.module is not None and one.module.name in as_floats]:
        raise UnsupportedError(
            f"modules_to_save takes {name}, and {inside[0]} is packed in a floating storage dtype: PEFT saves its "
            "state along, and the size of that is not known.",
            where="modules_to_save",
            way_out=f"{how_to_spare(index, inside[0])}, or adapt it with LoRA",
        )


# trainable_token_indices


def train_tokens(root: Node, index: TreeIndex, config: LoraConfig) -> None:
    """TrainableTokensWrapper around the embeddings that are named, and around what is tied to the input embedding."""
    where, given = "trainable_token_indices", config.trainable_token_indices
    layers = given if isinstance(given, Mapping) else {_embedding_name(index, root): list(given or ())}
    if len(layers) > MAX_PATTERNS:
        raise _refused(where, f"{len(layers):,} layers are named")
    both = next((name for name in layers if name in (config.modules_to_save or ())), None)
    if both is not None:
        raise _refused(where, f"{both} is in modules_to_save as well")
    differ, skipped = _tied_layers(index, root, config, layers)
    for name, rows in layers.items():
        if name not in skipped and not set_trainable(root, [name], TOKENS, _tokens_wrap(rows), where):
            raise _refused(where, f"no module is called {name[:80]}")
    if not ties_words(index.tree):
        return
    embedding = input_embedding(root, index.tree)
    if embedding is None:
        raise _refused(where, f"{NO_EMBEDDING}, and PEFT asks for it where embeddings may be tied")
    if embedding.role != TOKENS or (differ and not config.ensure_weight_tying):
        return
    source = embedding.children["token_adapter"].children["trainable_tokens_delta"]
    names = tied_at_run_time(index, root)
    if names and not set_trainable(root, names, TOKENS, lambda name, node: _tokens(node, source, tied=True), where):
        raise _refused(where, f"no module is called {names[0][:80]}")


def _tokens_wrap(indices: Sequence[int]) -> Wrap:
    def wrap(name: str, node: Node) -> Node:
        rows = Node("ParameterDict")
        rows.leaves[ADAPTER] = _rows(name, node, indices)
        return _tokens(node, rows)

    return wrap


def _tokens(node: Node, rows: Node, *, tied: bool = False) -> Node:
    wrapper, layer = (Node(role, role=role, module=node.module) for role in (TOKENS, TOKENS_LAYER))
    layer.children.update(base_layer=node, trainable_tokens_delta=rows)
    if not tied:
        before = layer.children["trainable_tokens_original"] = Node("BufferDict")
        before.leaves[ADAPTER] = Leaf(
            rows.leaves[ADAPTER].shape, rows.leaves[ADAPTER].dtype, "trainable_tokens",
            trainable=False, parameter=False, saved=False,
        )  # fmt: skip
    wrapper.children["token_adapter"], wrapper.tied = layer, tied
    return wrapper


def _rows(name: str, node: Node, indices: Sequence[int]) -> Leaf:
    base = node
    while base.role == SAVED:
        base = base.children["modules_to_save"].children[ADAPTER]
    weight = base.leaves.get("weight")
    kind = base.module.kind if base.module is not None else "other"
    where = "trainable_token_indices"
    if weight is None or len(weight.shape) != 2 or kind not in ("Embedding", "Linear"):
        raise _refused(where, f"{name} is a {base.cls} and holds no rows of tokens")
    if not is_float(weight.dtype):
        raise _refused(where, f"{name} is packed in integers, of which no row can train")
    rows, width = weight.shape
    if not isinstance(indices, list) or any(
        isinstance(i, bool) or not isinstance(i, int) or not -rows <= i < rows for i in indices
    ):
        why = f"the tokens of {name} are {str(indices)[:40]!r}, no list of numbers below its {rows:,} rows"
        raise _refused(where, f"{why}, on which PEFT fails, at the latest in the first forward pass")
    return Leaf((len(indices), width), weight.dtype, "trainable_tokens", trainable=True)


def _embedding_name(index: TreeIndex, root: Node) -> str:
    """Where the input embedding is at run time: in a copy where a module around it is saved whole."""
    if index.tree.input_embedding is None:
        raise _refused("trainable_token_indices", NO_EMBEDDING)
    embedding = input_embedding(root, index.tree)
    return next((name for name, node in named_modules(root) if node is embedding), "embed_tokens")


def _tied_layers(
    index: TreeIndex, root: Node, config: LoraConfig, layers: Mapping[str, Sequence[int]]
) -> tuple[bool, set[str]]:
    """Whether tied layers are given different tokens, and which layers follow the embedding's."""
    if len(layers) < 2 or not ties_words(index.tree):
        return False, set()
    tied, embedding = tied_at_run_time(index, root), _embedding_name(index, root)
    keys = [
        name
        for name in layers
        if embedding.endswith(name) or any(other.endswith(name) or name in other.split(".") for other in tied)
    ]
    if len(keys) < 2:
        return False, set()
    if any(layers[key] != layers[keys[0]] for key in keys[1:]):
        if config.ensure_weight_tying:
            raise _refused("trainable_token_indices", f"{' and '.join(keys)[:200]} are tied but given different tokens")
        return True, set()
    return False, set(keys) & set(tied)


def _refused(where: str, why: str) -> InvalidLoraError:
    return InvalidLoraError(f"{where}: {why}.", where=where, way_out=_WAYS_OUT[where])


_WAYS_OUT = {
    "modules_to_save": "name the module more precisely, or target less",
    "trainable_token_indices": "name a token embedding of the model, in this field alone, with ids below its rows",
}
