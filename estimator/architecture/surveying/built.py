"""A model class built under one config, and which of the config's fields a size follows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from estimator.architecture.surveying.discover import Setting
from estimator.architecture.surveying.observe import Seen

_WIDTH = 8  # what is narrower are counts, and many fields count two


class Built(NamedTuple):
    config: Any
    setting: Setting
    seen: Seen
    ties: Mapping[str, str]
    embeddings: tuple[str | None, str | None]
    declared: Mapping[str, str]


def shape_of(seen: Seen, name: str) -> tuple[tuple[int, ...] | None, int]:
    """A parameter's shape and how many dimensions it has; None and 0 where there is no such parameter."""
    *path, leaf = name.split(".")
    for key in path:
        seen = dict(seen.children).get(key)
        if seen is None:
            return None, 0
    shape = next((tensor.shape for tensor in seen.parameters if tensor.name == leaf), None)
    return shape, len(shape or ())


def dimension_of(parameter: str, axis: int, built: Sequence[Built]) -> Any:
    """The config field that a size follows, else the size: a small one that never varied is no field's."""
    pairs = [(shape_of(one.seen, parameter)[0], one.setting.fields) for one in built]
    pairs = [(shape[axis], fields) for shape, fields in pairs if shape is not None and axis < len(shape)]
    if pairs[0][0] < _WIDTH and len({size for size, _ in pairs}) == 1:
        return pairs[0][0]
    paths = sorted(
        pairs[0][1], key=lambda path: (path != "num_labels", path.count("."), _rank(path, parameter), len(path), path)
    )
    for path in paths:
        if "2label" not in path and "2id" not in path and all(fields.get(path) == str(size) for size, fields in pairs):
            return path
    return pairs[0][0]


def _rank(path: str, parameter: str) -> int:
    if "position" in parameter and "position" in path:
        return -1
    return 0 if re.search(r"(^|\.)(hidden_size|d_model|n_embd|vocab_size|embedding_size)$", path) else 1
