"""Modules that are trained beside LoRA: saved whole (modules_to_save) or row by row (trainable_token_indices).

peft 0.21.2: set_additional_trainable_modules, _set_trainable, ModulesToSaveWrapper, TrainableTokensWrapper
(peft/utils/other.py), TrainableTokensLayer (peft/tuners/trainable_tokens/layer.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from estimator.errors import InvalidLoraError
from estimator.lora.index import TreeIndex
from estimator.lora.prepare import Prepared
from estimator.lora.ties import tied_with_embedding, ties_words

_CONTAINERS = ("ModuleDict", "ModuleList", "ParameterDict", "ParameterList")


class Tokens(NamedTuple):
    """A module some of whose rows are trained."""

    module: str
    rows: int
    width: int
    tied: bool  # follows the embedding's: owns nothing, saves nothing


class Wrapped(NamedTuple):
    saved: tuple[str, ...]  # modules trained and saved whole
    tied: tuple[str, ...]  # modules whose saved copy is the embedding's
    tokens: tuple[Tokens, ...]


def wrapped_modules(index: TreeIndex, prepared: Prepared, adapted: Iterable[str]) -> Wrapped:
    """Raises InvalidLoraError for what PEFT refuses."""
    config, lora = prepared.config, set(adapted)
    saved = _ending_with(index, config.modules_to_save or (), lora, "modules_to_save")
    tied = _ending_with(index, prepared.modules_to_tie, lora, "modules_to_save")
    tokens = _tokens(index, prepared, lora) if config.trainable_token_indices is not None else ()
    late = _ending_with(index, prepared.late_modules_to_save, lora, "modules_to_save")
    whole = tuple(dict.fromkeys((*saved, *late)))
    _refuse_nested(whole)
    return Wrapped(whole, tuple(name for name in tied if name not in whole), tokens)


def _ending_with(index: TreeIndex, names: Sequence[str], lora: set[str], field: str) -> list[str]:
    """_set_trainable: every module whose name ends with one of the names, letter by letter."""
    found = [name for name in index.modules if name.endswith(tuple(names))] if names else []
    for name in found:
        if name in lora or index.modules[name].cls in _CONTAINERS:
            what = "has a LoRA layer already" if name in lora else f"is a {index.modules[name].cls}"
            raise InvalidLoraError(
                f"{field} cannot be applied to {name}, which {what}.", where=field, way_out="name it in one place only"
            )
    return found


def _refuse_nested(names: Sequence[str]) -> None:
    for name in names:
        for other in names:
            if other.startswith(name + "."):
                raise InvalidLoraError(
                    f"modules_to_save takes {name} and {other}, which lies in it.",
                    where="modules_to_save",
                    way_out="name the outer one alone",
                )


def _tokens(index: TreeIndex, prepared: Prepared, lora: set[str]) -> tuple[Tokens, ...]:
    config, tree = prepared.config, index.tree
    given = config.trainable_token_indices
    layers: Mapping[str, Sequence[int]] = given if isinstance(given, Mapping) else {_embedding(index): given}
    for name in layers:
        if name in (config.modules_to_save or ()):
            raise InvalidLoraError(
                f"{name} is saved whole already, so its rows cannot be trained one by one.",
                where="trainable_token_indices",
                way_out="name it in modules_to_save or in trainable_token_indices",
            )
    tied = tied_with_embedding(index) if ties_words(tree) else []
    skipped, differ = _same_indices(index, layers, tied, config.ensure_weight_tying)
    tokens: dict[str, Tokens] = {}
    for name, rows in layers.items():
        if name not in skipped:
            for module in _strictly(index, [name], lora):
                tokens.setdefault(module, _of_module(index, module, rows))
    if tied and tree.input_embedding in tokens and (config.ensure_weight_tying or not differ):
        source = tokens[tree.input_embedding]
        for module in _strictly(index, tied, lora):
            tokens.setdefault(module, source._replace(module=module, tied=True))
    return tuple(tokens.values())


def _embedding(index: TreeIndex) -> str:
    if index.tree.input_embedding is None:
        raise InvalidLoraError(
            f"{index.tree.architecture} does not say which module is its input embedding.",
            where="trainable_token_indices",
            way_out="name the module: {name: [ids]}",
        )
    return index.tree.input_embedding


def _same_indices(index: TreeIndex, layers: Mapping[str, Any], tied: list[str], ensure: bool) -> tuple[set[str], bool]:
    """Names that follow the embedding because their rows are the same; whether tied names have other rows."""
    embedding = index.tree.input_embedding or ""
    if len(layers) < 2 or not tied:
        return set(), False
    keys = [
        name
        for name in layers
        if embedding.endswith(name) or any(module.endswith(name) or name in module.split(".") for module in tied)
    ]
    if len(keys) < 2:
        return set(), False
    differ = any(list(layers[key]) != list(layers[keys[0]]) for key in keys[1:])
    if differ and ensure:
        raise InvalidLoraError(
            f"{' and '.join(keys)} are tied, but other rows are named for each.",
            where="trainable_token_indices",
            way_out="name the same rows, or leave out ensure_weight_tying",
        )
    return (set() if differ else set(keys) & set(tied)), differ


def _strictly(index: TreeIndex, names: Sequence[str], lora: set[str]) -> list[str]:
    found = _ending_with(index, names, lora, "trainable_token_indices")
    if not found:
        raise InvalidLoraError(
            f"the model has no module {', '.join(names)[:200]}.",
            where="trainable_token_indices",
            way_out="name a module of the model, such as embed_tokens",
        )
    return found


def _of_module(index: TreeIndex, name: str, rows: Sequence[int]) -> Tokens:
    module = index.modules[name]
    weight = next((p for p in module.parameters if p.name == "weight"), None)
    if module.kind not in ("Embedding", "Linear") or weight is None:
        raise InvalidLoraError(
            f"{name} is a {module.cls}, whose rows are no tokens.",
            where="trainable_token_indices",
            way_out="name an embedding",
        )
    outside = [row for row in rows if not -weight.shape[0] <= row < weight.shape[0]]
    if outside:
        raise InvalidLoraError(
            f"{name} has {weight.shape[0]:,} rows; there is no row {outside[0]}.",
            where="trainable_token_indices",
            way_out="name token ids within the vocabulary",
        )
    return Tokens(name, len(rows), weight.shape[1], tied=False)
