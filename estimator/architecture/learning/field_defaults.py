"""What a class's config has for fields that no formula of a shape knows, as refusals.facts writes it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from estimator.architecture.learning.fields_used import without
from estimator.architecture.shapes import shapes_of
from estimator.architecture.surveying import tiny


def default_of(name: str, path: str) -> str:
    """The number or list that a class's config has where config.json leaves the field out, of a section that it has,
    ` unless` and the field's other names; "" where formulas know the field, or it is worked out from others.
    """
    facts = shapes_of(name)
    *parents, leaf = path.split(".")
    if facts is None or path in facts["rules"]:
        return ""
    with contextlib.suppress(Exception):  # a class whose config wants to be told more
        holder = reduce(getattr, parents, tiny.config_class(name)())
        names = holder.attribute_map
        others = [".".join((*parents, alias)) for alias, own in names.items() if own == leaf]
        alike = [one for one in vars(holder) if one.split("_")[0] == leaf.split("_")[0] and _is_list(holder, one)]
        ways = [[*parents, alias] for alias, own in names.items() if own == leaf] + [[*parents, one] for one in alike]
        fields = reduce(without, ([*parents, leaf], *ways), tiny.base_fields(name))
        configs = [_without_it(name, fields, parents, type(holder)), *(() if parents else (holder,))]
        number = type(holder).__dataclass_fields__[leaf].default
        text, *same = (json.dumps(one, separators=(",", ":")) for one in (number, *(getattr(c, leaf) for c in configs)))
        if leaf not in names and type(number) in (int, list, tuple) and set(same) == {text}:
            return " ".join((text, *(("unless", *others) if others else ())))
    return ""


def _without_it(name: str, fields: Mapping[str, Any], parents: Sequence[str], cls: Any) -> Any:
    """The section where nothing states the field; by itself where the small sizes around it go with no default."""
    try:
        return reduce(getattr, parents, tiny.make(name, fields))
    except Exception:  # whatever transformers refuses with
        return cls()


def _is_list(config: Any, key: str) -> bool:
    return isinstance(vars(config)[key], (list, tuple))
