"""Configs to learn from and the models they make, on the meta device."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from estimator.architecture.learning.changing import (
    are_words,
    brought_in,
    changed_lists,
    changed_numbers,
    compared,
    hidden,
    lists,
    literals,
    missing,
    moved,
    numbers,
    shortened,
    with_new,
)
from estimator.architecture.learning.company import company
from estimator.architecture.learning.fields_used import given, without
from estimator.architecture.learning.observing import observation_of, sized
from estimator.architecture.learning.pairs import (
    among_numbers,
    decided,
    kept,
    several_at_once,
    switched_beside,
    two_at_once,
)
from estimator.architecture.learning.published import published
from estimator.architecture.learning.remembering import How
from estimator.architecture.learning.taken import Taken
from estimator.architecture.learning.trace import Trace
from estimator.architecture.learning.truths import Observation
from estimator.architecture.surveying import tiny
from estimator.architecture.surveying.observe import Seen, embeddings_of, observe, ties_of

_SECONDS = 20  # of the process, whatever else a machine does: a build that takes longer is a fault, not a large model
_PROBE = "a text of no meaning"
_TURNED = 0.7  # of the mixes of what needs a switch have it turned
_MIXES, _MOST_MIXES, _FRESH, _REAL, _ALIKE = 14, 30, 12, 4, 4


class Build(NamedTuple):
    fields: Mapping[str, Any]  # keyword arguments: what config.json would hold
    at: Observation
    seen: Seen
    ties: Mapping[str, str]
    embeddings: tuple[str | None, str | None]


class Experiments:
    """The builds of one class, and what was seen of the code while it built."""

    def __init__(self, name: str, taken: Taken) -> None:
        self.name, self.taken = name, taken
        self.comparisons: dict[How, None] = {}
        self.lengths: dict[How, None] = {}
        self.reads: dict[str, None] = {}
        self.known: dict[tuple[str, str], None] = {}
        self.tried: dict[str, list[Any]] = {}  # values of a field with which the class could be built
        self.free: set[str] = set()  # texts, or fields that are empty, where any text does as well
        self.builds: list[Build] = []
        self.beside: list[Build] = []  # what a switch wants beside it, without the switch: which of both shows
        self.fresh: list[Build] = []
        self._number = 0

    def run(self) -> None:
        """The base, every switch that shows, random mixes of all; some of these are kept apart as fresh."""
        bare = tiny.base_fields(self.name)
        base = tiny.with_towers(self.name, bare)
        first = self.build(base)
        if first is None:
            base, first = bare, self.build(bare)
        if first is None:
            raise RuntimeError("the base does not build")
        self.builds.append(first)
        self.builds += self._all([*(() if base == bare else (bare,)), *self._without_a_tower(base)])
        effective = self._effective(base, first)
        before = observation_of(tiny.make(self.name, base), 0).values
        self.builds += [*self.beside, *self._all(decided(compared(self.comparisons, before), effective))]
        self.builds += self._all(shortened(self.name, base))
        mixed = self._mixes(base, effective, random.Random(self.name))
        self.fresh, mixed = mixed[:_FRESH], mixed[_FRESH:]
        self.builds += mixed
        self.builds += self._all(tiny.other_bases(self.name))
        self.fresh += self._all([{}, *self._real(random.Random(self.name))])
        self.fresh += self._all(two_at_once(self.name, base, before, effective, self.tried))
        self.fresh += self._all(several_at_once(base, effective, random.Random(self.name)))
        sides = list(compared(self.comparisons, before))
        self.fresh += self._all(switched_beside(sides, before, effective, self.tried))
        self.fresh += self._all(among_numbers(self.name, base, sides, random.Random(self.name)))

    def _effective(self, base: Mapping[str, Any], first: Build, asked: set[str] | None = None) -> list[Any]:
        """(path, value, keyword arguments) of the changes that show, each built; where `asked`, of these fields alone.

        What the class reads only beside a change is tried beside it.
        """
        effective = []
        for path, values in self.changes(base).items():
            if asked is not None and ".".join(path) not in asked:
                continue
            known = set(self.reads)
            if values[:1] == [_PROBE]:
                self._probe(base, path, first)
                values = [*values[1:], *(text for field, text in self.known if field == ".".join(path))]
            tried = ((value, self._switched(base, path, value)) for value in values)
            built = [(value, one) for value, one in tried if one]
            if ".".join(path) in self.taken.beside:
                self.builds += [one for value, _ in built if (one := self.build(tiny.changed(base, path, value)))]
            self.tried.setdefault(".".join(path), []).extend(value for value, _ in built)
            shown = list(kept([(value, one) for value, one in built if _differ(one, first)]))
            for value, one in shown:
                self.builds.append(one)
                effective.append((path, value, one.fields))
                self.free.discard(".".join(path))
            # What does nothing tells what it is that does: a kind for each layer always does something.
            idle = [(value, one) for value, one in built if are_words(value) and not _differ(one, first)]
            self.builds += [one for value, one in idle if shown or isinstance(value, list)]
            new = set(self.reads) - known
            if shown and new and asked is None:
                effective += self._effective(shown[-1][1].fields, shown[-1][1], new)
        return effective

    def build(self, fields: Mapping[str, Any], mixed: bool = False) -> Build | None:
        """None where the class refuses."""
        signal.signal(signal.SIGPROF, _too_long)
        signal.setitimer(signal.ITIMER_PROF, _SECONDS)
        trace = Trace()
        try:
            trace.config = config = tiny.make(self.name, self._remembering(fields, trace))
            self._number += 1
            at = self.observed(config, fields, self._number, mixed)
            with trace:
                model = tiny.build(self.name, config)
            for log, more in (
                (self.comparisons, trace.log), (self.lengths, trace.lengths), (self.reads, trace.reads),
                (self.known, trace.known),
            ):  # fmt: skip
                log.update(more)
            return Build(fields, at, sized(observe(model), model, trace), ties_of(model), embeddings_of(model))
        except Exception:
            self.known.update(trace.known)  # a text that is none of those compared with may be refused
            return None
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def _remembering(self, fields: Mapping[str, Any], trace: Trace) -> Mapping[str, Any]:
        """The fields, with numbers that the config takes and does not keep made such that shapes can tell them."""
        for path in self.taken.values:
            parts = tuple(path.split("."))
            value = given(fields, parts)
            value = self.taken.defaults.get(path) if value is None else value
            if type(value) is int:
                fields = tiny.changed(fields, parts, trace.traced(value, path))
        return fields

    def observed(self, config: Any, fields: Mapping[str, Any], number: int, mixed: bool = False) -> Observation:
        """The config as its class has filled it in, with what was given and is not kept."""
        at = observation_of(config, number, mixed)
        for path, default in self.taken.defaults.items():
            value = given(fields, path.split("."))
            at.values[path] = default if value is None else value
        return at

    def _probe(self, base: Mapping[str, Any], path: tuple[str, ...], first: Build) -> None:
        """Sets a field to a text that means nothing: what it is compared with shows, or that it does not matter."""
        one = self.build(tiny.changed(base, path, _PROBE))
        if one is not None and not _differ(one, first):
            self.free.add(".".join(path))

    def _switched(self, base: Mapping[str, Any], path: tuple[str, ...], value: Any) -> Build | None:
        """The base with a field set anew; one that wants numbers or another switch beside it is given them."""
        for made in self.taken.effects.get(".".join(path), ()):
            base = without(base, made.split("."))
        base = self._beside(base, path)
        one = self.build(tiny.changed(base, path, value))
        if one is None and isinstance(value, int):
            for beside in company(self.name, base, path, value, self.reads):
                one = self.build(tiny.changed(beside, path, value))
                if one is not None:
                    alone = self.build(beside)
                    self.beside += [] if alone is None else [alone]
                    break
        return one

    def _without_a_tower(self, base: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The base without one of the towers that the class may have: which of them shows."""
        for key in (key for key, value in base.items() if isinstance(value, Mapping)):
            fields = {other: value for other, value in base.items() if other != key}
            with contextlib.suppress(Exception):  # a section that the class can't do without
                if getattr(tiny.make(self.name, fields), key, 0) is None:
                    yield fields

    def _beside(self, fields: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        """The fields with the switch turned that lets the class look at one that it takes."""
        switch, on = self.taken.beside.get(".".join(path), ("", False))
        return tiny.changed(fields, tuple(switch.split(".")), on) if switch else dict(fields)

    def changes(self, base: Mapping[str, Any]) -> dict[tuple[str, ...], list[Any]]:
        """Other values of the fields that the model reads, or that other fields are made of."""
        config = tiny.make(self.name, base)
        before = observation_of(config, 0).values
        found = {tuple(path.split(".")): list(values) for path, values in self.taken.values.items()}
        probes = [
            (tuple(path.split(".")), _PROBE)
            for path in self.reads
            if isinstance(before.get(path, 0), (str, type(None)))
        ]
        changes = [*literals(config), *hidden(config), *tiny.changes(config), *missing(self.reads, before)]
        changes += compared(self.comparisons, before)
        changes += brought_in(list(self.reads), before)
        for path, value in [*probes, *changes]:
            values = found.setdefault(path, [])
            if value in values and type(value) is not bool:
                continue
            if ".".join(path) in self.reads or self._shows(base, path, value, before):
                values.append(value)
        return found

    def _concerns(self, base: Mapping[str, Any], path: tuple[str, ...], value: int, before: Mapping[str, Any]) -> bool:
        """Whether the model reads a number, or another field that is made of it."""
        named = ".".join(path) in self.reads or "layer" in path[-1]
        return named or any(self._shows(base, path, other, before) for other in (value * 2, value + 1))

    def _shows(self, base: Mapping[str, Any], path: tuple[str, ...], value: Any, before: Mapping[str, Any]) -> bool:
        try:
            after = observation_of(tiny.make(self.name, tiny.changed(base, path, value)), 0).values
        except Exception:
            return False
        own = ".".join(path)
        return any(after.get(read) != before.get(read) for read in self.reads if read != own)

    def _real(self, chance: random.Random) -> list[Mapping[str, Any]]:
        """Published configs of the class."""
        configs = published(self.name)
        return chance.sample(configs, min(_REAL, len(configs)))

    def alike(self, one: Build) -> list[Build]:
        """A few with the same switches among other numbers."""
        chance, groups = random.Random(self.name), numbers(self.name, one.fields)
        draws = (chance.sample(groups, chance.randint(0, len(groups))) for _ in range(_ALIKE * 4))
        configs = (changed_numbers(one.fields, some, chance) for some in draws)
        return list(itertools.islice(self._all(configs, mixed=True), _ALIKE))

    def _all(self, configs: Iterable[Mapping[str, Any]], mixed: bool = False) -> Iterator[Build]:
        """Those of the configs that the class does not refuse, built."""
        return (one for fields in configs if (one := self.build(fields, mixed)) is not None)

    def _mixes(self, base: Mapping[str, Any], effective: Any, chance: random.Random) -> list[Build]:
        before = observation_of(tiny.make(self.name, base), 0).values
        groups = [
            kept
            for group in numbers(self.name, base)
            if (kept := [pair for pair in group if self._concerns(base, *pair, before)])
        ]
        stages = [pair for pair in lists(tiny.make(self.name, base)) if ".".join(pair[0]) in self.reads]
        found: list[Build] = []
        wanted = min(_MOST_MIXES, max(_MIXES, len(effective))) + _FRESH
        for attempt in range(wanted * 4):
            if len(found) >= wanted:
                break
            few = min(len(groups), chance.randint(1, 3) if attempt % 4 == 0 else len(groups))
            fields = changed_numbers(base, chance.sample(groups, few), chance)
            if effective and attempt % 3:
                turn = effective[attempt * 2 // 3 % len(effective)]
                for path, value, whole in [turn, *chance.sample(effective, chance.randint(0, 1))]:
                    fields = with_new(fields, whole, base)
                    if chance.random() < _TURNED:
                        fields = self._beside(fields, path)
                    fields = tiny.changed(fields, path, moved(path, value, chance))
            if stages and attempt % 2:
                fields = changed_lists(fields, stages, chance)
            if "num_labels" in self.reads and attempt % 2:
                fields["num_labels"] = chance.randint(1, 9)
            found += [] if (one := self.build(fields, mixed=True)) is None else [one]
        chance.shuffle(found)
        return found


def _differ(one: Build, other: Build) -> bool:
    return (one.seen, one.ties, one.embeddings) != (other.seen, other.ties, other.embeddings)


def _too_long(*_: Any) -> None:
    raise TimeoutError
