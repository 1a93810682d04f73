"""What a config class takes and does not keep: older names of fields, and what other fields are made of.

`full_attention_interval` of Qwen3Next stands in config.json, is no field of the class, and decides on `layer_types`.
Such names are texts in the code of the class's constructor; that each matters, and how, is seen by trying it.
"""

from __future__ import annotations

import itertools
import json
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedConfig
from transformers.configuration_utils import _LEGACY_LAYER_TYPE_REMAP as OLD_ELEMENTS

from estimator.architecture.config_fields import OVERRIDES
from estimator.architecture.learning.fields_used import given, only_types, without
from estimator.architecture.learning.fit import values_of
from estimator.architecture.surveying import tiny
from estimator.source.snapshot import known_models

_NUMBERS = (2, 3, 1, True, False)
_OTHERS = (None, [1, 0], ["a"], "a", "1,2", {})
_NEVER = {"num_labels", "dtype", "torch_dtype", "architectures", "rope_scaling", "rope_theta", "rope_parameters"}


class Taken(NamedTuple):
    """By path of what is taken."""

    effects: Mapping[str, set[str]]  # the fields that change with it
    values: Mapping[str, list[Any]]  # the values that were seen to change them and can be learnt from
    defaults: Mapping[str, Any]  # the value that does what leaving it out does
    aliases: Mapping[str, str]  # the field that becomes what is given
    beside: Mapping[str, tuple[str, Any]]  # the field that has to be set so for it to change anything
    unclear: set[str]  # what an object may hold and was not seen to change anything


_NO_FIELDS = {OVERRIDES, "quantization_config"}  # objects that hold none
_ABSENT = "no such field"
NOTHING = Taken({}, {}, {}, {}, {}, set())


_known: dict[type, Taken] = {}


def taken_by(name: str) -> Taken:
    """All of it, for a class's config and the ones nested in it."""
    cls = tiny.config_class(name)
    if cls not in _known:
        base = tiny.base_fields(name)
        found = _known[cls] = Taken({}, {}, {}, {}, {}, set())
        for path, alphabets in _candidates(tiny.make(name, base), ()):
            _try(name, _bases(base, path), path, alphabets, found)
    return _known[cls]


def _bases(base: Mapping[str, Any], path: Sequence[str]) -> list[Mapping[str, Any]]:
    """The small config, and the class's own defaults beside it, where a section is no more than its model type."""
    return [base, only_types(base, path)]


def _try(
    name: str, bases: Sequence[Mapping[str, Any]], path: tuple[str, ...], alphabets: Sequence[str], found: Taken
) -> None:
    text = ".".join(path)
    words: list[Any] = [word for whole in alphabets for word in (whole, whole[::-1], whole * 2, whole[1:] + whole)]
    words += _published(name, path)
    by_layer = _by_layer(name, bases[0], path)
    tries = [[*_NUMBERS, *words], [*_OTHERS, *by_layer]]
    changes: dict[str, set[str]] = {}
    for values in tries:
        if not any(changes.values()):
            changes |= {repr(value): _changed(name, bases, path, value) or set() for value in values}
    for other, on in () if any(changes.values()) else _others_beside(name, bases[0], path, found):
        turned = [tiny.changed(fields, tuple(other.split(".")), on) for fields in bases]
        numbers = [value for value in _NUMBERS if type(value) is int]
        beside = tries if type(on) is bool else [numbers]  # a number's company is one
        changes = {repr(value): _changed(name, turned, path, value) or set() for values in beside for value in values}
        if any(changes.values()):
            bases, found.beside[text] = turned, (other, on)
            break
    effects = set().union(*changes.values())
    if not effects:
        if len(path) > 1 and path[-2].endswith("_config") and _is_object(name, bases[0], path[:-1]):
            found.unclear.add(text)
        return
    found.effects[text] = effects
    for field in sorted(effects):
        if _becomes(name, bases, path, field):
            found.aliases[text] = field
            return
    found.values[text] = [value for value in (*words, *_NUMBERS, *by_layer) if changes.get(repr(value))]
    in_code = [one for one in _constants_of(_section(name, bases[0], path)) if type(one) is int]
    tried = (*range(1, 17), 0, True, False, *in_code)
    found.defaults[text] = next((value for value in tried if _changed(name, bases, path, value) == set()), None)


