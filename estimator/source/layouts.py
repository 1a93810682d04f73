"""The tensors of the bundled models, layers folded: names and shapes that transformers gives them.

layouts.tsv is generated beside models.tsv: a stamp, then one layout a line, which several models may share:

    number <tab> JSON [[pattern, [indices of each "*"], shape], ...]

Indices are written as ranges, "0-31" or "0-2,5"; a pattern stands for every combination of its indices.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, product
from typing import Any

PATH = os.path.join(os.path.dirname(__file__), "layouts.tsv")
_INDEX = re.compile(r"(?:(?<=\.)|^)\d+(?=\.|$)")

Shapes = Mapping[str, tuple[int, ...]]
Folded = list[tuple[str, list[str], list[int]]]


def layout(number: str) -> dict[str, tuple[int, ...]]:
    """Run-time names and shapes of all parameters and stored buffers."""
    with open(PATH, encoding="utf-8") as file:
        text = file.read()
    start = text.index(f"\n{number}\t") + len(number) + 2
    return unfold(json.loads(text[start : text.index("\n", start)]))


def unfold(folded: Iterable[Any]) -> dict[str, tuple[int, ...]]:
    """The inverse of `fold`."""
    shapes = {}
    for pattern, indices, shape in folded:
        pieces = pattern.split("*")
        for chosen in product(*map(_numbers, indices)):
            name = pieces[0] + "".join(f"{index}{piece}" for index, piece in zip(chosen, pieces[1:], strict=True))
            shapes[name] = tuple(shape)
    return shapes


def fold(shapes: Shapes) -> Folded:
    """Names alike but for their numbers, and of one shape, as one pattern."""
    groups: dict[tuple[str, tuple[int, ...]], list[tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        numbers = tuple(map(int, _INDEX.findall(name)))
        groups.setdefault((_INDEX.sub("*", name), shape), []).append(numbers)
    return [
        (pattern, indices, list(shape))
        for (pattern, shape), places in groups.items()
        for pattern, indices in _products(pattern, sorted(places))
    ]


def _products(pattern: str, places: list[tuple[int, ...]]) -> Iterator[tuple[str, list[str]]]:
    """The places as few combinations of index sets; where they are no whole product, the first index stays literal."""
    sets = [sorted(set(column)) for column in zip(*places, strict=True)]
    if len(places) == len(list(product(*sets))):
        yield pattern, [_ranges(numbers) for numbers in sets]
        return
    for first, rest in groupby(places, key=lambda place: place[0]):
        literal = pattern.replace("*", str(first), 1)
        yield from _products(literal, [place[1:] for place in rest])


def _ranges(numbers: list[int]) -> str:
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def _numbers(text: str) -> list[int]:
    numbers: list[int] = []
    for span in text.split(","):
        low, _, high = span.partition("-")
        numbers.extend(range(int(low), int(high or low) + 1))
    return numbers
