"""What a field may want beside it, so that the class can be built with its new value."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from estimator.architecture.learning.changing import NEVER
from estimator.architecture.surveying import tiny

_LARGE, _SMALL = 100, 8  # a default that is too large for a tiny model, and what fits
_COPIES = 3  # of all kinds of layers: some of each before the ones that share, some that do


def company(
    name: str, base: Mapping[str, Any], path: tuple[str, ...], value: int, reads: Collection[str]
) -> Iterator[dict[str, Any]]:
    """The base with other fields set as well: a switch wants numbers, or another switch; a number, smaller ones, or
    more layers of the same kinds.
    """
    try:
        section = config = tiny.make(name, base)
    except Exception:  # the class wants what makes way for the switch
        return
    for key in path[:-1]:
        section = getattr(section, key)
    if not isinstance(value, bool):
        for key, other in vars(section).items():
            if type(other) is int and other > _LARGE and not key.endswith(NEVER):
                yield tiny.changed(base, (*path[:-1], key), _SMALL)
            elif isinstance(other, list) and len(set(map(str, other))) > 1:
                for count in (one for one, number in vars(section).items() if "layers" in one and number == len(other)):
                    layers = other * _COPIES
                    yield tiny.changed(tiny.changed(base, (*path[:-1], count), len(layers)), (*path[:-1], key), layers)
        return
    if value:
        fields = dict(base)
        for other, number in tiny.absent_numbers(config, path[:-1]):
            fields = tiny.changed(fields, other, number)
        yield fields
    for key, other in vars(section).items():
        if isinstance(other, bool) and ".".join([*path[:-1], key]) in reads:
            yield tiny.changed(base, (*path[:-1], key), not other)
