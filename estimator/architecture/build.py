"""The modules that transformers would build from config.json and a checkpoint's headers."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from estimator.architecture.choose import check_labels, choose, class_asked, own_config, section_of
from estimator.architecture.class_lookup import lookup_for
from estimator.architecture.conditions import Lookup
from estimator.architecture.config_fields import own_code, unties
from estimator.architecture.facts import ClassFacts, class_outline, classes_for
from estimator.architecture.grow import Grown, grow
from estimator.architecture.load import Load, load
from estimator.architecture.module import ModuleTree, named_parameters
from estimator.architecture.shapes import shapes_of
from estimator.architecture.tie_names import expanded
from estimator.architecture.ties import filled_by_ties, resolve_ties
from estimator.architecture.towers import opened, with_towers
from estimator.architecture.unfused import with_experts_apart
from estimator.checkpoint.checkpoint import Checkpoint
from estimator.errors import NoWeightsError
from estimator.notes import Note

# transformers 5.23.0, `_adjust_missing_and_unexpected_keys`, and the causal masks that GPT-like files of old hold
_IGNORED = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$", r"(attn|attention)\.(bias|masked_bias)$")


def build(
    config: Mapping[str, Any],
    checkpoint: Checkpoint,
    *,
    task: str | None = None,
    num_labels: int | None = None,
    use_facts: bool = True,
) -> ModuleTree:
    """The module tree, in `named_modules()` order.

    `task` is PEFT's task type: it chooses transformers' class for that task, whose head may be fresh, sized by
    `num_labels`. An architecture without facts, and any under `use_facts=False`, is inferred from names and shapes, as
    is one whose own code has other layers than transformers' class or a model type of its own (`auto_map`).
    """
    facts = choose(config, task) if use_facts else None
    its_own = own_code(config)
    section = None if facts is None else section_of(config, facts.said.name)
    if facts is None or (its_own and section is None and not classes_for(config.get("model_type"))):
        return _guessed(config, checkpoint)
    own = own_config(config, section or "", facts.said.name)
    facts = with_experts_apart(_with_parts(facts, own), config)
    lookup = lookup_for(own, facts, num_labels)
    check_labels(facts.said, lookup("num_labels"))
    loaded = load(checkpoint.tensors, facts, lookup)
    left = _not_loaded(loaded, facts)
    most = sum(count for _, count in left) * 2 > len(checkpoint.tensors)
    if most and its_own:
        return _guessed(config, checkpoint)
    if most and facts.said.name not in (config.get("architectures") or ()):
        return _of_other_names(config, checkpoint, facts, left, (task, num_labels))
    grown = grow(facts, loaded, lookup, own)
    never = dict(facts.said.declared_ties) if unties(own, shapes_of(facts.said.name)) else {}
    facts = facts._replace(ties=tuple(tie for tie in facts.ties if tie[0] not in never)) if never else facts
    tied, tie_notes = resolve_ties(facts, loaded, grown, lookup, checkpoint)
    filled = filled_by_ties(tied, loaded.parameters)
    absent = [name for name in grown.absent if name not in filled]
    lacking = absent if facts.said.name in (config.get("architectures") or ()) else []  # else a head is made anew
    if its_own and _of_layers(name for name, _ in left) and _of_layers(absent):
        return _guessed(config, checkpoint)
    if (left or absent) and _is_stand_in(config, facts.said.name, task):
        return _guessed(config, checkpoint)
    name = facts.said.name
    notes = (*_inferred(grown), *tie_notes, *grown.notes, *left_out(left, name), *made_anew(lacking, name))
    return _tree(facts, own, grown, lookup)._replace(tied=tied, notes=notes, lacking=tuple(lacking))


def _with_parts(facts: ClassFacts, config: Mapping[str, Any]) -> ClassFacts:
    """The facts with those of its towers; a tower that nobody knows is left to names and shapes."""
    facts, unknown = with_towers(facts, config)
    for part in unknown:
        facts = opened(facts, part)
    return facts


def _tree(facts: ClassFacts, config: Mapping[str, Any], grown: Grown, lookup: Lookup) -> ModuleTree:
    """What the class says of its modules, before ties and what the file lacks."""
    said, tie = facts.said, lookup("tie_word_embeddings")
    return ModuleTree(
        architecture=said.name,
        config=config,
        modules=grown.modules,
        tied={},
        input_embedding=_present(said.input_embedding, grown),
        output_embedding=_present(said.output_embedding, grown),
        one_embedding=tuple(name for name in said.one_embedding if _present(name, grown)),
        beside_head=said.beside_head,
        declares_ties=said.declares_ties,
        declared_ties=_declared(facts, grown),
        tie_word_embeddings=said.tie_word_embeddings if None in (tie, said.tie_word_embeddings) else bool(tie),
        keep_in_fp32=said.keep_in_fp32,
        keep_in_fp32_strict=said.keep_in_fp32_strict,
        transposed=grown.transposed,
        is_composite=said.is_composite,
        basis="inferred" if grown.open_parts else "exact",
    )


def _of_other_names(
    config: Mapping[str, Any],
    checkpoint: Checkpoint,
    facts: ClassFacts,
    left: Sequence[tuple[str, int]],
    asked: tuple[str | None, int | None],
) -> ModuleTree:
    """Where the class loads little of the checkpoint. A task's class is built all the same, of fresh weights, where the
    file is another class's of transformers; a repository's own class under a model type of transformers is inferred.
    """
    from estimator.architecture.from_config import from_config

    if any(class_outline(name) for name in config.get("architectures") or ()):
        with contextlib.suppress(NoWeightsError):
            tree = from_config(config, task=asked[0], num_labels=asked[1])
            return tree._replace(notes=(*tree.notes, *left_out(left, facts.said.name)))
    return _guessed(config, checkpoint)


def _is_stand_in(config: Mapping[str, Any], name: str, task: str | None) -> bool:
    """Whether a class is taken for another that config.json names and nobody knows: names and shapes tell more of that
    one's head than the class that its model type usually has.
    """
    named = next(iter(config.get("architectures") or ()), None)
    known = name in (named, class_asked(config, task))
    return isinstance(named, str) and not known and class_outline(named) is None


def _guessed(config: Mapping[str, Any], checkpoint: Checkpoint) -> ModuleTree:
    from estimator.architecture.inference.infer import infer  # few need it: it takes time to import

    return infer(config, checkpoint)


def _declared(facts: ClassFacts, grown: Grown) -> dict[str, str]:
    """The declared ties whose source is there."""
    if not facts.said.declared_ties:
        return {}
    return expanded(facts.said.declared_ties, {name for name, _ in named_parameters(grown.modules)})


def _present(name: str | None, grown: Grown) -> str | None:
    return name if name is not None and any(module.name == name for module in grown.modules) else None


def _inferred(grown: Grown) -> list[Note]:
    """A note on parts whose classes the facts do not know."""
    if not grown.open_parts:
        return []
    parts = ", ".join(grown.open_parts)
    message = (
        f"The modules of {parts} are another package's, or of an unknown model type: inferred from names and shapes."
    )
    return [Note("inferred", message)]


def _not_loaded(loaded: Load, facts: ClassFacts) -> list[tuple[str, int]]:
    """Stored tensors that the class does not load and would warn of: one of each kind, how many."""
    ignored = re.compile("|".join((*facts.ignored_unexpected, *_IGNORED)))
    return [(name, count) for name, count in loaded.unexpected if ignored.search(name) is None]


def left_out(left: Sequence[tuple[str, int]], architecture: str) -> list[Note]:
    """A note on stored tensors that the class does not load: one of each kind, how many."""
    if not left:
        return []
    count, first = sum(count for _, count in left), left[0][0]
    others = f" and {count - 1:,} more" if count > 1 else ""
    return [Note("unused_tensors", f"{architecture} does not load {first}{others} from this checkpoint.")]


def _of_layers(names: Iterable[str]) -> bool:
    """Whether a layer's are among them: where a file holds others than the class builds, `auto_map`'s code is meant.

    Where it holds further layers alone, the class lacks none; a fresh head is no layer.
    """
    return any(re.search(r"\.\d+\.", name) for name in names)


def made_anew(lacking: Sequence[str], architecture: str) -> list[Note]:
    """A note on parameters that the file of this very class does not hold."""
    if not lacking:
        return []
    others = f" and {len(lacking) - 1:,} more" if len(lacking) > 1 else ""
    message = f"The checkpoint lacks {lacking[0]}{others}: {architecture} makes what it lacks anew."
    return [Note("made_anew", message)]
