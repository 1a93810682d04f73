"""LoRA layers with biases, saved modules, trained tokens or adapted embeddings beside them: played through.

peft 0.21.2: the order of inject_adapter, PeftModel.__init__ and PeftModelForSequenceClassification.__init__ and kin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from estimator.lora.freezing import freeze
from estimator.lora.index import TreeIndex
from estimator.lora.inject import Prepared
from estimator.lora.layers import LoraLayer
from estimator.lora.layers_alone import described
from estimator.lora.outcome import BASE, AdaptedModule, HeldTensor, Outcome
from estimator.lora.runtime import (
    ADAPTER,
    OUTER,
    SAVED,
    Leaf,
    Node,
    base_model,
    cast_adapter_dtype,
    get_submodule,
    inject,
    leaves,
    named_modules,
    peft_model,
)
from estimator.lora.saving import SavingError, saved_tensors, unread_tensor
from estimator.lora.tensors import PREFIX, saved_name
from estimator.lora.wrappers import save_modules, tie_saved_modules, train_tokens
from estimator.request.training_config import Freezing


def with_all_beside(
    request: Prepared,
    layers: Sequence[LoraLayer],
    adapter_dtype: str | None,
    *,
    with_embeddings: bool,
    targeted: bool,
    freezing: Freezing | None = None,
) -> Outcome:
    """Raises InvalidLoraError where PEFT refuses what stands beside the layers."""
    index, config = request.index, request.config
    base = base_model(index)
    before = sum(leaf.elements for leaf in leaves(base))
    inject(base, layers)
    if str(config.init_lora_weights).lower() == "olora":
        _quantise_anew(base, index, layers)
    if config.bias != "none":
        _train_biases(base, config.bias)
    save_modules(base, index, config.modules_to_save or ())
    tie_saved_modules(base, index, request.tied_saves)
    if config.trainable_token_indices is not None:
        train_tokens(base, index, config)
    model = peft_model(base)
    cast_adapter_dtype(model, adapter_dtype)
    if config.task_type in ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"):
        save_modules(model, index, (*(config.modules_to_save or ()), *request.later_saves))
    frozen = 0 if freezing is None else freeze(model, freezing)
    named, held = list(named_modules(model)), leaves(model)
    try:
        tensors, fault = saved_tensors(named, index, config, with_embeddings=with_embeddings, targeted=targeted), None
    except SavingError as error:
        tensors, fault = (), str(error)
    trained: dict[str, int] = {}
    for leaf in held:
        if leaf.trainable:
            trained[leaf.part] = trained.get(leaf.part, 0) + leaf.elements
    return Outcome(
        modules=tuple(_described(named)),
        trained=trained,
        all_parameters=index.all_parameters() + sum(leaf.elements for leaf in held) - before,
        tensors=tensors,
        save_error=fault,
        unread=unread_tensor(named, tensors) if fault is None else None,
        frozen=frozen,
        apart=tuple(_held(named)),
    )


def _held(named: Iterable[tuple[str, Node]]) -> Iterator[HeldTensor]:
    """Each tensor once, under its first name."""
    seen: set[int] = set()
    for name, node in named:
        for own, leaf in node.leaves.items():
            is_added = leaf.part not in ("bias", BASE)  # how base_model() marks the base's own, and what freezing opens
            trains = leaf.trainable and leaf.parameter
            if (is_added or trains) and id(leaf) not in seen:
                seen.add(id(leaf))
                yield HeldTensor(saved_name(f"{name}.{own}"), leaf.dtype, leaf.shape, trains, is_added)


def _quantise_anew(base: Node, index: TreeIndex, layers: Sequence[LoraLayer]) -> None:
    """LoraLayer.olora_init takes its matrices out of a 4-bit weight in float32 and quantises what is left."""
    for layer in layers:
        packed, node = index.packed(layer.module), get_submodule(base, layer.name)
        if packed is None or node is None:
            continue
        for own in packed.saved_anew or ():
            node.children["base_layer"].leaves[own.name] = Leaf(
                own.shape, own.dtype, "bias", trainable=False, parameter=False
            )


def _train_biases(base: Node, bias: str) -> None:
    """_mark_only_adapters_as_trainable; MultiheadAttention has no bias of that name."""
    for _, node in named_modules(base):
        if bias == "all" and "bias" in node.leaves and node.leaves["bias"].parameter:
            node.leaves["bias"].trainable = True
        elif bias.endswith("_only") and node.layer is not None and node.layer.kind != "MultiheadAttention":
            inner = node.children["base_layer"]
            if "bias" in inner.leaves:
                inner.leaves["bias"].trainable = True


def _described(named: Iterable[tuple[str, Node]]) -> list[AdaptedModule]:
    """Every layer and wrapper of PEFT's below base_model.model, with what trains on it alone."""
    found = []
    for full, node in named:
        if node.is_tuner_layer or node.is_wrapper:
            name = full.removeprefix(PREFIX)
            own = sum(leaf.elements for leaf in _own(node) if leaf.trainable)
            if node.layer is not None:
                found.append(described(name, node.layer, own))
            else:
                kind = node.module.kind if node.module is not None else "other"
                found.append(AdaptedModule(name, kind, node.role, None, None, None, own))
    return found


def _own(node: Node) -> list[Leaf]:
    """Parameters of a layer but its base_layer, of a saved module's copy, or of trained rows; nested ones apart."""
    inside = node.children["modules_to_save"].children[ADAPTER] if node.role == SAVED else node
    if inside is node and node.tied:
        return []
    own = {id(leaf): leaf for leaf in inside.leaves.values() if leaf.parameter}
    left = [child for name, child in inside.children.items() if name not in ("base_layer", "token_adapter")]
    while left:
        child = left.pop()
        if not (child.is_tuner_layer or child.is_wrapper or child.role == OUTER):
            own.update((id(leaf), leaf) for leaf in child.leaves.values() if leaf.parameter)
            left += child.children.values()
    return list(own.values())
