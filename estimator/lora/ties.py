"""Which modules are tied to the input embedding, and what ensure_weight_tying makes of a config.

peft 0.21.2: _get_module_names_tied_with_embedding (peft/utils/other.py), BaseTuner._check_tied_modules
(peft/tuners/tuners_utils.py), LoraModel._add_modules_to_save_to_tie and _add_targets_to_tie
(peft/tuners/lora/model.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import permutations
from typing import Any

from estimator.architecture.module import ModuleTree
from estimator.errors import InvalidLoraError
from estimator.lora.index import TreeIndex
from estimator.lora.match import EMBEDDING_LAYER_NAMES, is_embedding_layer, part_pattern
from estimator.request.lora_config import LoraConfig
from estimator.request.patterns import fullmatching, is_plain, matching

_ALL_ORDERS = 5  # of so many tied modules: 120
NO_EMBEDDING = "get_input_embeddings() of this class ends in NotImplementedError"


def ties_words(tree: ModuleTree) -> bool:
    """config.tie_word_embeddings at run time."""
    said = _said(tree)
    return bool(tree.tied) if said is None else bool(said)


def _said(tree: ModuleTree) -> Any:
    """What the config says at run time; None where it says nothing.

    A class with a single config ties what it declares where that says so: T5's sets it again, whatever config.json has
    (transformers 5.23.0, PreTrainedModel.get_expanded_tied_weights_keys, T5Config).
    """
    said = tree.tie_word_embeddings if tree.tie_word_embeddings is not None else tree.config.get("tie_word_embeddings")
    if said is False and not tree.is_composite and not tree.tied.keys().isdisjoint(tree.declared_ties):
        return True
    return said


def tied_with_embedding(index: TreeIndex) -> list[str]:
    """Names of the modules whose weights are declared as tied to the input embedding's, sorted.

    Raises InvalidLoraError where PEFT asks the model for its input embedding and the model has no answer.
    """
    tree = index.tree
    if _said(tree) is False or not tree.declares_ties:
        return []
    if tree.input_embedding is None:
        raise InvalidLoraError(
            f"{NO_EMBEDDING}, and PEFT asks for it: it would end in that error.",
            where="get_peft_model",
            way_out="no LoRA config avoids it; set tie_word_embeddings to false in the model's config",
        )
    embedding = index.modules.get(tree.input_embedding)
    roots = {index.root(f"{tree.input_embedding}.{p.name}") for p in embedding.parameters} if embedding else set()
    return sorted({k.rpartition(".")[0] for k, v in declared_ties(tree).items() if index.root(v) in roots})


def declared_ties(tree: ModuleTree) -> Mapping[str, str]:
    """_tied_weights_keys of the class and its parts; where they are not known, the ties that there are."""
    return tree.declared_ties or tree.tied


def with_ties(index: TreeIndex, config: LoraConfig) -> tuple[LoraConfig, tuple[str, ...], tuple[str, ...]]:
    """_check_tied_modules: the config, the modules to save that follow the embedding's copy, the targets likewise."""
    tied = tied_with_embedding(index)
    embedding = index.tree.input_embedding
    if not config.ensure_weight_tying or not tied or embedding is None:
        return config, (), ()
    saved = list(config.modules_to_save or ())
    if any(is_embedding_layer(name) for name in saved):
        if embedding not in saved:
            saved.append(embedding)
        return config._replace(modules_to_save=tuple(_saved_beside(saved, tied, embedding))), tuple(tied), ()
    targets = config.target_modules
    if isinstance(targets, str):
        if not fullmatching(targets, EMBEDDING_LAYER_NAMES, where="target_modules"):
            return config, (), ()
        return config._replace(target_modules=rf"(?:{targets}|^{re.escape(embedding)}$)"), (), tuple(tied)
    if not targets or not any(map(is_embedding_layer, targets)):
        return config, (), ()
    kept = _without_tied(sorted({*targets, embedding}, key=len, reverse=True), tied)
    return config._replace(target_modules=tuple(kept)), (), tuple(tied)


def saves_depend_on_order(index: TreeIndex, config: LoraConfig) -> bool:
    """Whether PEFT, which goes through the tied names as a set, leaves other modules to save from run to run."""
    saved, embedding = config.modules_to_save or (), index.tree.input_embedding
    if not config.ensure_weight_tying or embedding is None or not any(map(is_embedding_layer, saved)):
        return False
    left = _left_by_order(list(dict.fromkeys((*saved, embedding))), tied_with_embedding(index))
    return len({frozenset(names) for names in left}) > 1


def targets_depend_on_order(index: TreeIndex, config: LoraConfig) -> bool:
    """The same of targets, which are a set too: whether a name that is left at times has embeddings saved along, or
    adapts more than what is tied.
    """
    targets, embedding = config.target_modules or (), index.tree.input_embedding
    named = not isinstance(targets, str) and any(map(is_embedding_layer, targets))
    if not config.ensure_weight_tying or embedding is None or not named:
        return False
    if any(map(is_embedding_layer, config.modules_to_save or ())):
        return False  # which goes first
    tied = tied_with_embedding(index)
    said = _said_by([*targets, embedding], tied)
    doubtful = sorted(frozenset().union(*said.values()))
    found = index.with_suffixes(doubtful)
    more = (name for name in doubtful if not {*tied, embedding}.issuperset(found[name]))
    matter = {*EMBEDDING_LAYER_NAMES, *more}
    left = (_without(names, keys, said) for names in _orders(doubtful) for keys in _orders(tied))
    return len({frozenset(matter.intersection(names)) for names in left}) > 1


def _orders(names: list[str]) -> Iterable[Iterable[str]]:
    """Each order; both directions alone where there are many."""
    return permutations(names) if len(names) <= _ALL_ORDERS else (names, names[::-1])


def _left_by_order(names: list[str], tied: list[str]) -> list[list[str]]:
    """What stays of the names in each order of the tied ones."""
    said = _said_by(names, tied)
    return [_without(names, order, said) for order in _orders(tied)]


def _saved_beside(names: list[str], tied: list[str], embedding: str) -> list[str]:
    """The modules to save under an order of the tied ones that leaves the embedding among them, where there is one.

    PEFT ends in an AttributeError under any other (`set_additional_trainable_modules`).
    """
    left = _left_by_order(names, tied)
    return next((kept for kept in left if any(map(embedding.endswith, kept))), left[0])


def _without_tied(names: list[str], tied: list[str]) -> list[str]:
    """Each tied module takes the first name that says it out of the list."""
    return _without(names, tied, _said_by(names, tied))


def _without(names: Iterable[str], tied: Iterable[str], said: Mapping[str, frozenset[str]]) -> list[str]:
    names = list(names)
    for key in tied:
        if (first := next((name for name in names if name in said[key]), None)) is not None:
            names.remove(first)
    return names


def _said_by(names: list[str], tied: list[str]) -> dict[str, frozenset[str]]:
    """For each tied module the names that say it."""
    plain = {name for name in names if is_plain(name)}
    patterns = [name for name in dict.fromkeys(names) if name not in plain]
    taken = matching([part_pattern(name) for name in patterns], tied, where="modules_to_save")
    said = dict(zip(patterns, taken, strict=True))
    return {
        key: frozenset(name for name in names if (name in key.split(".") if name in plain else key in said[name]))
        for key in tied
    }


def is_tied_target(name: str, tied: Iterable[str]) -> bool:
    """_check_tied_module_exists."""
    return any(name == key or name.endswith(f".{key}") for key in tied)