def _by_layer(name: str, fields: Mapping[str, Any], path: Sequence[str]) -> list[list[int]]:
    """A number for each layer of the section, both ways about."""
    filled = _filled(name, fields) or {}
    counts = [filled.get(".".join([*path[:end], "num_hidden_layers"])) for end in range(len(path) - 1, -1, -1)]
    count = next((one for one in counts if one is not None), None)
    return [[(at + turn) % 2 for at in range(count)] for turn in (0, 1)] if type(count) is int else []


def _others_beside(
    name: str, fields: Mapping[str, Any], path: Sequence[str], found: Taken
) -> Iterator[tuple[str, Any]]:
    """What the code looks at where it takes the field: each switch the other way about, what else it takes set."""
    functions = by_function(_section(name, fields, path))
    beside = {one for held, names in functions if path[-1] in held for one in (*held, *names)}
    known = [(key, not value) for key, value in (_filled(name, fields) or {}).items() if type(value) is bool]
    known += [(key, values[-1]) for key, values in found.values.items() if type(values[-1]) is int]
    for key, value in known:
        section, _, leaf = key.rpartition(".")
        if section == ".".join(path[:-1]) and leaf in beside:
            yield key, value


def _is_object(name: str, fields: Mapping[str, Any], path: Sequence[str]) -> bool:
    """Whether a path leads to no config of its own."""
    config = tiny.make(name, fields)
    return any(not isinstance((config := getattr(config, key, None)), PreTrainedConfig) for key in path)


def _section(name: str, fields: Mapping[str, Any], path: Sequence[str]) -> type:
    """The class of the config in which a field lies."""
    config = tiny.make(name, fields)
    for key in path[:-1]:
        config = getattr(config, key, config)
    return type(config)


def _published(name: str, path: Sequence[str]) -> list[Any]:
    """Lists that published configs of the class have there, and the same from the other end."""
    configs = (json.loads(known.config_text) for known in known_models() if f'"{name}"' in known.config_text)
    lists = [value for config in configs if isinstance(value := given(config, path), list)][:1]
    return [value[::turn] for value in lists for turn in (1, -1)]


def _changed(name: str, bases: Sequence[Mapping[str, Any]], path: tuple[str, ...], value: Any) -> set[str] | None:
    """The fields that are set otherwise with it; None where the class refuses it."""
    found: set[str] = set()
    accepted = False
    for fields in bases:
        before, after = _filled(name, fields), _filled(name, tiny.changed(fields, path, value))
        if before is not None and after is not None:
            own, accepted = ".".join(path), True
            found |= {
                key for key, one in after.items()
                if not f"{key}.".startswith(f"{own}.") and not own.startswith(f"{key}.")
                and not _same(before.get(key, _ABSENT), one)
                and not set(key.split(".")) & _NEVER and not key.rpartition(".")[2].startswith("_")
            }  # fmt: skip
    return found if accepted else None


def _same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


def _becomes(name: str, bases: Sequence[Mapping[str, Any]], path: tuple[str, ...], field: str) -> bool:
    """Whether a field that is left out becomes whatever is given."""
    made = []
    for value in (2, 3) if type((_filled(name, bases[0]) or {}).get(field)) is not bool else (True, False):
        for fields in bases:
            plain = without(fields, tuple(field.split("."))) if given(fields, field.split(".")) is not None else fields
            after = _filled(name, tiny.changed(plain, path, value))
            if after is not None:
                made.append(_same(after.get(field), value))
    return len(made) > 1 and all(made)


