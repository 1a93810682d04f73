"""What the model calls a tensor of the checkpoint, where the shapes in its headers cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from estimator.architecture.choose import choose, own_config, section_of
from estimator.architecture.module import ModuleTree
from estimator.architecture.rename import Renamer, read_transform
from estimator.architecture.towers import with_towers


def run_time_names(config: Mapping[str, Any], tree: ModuleTree, stored: Iterable[str]) -> dict[str, str]:
    """The run-time name of each stored one, itself where the class renames nothing.

    `tree`: what config.json builds.
    """
    facts = choose(config, None)
    if facts is None:
        return {name: name for name in stored}
    facts, _ = with_towers(facts, own_config(config, section_of(config, facts.said.name) or ""))
    known = {f"{module.name}.{p.name}".lstrip(".") for module in tree.modules for p in module.parameters}
    transforms = [read_transform(number, written) for number, written in enumerate(facts.transforms)]
    rename = Renamer(transforms, facts.prefix, known.__contains__)
    return {name: rename(name).name for name in stored}
