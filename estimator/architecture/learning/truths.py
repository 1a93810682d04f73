"""What conditions say of observations: each is asked once, and what was said is kept as bits, one an observation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from estimator.architecture.conditions import Place
from estimator.architecture.formula import Unfit, met


class Observation(NamedTuple):
    """A place in a model that was built from one config."""

    number: int  # of the config: what tells it from others
    values: Mapping[str, Any]  # the config's scalars and lists by dotted path, as its class has filled it in
    place: Place = Place()
    mixed: bool = False  # several numbers were changed at once

    def lookup(self, path: str) -> Any:
        """The field's value; None where there is none."""
        return self.values.get(path)

    @property
    def key(self) -> Any:
        return self.number, self.place


class Truths:
    """Of which observations conditions hold, and of which they fail; neither where a field is missing."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._observed: list[Observation] = []
        self._said: defaultdict[str, _Said] = defaultdict(_Said)

    def bits(self, observed: Iterable[Observation]) -> int:
        """These observations."""
        bits = 0
        for one in observed:
            at = self._numbers.setdefault(one.key, len(self._observed))
            if at == len(self._observed):
                self._observed.append(one)
            bits |= 1 << at
        return bits

    def holds(self, text: str, bits: int) -> int:
        """Those of which the condition holds."""
        return bits & self._asked(text, bits).holds

    def fails(self, text: str, bits: int) -> int:
        """Those of which it is false."""
        return bits & self._asked(text, bits).fails

    def all_hold(self, text: str, bits: int) -> bool:
        """Whether it holds of every one; asks no more once one tells."""
        return self._all(text, bits, True)

    def all_fail(self, text: str, bits: int) -> bool:
        """Whether it is false of every one."""
        return self._all(text, bits, False)

    def _all(self, text: str, bits: int, wanted: bool) -> bool:
        said = self._said[text]
        if bits & said.asked & ~(said.holds if wanted else said.fails):
            return False
        return all(self._ask(text, said, bit) is wanted for bit in _each(bits & ~said.asked))

    def _asked(self, text: str, bits: int) -> _Said:
        said = self._said[text]
        for bit in _each(bits & ~said.asked):
            self._ask(text, said, bit)
        return said

    def _ask(self, text: str, said: _Said, bit: int) -> bool | None:
        """None where a field is missing: the condition may not be asked there."""
        one = self._observed[bit.bit_length() - 1]
        said.asked |= bit
        try:
            answer = met(text, one.lookup, one.place)
        except (Unfit, TypeError, AttributeError, ValueError):
            return None
        if answer:
            said.holds |= bit
        else:
            said.fails |= bit
        return answer


class _Said:
    __slots__ = ("asked", "fails", "holds")

    def __init__(self) -> None:
        self.asked = self.holds = self.fails = 0


def _each(bits: int) -> Iterator[int]:
    while bits:
        bit = bits & -bits
        yield bit
        bits ^= bit