def _filled(name: str, fields: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        config = tiny.make(name, fields).to_dict()
    except Exception:
        return None
    return values_of(config) | dict(_overrides(config))


def _overrides(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What single layers have otherwise: it is kept apart from a config's own fields."""
    for key, value in config.items():
        if key == OVERRIDES:
            yield f"{prefix}{key}", value or None
        elif isinstance(value, dict):
            yield from _overrides(value, f"{prefix}{key}.")


def _candidates(config: PreTrainedConfig, prefix: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Texts in the code of the config's class that are no field of it, with the letters that it holds together.

    What is called a config and is none is an object that may hold the others.
    """
    constants = list(_constants_of(type(config)))
    fields = {*vars(config), *(getattr(config, "attribute_map", None) or {}), *_NEVER}
    alphabets = ["".join(one) for one in constants if isinstance(one, (tuple, frozenset)) and _are_letters(one)]
    texts = [*constants, *_settable(type(config))]
    names = [one for one in dict.fromkeys(texts) if isinstance(one, str) and _is_name(one, config, fields)]
    for text in names:
        yield (*prefix, text), alphabets
        if text.endswith("_config") and text[0] != "_" and text not in _NO_FIELDS:
            beside = [one for held, _ in by_function(type(config)) if text in held for one in held]
            inner = [
                one for one in dict.fromkeys(beside) if isinstance(one, str) and one.isidentifier() and one != text
            ]
            yield from (((*prefix, text, one), alphabets) for one in inner)
    for key, value in tiny.sub_configs(config).items():
        yield from _candidates(value, (*prefix, key))


def _settable(cls: type) -> Iterator[str]:
    """What is computed when read, and sets other fields when given: LongCat-Flash's num_hidden_layers."""
    for one in cls.__mro__:
        held = vars(one).items() if one.__module__.startswith("transformers.models.") else ()
        yield from (key for key, value in held if isinstance(value, property) and value.fset is not None)


def _is_name(text: str, config: PreTrainedConfig, fields: Collection[str]) -> bool:
    known = text in fields or callable(getattr(type(config), text, None))
    return text.isidentifier() and len(text) > 1 and not known


def _are_letters(values: Collection[Any]) -> bool:
    return len(values) > 1 and all(isinstance(one, str) and len(one) == 1 for one in values)


def _constants_of(cls: type) -> Iterator[Any]:
    """What the code of its own functions holds: texts and tuples, those in tuples too."""
    return itertools.chain.from_iterable(constants for constants, _ in by_function(cls))


def by_function(cls: type) -> Iterator[tuple[list[Any], tuple[str, ...]]]:
    """The constants of each of its own functions, and the names of what it asks objects for."""
    for one in cls.__mro__:
        if not one.__module__.startswith("transformers.models."):
            continue
        for held in vars(one).values():
            held = getattr(held, "__func__", held)
            while hasattr(held, "__wrapped__"):
                held = held.__wrapped__
            if isinstance(held, types.FunctionType):
                yield list(_constants(held.__code__.co_consts)), held.__code__.co_names


def _constants(held: Sequence[Any]) -> Iterator[Any]:
    for one in held:
        yield one
        if isinstance(one, tuple):
            yield from _constants(one)
        elif isinstance(one, types.CodeType):
            yield from _constants(one.co_consts)


def renamed(name: str, fields: Mapping[str, Any], path: str, listed: Sequence[str]) -> dict[str, str]:
    """Older words for a list's elements that the class takes over as newer ones."""
    found = {}
    for old, new in OLD_ELEMENTS.items():
        made = _filled(name, tiny.changed(fields, tuple(path.split(".")), [old, *listed[1:]]))
        if made is not None and isinstance(made.get(path), list) and made[path][:1] == [new]:
            found[old] = new
    return found


def last_of(name: str, fields: Mapping[str, Any], path: str, listed: Sequence[str]) -> str | None:
    """The word that the class makes of a list's last element, whatever stands there: Gemma 4's last layer."""
    for word in sorted(set(listed)):
        given_ = [word] * len(listed)
        made = (_filled(name, tiny.changed(fields, tuple(path.split(".")), given_)) or {}).get(path)
        if isinstance(made, list) and made[:-1] == given_[:-1] and made[-1:] != given_[-1:]:
            return made[-1]
    return None
