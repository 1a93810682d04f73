"""Two changes of a config at once, which of both decides; two values of one that do the same."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from estimator.architecture.learning.changing import changed_numbers, numbers, turned, with_new
from estimator.architecture.surveying import tiny

_MOST, _MOST_NEW, _MOST_SIDES, _DRAWS, _SEVERAL = 48, 160, 6, 16, 32


def two_at_once(
    name: str, base: Mapping[str, Any], before: Mapping[str, Any], effective: Any, tried: Mapping[str, Sequence[Any]]
) -> Iterator[dict[str, Any]]:
    """Switches turned where a number is given of which the class has none (its head_dim is the size of what a switch
    adds, too; a switch may set it where it is not given), where layers are of other kinds or in turned order, and where
    another switch or text is set.

    before: the base as its class fills it in. effective: (path, value, keyword arguments) of what shows. tried: values
    that the class takes, by path, whether they show or not.
    """
    new = [(path, fields) for path, value, fields in effective if type(value) is int and not before.get(".".join(path))]
    new += [(path, tiny.changed(fields, path, 1)) for path, fields in new]
    lists = dict.fromkeys(path for path, value, _ in effective if isinstance(value, list))
    kinds = [(path, turned(name, base, path)) for path in lists]
    kinds += [(path, fields) for path, value, fields in effective[::-1] if isinstance(value, (list, str))]
    kinds += [(path, fields) for path, value, fields in effective if isinstance(value, bool)]
    bools = [path for path in tried if type(before.get(path)) is bool]
    all_switches = [(tuple(path.split(".")), one) for path in bools for one in tried[path]]
    switches = [(path, value) for path, value, _ in effective if isinstance(value, bool)]
    yield from _both(new, all_switches, _MOST_NEW)
    yield from _both(kinds, switches, _MOST)


def decided(sides: Iterable[Any], effective: Any) -> Iterator[dict[str, Any]]:
    """What a comparison decides, under each switch and text that shows: another part may compare the same.

    sides: (path, value) on either side of what is compared.
    """
    known = {(path, repr(value)) for path, value in sides}
    shown = [(path, value) for path, value, _ in effective if (path, repr(value)) in known]
    words = [(path, fields) for path, value, fields in effective if isinstance(value, (bool, str))]
    both = [(fields, one) for path, fields in words for one in shown if one[0][:-1] == path[:-1] and one[0] != path]
    yield from (tiny.changed(fields, path, value) for fields, (path, value) in both[:_MOST])


def switched_beside(
    sides: Iterable[Any], before: Mapping[str, Any], effective: Any, tried: Mapping[str, Sequence[Any]]
) -> Iterator[dict[str, Any]]:
    """Each switch that does nothing alone, beside what a comparison decides: `n_langs > 1 and use_lang_emb`."""
    known = {(path, repr(value)) for path, value in sides}
    shown = [(path, fields) for path, value, fields in effective if (path, repr(value)) in known]
    alone = {".".join(path) for path, _, _ in effective}
    idle = [path for path in tried if type(before.get(path)) is bool and path not in alone]
    yield from _both(shown, [(tuple(path.split(".")), one) for path in idle for one in tried[path]], _MOST)


def among_numbers(
    name: str, base: Mapping[str, Any], sides: Sequence[Any], chance: random.Random
) -> Iterator[dict[str, Any]]:
    """What a comparison decides, among other numbers: layers that the base does not have may compare the same."""
    groups = numbers(name, base)
    for path, value in sides[:_MOST_SIDES] * _DRAWS:
        some = chance.sample(groups, chance.randint(0, len(groups)))
        yield tiny.changed(changed_numbers(base, some, chance), path, value)


def several_at_once(
    base: Mapping[str, Any], effective: Sequence[Any], chance: random.Random
) -> Iterator[dict[str, Any]]:
    """A few changes that show, together: which of them decides."""
    for _ in range(_SEVERAL if len(effective) > 2 else 0):
        fields = dict(base)
        for path, value, whole in chance.sample(effective, min(len(effective), chance.randint(2, 5))):
            fields = tiny.changed(with_new(fields, whole, base), path, value)
        yield fields


def _both(kinds: Sequence[Any], switches: Sequence[Any], most: int) -> Iterator[dict[str, Any]]:
    both = [(switch, kind) for kind in kinds for switch in switches if switch[0][:-1] == kind[0][:-1]]
    yield from (tiny.changed(fields, path, value) for (path, value), (_, fields) in both[:most])


def kept(shown: Sequence[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Where a number and True both show, a field is a switch if they do the same, and a number else."""
    by_value = {repr(value): one for value, one in shown}
    number, switch = by_value.get("2"), by_value.get("True")
    left_out = {"2"} if number and switch and number.seen == switch.seen else {"True", "False"} if number else set()
    yield from ((value, one) for value, one in shown if repr(value) not in left_out)
