"""What trains beside the LoRA layers: modules saved whole, and rows of token embeddings.

peft 0.21.2: set_additional_trainable_modules, _set_trainable, AuxiliaryTrainingWrapper.check_module,
ModulesToSaveWrapper, TrainableTokensWrapper (peft/utils/other.py), TrainableTokensLayer
(peft/tuners/trainable_tokens/layer.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from estimator.errors import InvalidLoraError, UnsupportedError
from estimator.lora.index import TreeIndex
from estimator.lora.layers import LoraLayer
from estimator.lora.ties import NO_EMBEDDING, tied_with_embedding, ties_words
from estimator.request.lora_config import LoraConfig

_FORBIDDEN = ("ModuleDict", "ModuleList", "ParameterDict", "ParameterList")


class Rows(NamedTuple):
    """Trained rows of one embedding."""

    shape: tuple[int, int]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Auxiliary:
    saved: Mapping[str, str | None] = field(default_factory=dict)  # module -> the module whose copy it shares, or None
    tokens: Mapping[str, Rows | None] = field(default_factory=dict)  # module -> rows of its own, None: another's


def auxiliary_modules(
    index: TreeIndex, config: LoraConfig, later: Sequence[str], tied_saves: Sequence[str], layers: Sequence[LoraLayer]
) -> Auxiliary:
    """What the config wraps beside LoRA; `later` are names that a task adds after injection.

    Raises InvalidLoraError where PEFT refuses.
    """
    wrapped = {layer.module for layer in layers}
    if not (config.modules_to_save or later or tied_saves) and config.trainable_token_indices is None:
        return Auxiliary()
    names = [*(config.modules_to_save or ()), *later]
    saved: dict[str, str | None] = dict.fromkeys(_wrappable(index, names, wrapped, "modules_to_save"))
    if tied_saves:
        source = index.tree.input_embedding
        if source not in saved:
            raise InvalidLoraError(
                f"ensure_weight_tying takes {source}, the input embedding, out of modules_to_save again; PEFT then "
                "ends in an AttributeError of its own.",
                where="ensure_weight_tying",
                way_out="leave it out",
            )
        saved.update(
            (name, source) for name in _wrappable(index, tied_saves, wrapped, "modules_to_save") if name != source
        )
    _refuse_nested(saved)
    _refuse_packed(index, saved)
    tokens: dict[str, Rows | None] = {}
    if config.trainable_token_indices is not None:
        tokens = _tokens(index, config, wrapped)
    return Auxiliary(saved=saved, tokens=tokens)


def ends_with_any(index: TreeIndex, names: Iterable[str]) -> list[str]:
    """_set_trainable takes every module whose name ends with one of the names, in the middle of a word as well."""
    ends = tuple(names)
    return [name for name in index.modules if name.endswith(ends)] if ends else []


def _wrappable(index: TreeIndex, names: Iterable[str], wrapped: set[str], where: str) -> list[str]:
    found = ends_with_any(index, names)
    for name in found:
        if name in wrapped:
            raise InvalidLoraError(
                f"{where} names {name}, which LoRA wraps already.",
                where=where,
                way_out="name it in one of the two alone",
            )
        if index.modules[name].cls in _FORBIDDEN:
            raise InvalidLoraError(
                f"{where} names {name}, a {index.modules[name].cls}, which cannot be wrapped.",
                where=where,
                way_out="name what is in it",
            )
    return found


def _refuse_nested(saved: Mapping[str, str | None]) -> None:
    inner = next((name for name in saved for outer in saved if name.startswith(outer + ".")), None)
    if inner is not None:
        raise UnsupportedError(
            f"modules_to_save matches {inner} and a module around it; what PEFT makes of that is not answered.",
            where="modules_to_save",
            way_out="name the outer module alone",
        )


def _refuse_packed(index: TreeIndex, saved: Iterable[str]) -> None:
    """ModulesToSaveWrapper has its copy's parameters require gradients; torch refuses that of integers."""
    for name, layer in index.tree.quantised.items():
        outer = next((one for one in saved if name == one or name.startswith(one + ".")), None)
        packed = [p.name for p in layer.parameters if not p.dtype.startswith(("F", "BF"))] if outer else []
        if any(f"{name}.{parameter}" not in index.tree.tied for parameter in packed):
            raise InvalidLoraError(
                f"modules_to_save takes {outer}, but {name} is a {layer.cls} whose weights are integers.",
                where="modules_to_save",
                way_out=f"leave {name} unquantised (--skip-modules), or adapt it with LoRA",
            )


def _tokens(index: TreeIndex, config: LoraConfig, wrapped: set[str]) -> dict[str, Rows | None]:
    given = config.trainable_token_indices
    layers = given if isinstance(given, Mapping) else {_embedding_name(index): given}
    both = next((name for name in layers if name in (config.modules_to_save or ())), None)
    if both is not None:
        raise _refused(f"{both} is in modules_to_save as well", "name it in one of the two")
    differ, skipped = _tied_layers(index, config, layers)
    tokens: dict[str, Rows | None] = {}
    for name, rows in layers.items():
        if name in skipped:
            continue
        found = _wrappable(index, [name], wrapped, "trainable_token_indices")
        if not found:
            raise _refused(f"no module is called {name[:80]}", "name the model's token embedding")
        for module in found:
            tokens.setdefault(module, _rows(index, module, rows))
    embedding = index.tree.input_embedding
    if ties_words(index.tree) and embedding in tokens and (config.ensure_weight_tying or not differ):
        for name in ends_with_any(index, tied_with_embedding(index)):
            tokens.setdefault(name, None)
    return tokens


def _embedding_name(index: TreeIndex) -> str:
    name = index.tree.input_embedding
    if name is None:
        raise _refused(NO_EMBEDDING, "name the module: {embed_tokens: [0, 1]}")
    return name if name in index.modules else "embed_tokens"


def _tied_layers(index: TreeIndex, config: LoraConfig, layers: Mapping[str, Sequence[int]]) -> tuple[bool, set[str]]:
    """Whether tied layers are given different tokens, and which layers follow the embedding's."""
    if len(layers) < 2 or not ties_words(index.tree):
        return False, set()
    tied, embedding = tied_with_embedding(index), index.tree.input_embedding or ""
    keys = [
        name
        for name in layers
        if embedding.endswith(name) or any(other.endswith(name) or name in other.split(".") for other in tied)
    ]
    if len(keys) < 2:
        return False, set()
    if any(list(layers[key]) != list(layers[keys[0]]) for key in keys[1:]):
        if config.ensure_weight_tying:
            raise _refused(f"{' and '.join(keys)[:200]} are tied but given different tokens", "give them the same")
        return True, set()
    return False, set(keys) & set(tied)


def _rows(index: TreeIndex, name: str, indices: Sequence[int]) -> Rows:
    module = index.modules[name]
    weight = next((p for p in module.parameters if p.name == "weight"), None)
    if weight is None or len(weight.shape) != 2 or module.kind not in ("Embedding", "Linear"):
        raise _refused(f"{name} is a {module.cls} and holds no rows of tokens", "name a token embedding")
    if any(
        isinstance(i, bool) or not isinstance(i, int) or not -weight.shape[0] <= i < weight.shape[0] for i in indices
    ):
        raise _refused(f"a token lies outside of {name}'s {weight.shape[0]:,} rows", "give ids below that")
    return Rows((len(indices), weight.shape[1]), weight.dtype)


def _refused(why: str, way_out: str) -> InvalidLoraError:
    return InvalidLoraError(f"trainable_token_indices: {why}.", where="trainable_token_indices", way_out=way_out)
