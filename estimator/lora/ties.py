"""Which modules are tied to the input embedding, and what ensure_weight_tying makes of a config.

peft 0.21.2: _get_module_names_tied_with_embedding (peft/utils/other.py), BaseTuner._check_tied_modules
(peft/tuners/tuners_utils.py), LoraModel._add_modules_to_save_to_tie and _add_targets_to_tie
(peft/tuners/lora/model.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from estimator.architecture.module import ModuleTree
from estimator.errors import InvalidLoraError
from estimator.lora.index import TreeIndex
from estimator.lora.match import EMBEDDING_LAYER_NAMES, is_embedding_layer, part_pattern
from estimator.request.lora_config import LoraConfig
from estimator.request.patterns import fullmatching, is_plain, matching

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
        return config._replace(modules_to_save=tuple(_without_tied(saved, tied))), tuple(tied), ()
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
    """Whether PEFT, which goes through the tied names as a set, leaves other modules to save from run to run.

    It does where the input embedding is itself tied to another: its name takes out itself, or a shorter one first.
    """
    saved, embedding = config.modules_to_save or (), index.tree.input_embedding
    if not config.ensure_weight_tying or embedding is None or not any(map(is_embedding_layer, saved)):
        return False
    tied, listed = tied_with_embedding(index), list(dict.fromkeys((*saved, embedding)))
    return embedding in tied and {*_without_tied(listed, tied)} != {*_without_tied(listed, tied[::-1])}


def _without_tied(names: list[str], tied: Iterable[str]) -> list[str]:
    """Each tied module takes the first name that says it out of the list."""
    names = list(names)
    for key in tied:
        first = next((name for name in names if is_plain(name) and name in key.split(".")), None)
        patterns = [name for name in names if not is_plain(name)]
        whole = [part_pattern(name) for name in patterns]
        said = [
            name for name, taken in zip(patterns, matching(whole, [key], where="modules_to_save"), strict=True) if taken
        ]
        found = [name for name in (first, *said) if name is not None]
        if found:
            names.remove(min(found, key=names.index))
    return names


def is_tied_target(name: str, tied: Iterable[str]) -> bool:
    """_check_tied_module_exists."""
    return any(name == key or name.endswith(f".{key}") for key in tied)
