"""What a quantiser's scales become on loading: they go through the conversions of the weights that they belong to.

transformers 5.23.0, quantizers/base.py, `update_weight_conversions`. Of a converter whose sources all end in `.weight`

    merged or split into weights that keep scales   a copy takes the scales
    into weights that keep none                     the scales are taken in, and unpacked before anything else; what
                                                    comes of it keeps the dtype in which it is stored, and a tensor can
                                                    no longer be split
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from estimator.architecture.choose import choose
from estimator.architecture.class_lookup import lookup_for
from estimator.architecture.load import Loaded, placed
from estimator.architecture.module import ModuleTree, named_parameters
from estimator.architecture.rename import Renamer, Transform, read_transform
from estimator.architecture.stored_names import transforms_of
from estimator.checkpoint.checkpoint import Tensors
from estimator.source.stack import Stack

Shape = tuple[int, ...]
_OF_A_WEIGHT = ".weight"
_MANY_TO_MANY = "ErnieFuseAndSplitTextVisionExperts"  # the one operation that takes several and makes several
# Of other makers (`FineGrainedFP8HfQuantizer.update_weight_conversions`).
_CALLED = (
    ["rename", [r"^(.+)\.scale"], [r"\1.weight_scale_inv"]],
    ["rename", [r"\.qscale_weight"], [".weight_scale_inv"]],
)


def loaded_scales(
    tree: ModuleTree, stacks: Iterable[Stack], own: Mapping[str, Shape], suffix: str
) -> dict[str, Loaded]:
    """What each of a tree's scales is as it comes out of the file's, by its run-time name.

    own: the scales that the tree has. suffix: what they add to a weight's name.
    Raises MalformedHeaderError for shapes that a converter can't take.
    """
    facts = choose(tree.config, None)
    if facts is None:
        return {}
    transforms = [read_transform(0, written) for written in _CALLED]
    for transform in transforms_of(tree.config, facts):
        transforms.append(transform)
        if _is_of_weights(transform) and _keeps(transform.targets[0], own, suffix):
            sources, targets = ([name + suffix for name in names] for names in (transform.sources, transform.targets))
            written = ["convert", sources, targets, transform.operations, transform.scope, transform.base]
            transforms.append(read_transform(transform.number, written))
    rename = Renamer(transforms, facts.prefix, own.__contains__)
    found = placed(Tensors(stacks), rename, own.__contains__, lookup_for(tree.config, facts, None)).parameters
    return {name: scale for name, scale in found.items() if name in own}


def unsplittable(tree: ModuleTree, own: Mapping[str, Shape], suffix: str) -> list[str] | None:
    """What the class splits off of parameters that keep no scales, so that no file can be read; None: nothing.

    Empty where this model has no such parameters: transformers prepares to split them all the same, and fails.
    """
    splits = (transform for transform in _taken_in(tree, own, suffix) if len(transform.targets) > 1)
    first = next((one for one in splits if _MANY_TO_MANY not in (name for name, _ in one.operations)), None)
    if first is None:
        return None
    made = [re.compile(f"{target}$") for target in first.targets]
    return [name for name, _ in named_parameters(tree.modules) if any(one.search(name) for one in made)]


def kept_as_stored(tree: ModuleTree, own: Mapping[str, Shape], suffix: str, quantised: Iterable[str]) -> frozenset[str]:
    """Parameters that keep the dtype in which they are stored, whatever dtype is asked for.

    quantised: stored names of weights that are, which take the dtype that is asked for as they are unpacked.
    """
    facts = choose(tree.config, None)
    taken_in = {transform.number: transform for transform in _taken_in(tree, own, suffix)}
    if facts is None or not taken_in:
        return frozenset()
    names = {name for name, _ in named_parameters(tree.modules)}
    rename = Renamer(transforms_of(tree.config, facts), facts.prefix, names.__contains__)
    for found in map(rename, quantised):
        if found.converter is not None:
            taken_in.pop(found.converter.number, None)
    made = [re.compile(re.escape(transform.targets[0]) + "$") for transform in taken_in.values()]
    return frozenset(name for name in names if any(one.search(name) for one in made))


def _taken_in(tree: ModuleTree, own: Mapping[str, Shape], suffix: str) -> Iterator[Transform]:
    """Converters that take scales in, which none of their weights keeps."""
    facts = choose(tree.config, None)
    for transform in transforms_of(tree.config, facts) if facts is not None else ():
        if _is_of_weights(transform) and not _keeps(transform.targets[0], own, suffix):
            yield transform


def _is_of_weights(transform: Transform) -> bool:
    return transform.kind == "convert" and all(source.endswith(_OF_A_WEIGHT) for source in transform.sources)


def _keeps(target: str, own: Mapping[str, Shape], suffix: str) -> bool:
    expression = re.compile(f"{target}{suffix}$")
    return any(map(expression.search, own))
