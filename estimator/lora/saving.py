"""save_pretrained on a model as it stands at run time: which tensors go into adapter_model.safetensors.

peft 0.21.2: get_peft_model_state_dict (peft/utils/save_and_load.py), BaseTuner._get_adapter_state_dict,
_get_tuner_state_dict_key_prefixes (peft/tuners/tuners_utils.py), LoraModel._get_adapter_state_dict (DoRA's names),
AuxiliaryTrainingWrapper.adapter_state_dict (peft/utils/other.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from estimator.architecture.module import QuantisedLayer
from estimator.lora.index import TreeIndex
from estimator.lora.input_embedding import input_embedding
from estimator.lora.runtime import (
    ADAPTER,
    OUTER,
    SAVED,
    Leaf,
    Node,
    child_of,
    get_submodule,
    state_dict,
    walk,
)
from estimator.lora.tensors import SavedTensor, saved_name
from estimator.lora.ties import NO_EMBEDDING
from estimator.request.lora_config import LoraConfig

State = dict[str, Leaf]
Named = Sequence[tuple[str, Node]]
_UNWRITABLE = frozenset({"torchao"})  # schemes whose weights have no storage that safetensors could write
_WRITTEN_APART = frozenset({"ValueHead"})  # of TRL: trainers write it to value_head.safetensors


class SavingError(Exception):
    """Counting works, save_pretrained fails: why."""


def saved_tensors(
    named: Named, index: TreeIndex, config: LoraConfig, *, with_embeddings: bool, targeted: bool
) -> tuple[SavedTensor, ...]:
    """Tensors of the file. `named` is named_modules() of the PeftModel; embeddings go along where asked for.

    Raises SavingError where PEFT asks for an embedding that a layer around it hides, and for a saved module whose
    weight safetensors cannot write.
    """
    state = state_dict(named[0][1])
    kept = _adapter(named, state, config)
    kept.update(_wrappers(named, state, index.tree.quantised))
    along = _embeddings(named, state, index, targeted) if with_embeddings else {}
    tensors: dict[str, SavedTensor] = {}
    for found, part in ((kept, None), (along, "embeddings")):
        for key, leaf in found.items():
            name = saved_name(key)
            tensors.setdefault(name, SavedTensor(name, leaf.dtype, leaf.shape, part or leaf.part))
    return tuple(tensors.values())


def _adapter(named: Named, state: State, config: LoraConfig) -> State:
    """Everything on tuner layers but their base_layer, wrappers and what lies in them apart; then biases."""
    layers = _outside_wrappers(named)
    prefixes = {f"{name}.{child}" for name, node in layers.items() for child in node.children if child != "base_layer"}
    kept = {key: leaf for key, leaf in state.items() if _is_under(key, prefixes)}
    if config.bias == "all":
        kept.update((key, leaf) for key, leaf in state.items() if key.endswith(".bias"))
    elif config.bias.endswith("_only"):
        names = [f"{name}.base_layer.bias" for name, node in named if node.is_tuner_layer]
        kept.update((name, state[name]) for name in names if name in state)
    if config.peft_type == "ADALORA":
        return {key: leaf for key, leaf in kept.items() if not key.endswith(f".ranknum.{ADAPTER}")}
    if config.use_dora:
        magnitude = f"lora_magnitude_vector.{ADAPTER}.weight"
        return {key.removesuffix(".weight") if key.endswith(magnitude) else key: leaf for key, leaf in kept.items()}
    return kept


def _outside_wrappers(named: Named) -> Mapping[str, Node]:
    wrappers: set[str] = set()
    layers = {}
    for name, node in named:
        if node.is_wrapper:
            wrappers.add(name)
        elif node.is_tuner_layer and not _is_under(name, wrappers):
            layers[name] = node
    return layers


def _is_under(key: str, prefixes: set[str]) -> bool:
    while key:
        if key in prefixes:
            return True
        key = key.rpartition(".")[0]
    return False


def _wrappers(named: Named, state: State, quantised: Mapping[str, QuantisedLayer]) -> State:
    """What each wrapper says is its own: the state of its copy, or its rows of tokens."""
    kept: State = {}
    for name, node in named:
        if node.role == SAVED:
            copy = node.children["modules_to_save"].children[ADAPTER]
            if copy.cls in _WRITTEN_APART:
                continue
            _check_writable(copy, quantised)
            kept.update({f"{name}.{key}": state[f"{name}.modules_to_save.{ADAPTER}.{key}"] for key in state_dict(copy)})
        elif node.is_wrapper and not node.tied:
            key = f"{name}.token_adapter.trainable_tokens_delta"
            kept[key] = state[f"{key}.{ADAPTER}"]
    return kept


def _check_writable(copy: Node, quantised: Mapping[str, QuantisedLayer]) -> None:
    for _, node in walk(copy):
        layer = quantised.get(node.module.name) if node.module is not None else None
        if node.module is not None and layer is not None and layer.scheme in _UNWRITABLE:
            raise SavingError(
                f"{node.module.name} is packed by {layer.scheme}, and safetensors cannot write its weight"
            )


def unread_tensor(named: Named, tensors: Iterable[SavedTensor]) -> str | None:
    """set_peft_model_state_dict: each wrapper takes the tensors of its copy out of the file, and ends in a KeyError
    where one is not there, or has been taken: a wrapper within a wrapper. None where the file is loaded again.
    """
    left = {tensor.name for tensor in tensors}
    for name, node in named:
        if node.role == SAVED:
            copy = node.children["modules_to_save"].children[ADAPTER]
            wanted = [] if copy.cls in _WRITTEN_APART else [f"{name}.{key}" for key in state_dict(copy)]
        else:
            wanted = [f"{name}.token_adapter.trainable_tokens_delta"] if node.is_wrapper and not node.tied else []
        for key in wanted:
            if key not in left:
                return key
            left.remove(key)
    return None


def _embeddings(named: Named, state: State, index: TreeIndex, targeted: bool) -> State:
    """The input and the output embedding: base layers of targeted ones, else all that stands in their place."""
    kept: State = {}
    owner, head = _asked(named[0][1]), index.tree.output_embedding
    embedding = input_embedding(owner, index.tree)
    if embedding is None:
        raise SavingError(f"{NO_EMBEDDING}, once a layer stands around it")
    for layer in (embedding, get_submodule(owner, head) if head is not None else None):
        base = child_of(layer, "base_layer") if layer is not None else None
        if layer is None or (targeted and not _is_plain(base, index.tree.quantised)):
            continue
        wanted = (base,) if targeted else (layer, base)
        name = next((name for name, node in named if any(node is one for one in wanted)), None)
        kept.update((key, leaf) for key, leaf in state.items() if name is not None and key.startswith(f"{name}."))
    return kept


def _asked(root: Node) -> Node:
    """The model whose get_input_embeddings answers where the PeftModel's is called: a copy, where it is wrapped."""
    node = root
    while node.role in (OUTER, SAVED):
        saved = node.children.get("modules_to_save") if node.role == SAVED else None
        node = saved.children[ADAPTER] if saved else next(iter(node.children.values()))
    return node


def _is_plain(base: Node | None, quantised: Mapping[str, QuantisedLayer]) -> bool:
    """has_valid_embedding_base_layer."""
    if base is None or base.role or base.module is None:
        return False
    layer = quantised.get(base.module.name)
    return base.module.kind == "Embedding" or (base.module.kind == "Linear" and (layer is None or layer.is_linear))
