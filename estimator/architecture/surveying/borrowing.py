"""Model types whose configs another type's class is built of: transformers has internlm3 as Llama.

Rules' source: transformers 5.23.0, modeling_auto.py, `PreTrainedConfig.attribute_map`, `get_model_conversion_mapping`
(which asks for the config's model type).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.conversion_mapping import get_model_conversion_mapping

from estimator.architecture.learning.fields_used import without
from estimator.architecture.surveying import tiny
from estimator.architecture.surveying.transforms import written_transform

_SHARE = "partial_rotary_factor"  # stands in config.json beside the fields, or in rope_parameters


def borrowing(
    tasks: Mapping[str, Mapping[str, Sequence[str]]], before: Mapping[str, dict[str, Any]], newer: bool
) -> dict[str, dict[str, Any]]:
    """By model type, as borrowed.py reads it. `before`: the file's, which stay where the installed release's are added
    (`newer`); else those alone stay that a newer release has added.
    """
    found = dict(borrowing_types(tasks))
    if newer:
        return {kind: {**said, "release": version("transformers")} for kind, said in found.items()} | before
    return {kind: said for kind, said in before.items() if said.get("release")} | found


def borrowing_types(tasks: Mapping[str, Mapping[str, Sequence[str]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(model type, what a config of it has otherwise than the class's own) of those that these tasks lead to."""
    for kind, names in tasks.items():
        for name in dict.fromkeys(name for built in names.values() for name in built):
            with contextlib.suppress(Exception):  # the class takes no such config
                if kind in CONFIG_MAPPING and (said := said_of(kind, name)):
                    yield kind, said
                    break


def said_of(kind: str, name: str) -> dict[str, Any]:
    """{} where the class's own config is of this type, is a section of one, or has other sections than one."""
    own, lent = CONFIG_MAPPING[kind], tiny.config_class(name)
    ours, theirs = tiny.sub_configs(own()), tiny.sub_configs(lent())
    if (
        own is lent
        or lent in map(type, ours.values())
        or [*map(_telling, ours.values())] != [*map(_telling, theirs.values())]
    ):
        return {}
    fields = {key: value for key, value in tiny.base_fields(name).items() if key != "model_type"}
    model = tiny.build(name, own(**fields))
    absent = {key: value for key in _telling(own()) for value in _default(own, lent, fields, key)}
    share, other = ((getattr(cls(**fields), "rope_parameters", None) or {}).get(_SHARE) for cls in (own, lent))
    return {
        "as": lent.model_type,
        "names": {alias: key for alias, key in own.attribute_map.items() if key in _telling(own())},
        "absent": {**absent, **({_SHARE: share} if share != other else {})},
        "transforms": [written_transform(one) for one in get_model_conversion_mapping(model, add_legacy=False)],
    }


def _default(own: type[PreTrainedConfig], lent: type[PreTrainedConfig], fields: dict[str, Any], key: str) -> list[Any]:
    """[The type's default], where the class's own config has something else in the place of what is left out."""
    here, there = (getattr(_without(cls, fields, key), key, None) for cls in (own, lent))
    return [] if here == there else [own.__dataclass_fields__[key].default]


def _without(cls: type[PreTrainedConfig], fields: dict[str, Any], key: str) -> PreTrainedConfig:
    """A small config, or the class's own where small numbers do not go with what it has for the field."""
    try:
        return cls(**without(fields, (key,)))
    except Exception:  # whatever transformers refuses with
        return cls()


def _telling(config: PreTrainedConfig) -> dict[str, Any]:
    """The fields that may decide on modules or memory: no rates, no tokens."""
    return {
        key: value
        for key, value in vars(config).items()
        if key in config.__dataclass_fields__
        and not isinstance(value, (float, dict))
        and "_token_" not in key
        and not isinstance(value, PreTrainedConfig)
        and key not in PreTrainedConfig.__dataclass_fields__
    }
